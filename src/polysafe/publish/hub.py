"""One repository on the hub, through the hub's own client, with every failure said in polysafe's words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

from polysafe._version import __version__
from polysafe.errors import OutputError, PolysafeError, ResourceError
from polysafe.progress import Progress, tell
from polysafe.publish.contents import Item
from polysafe.text.markdown import one_line

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

Result = TypeVar("Result")

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_ATTEMPTS = 5
_LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is told to the user instead."""

AGAIN = "run the same command again; what has arrived is not sent twice"


@dataclass(frozen=True)
class Remote:
    """What the hub says about a file.

    Attributes:
        size: Its size in bytes.
        blob: What git calls its content; for a large file, what it calls the pointer to it.
        sha256: SHA-256 of a large file; None for a small one.
    """

    size: int
    blob: str
    sha256: str | None

    def holds(self, item: Item) -> bool:
        """Whether it is the file."""
        same = self.blob == item.blob if self.sha256 is None else self.sha256 == item.sha256
        return self.size == item.size and same


@dataclass
class Repository:
    """A model repository.

    Attributes:
        name: `owner/name`.
        token: Token to use; None for the one that the hub's client finds by itself.
        endpoint: Address of the hub; None for the one that the hub's client knows.
    """

    name: str
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None

    def __post_init__(self) -> None:
        from huggingface_hub import HfApi

        self._api: HfApi = HfApi(self.endpoint, self.token, library_name="polysafe", library_version=__version__)

    def check_access(self) -> None:
        """Asks who is logged in.

        Raises:
            OutputError: Nobody is, or the token may only read.
        """
        about: Mapping[str, Any] = self._ask("logging in", self._api.whoami)
        token = (about.get("auth") or {}).get("accessToken") or {}
        if token.get("role") == "read":
            raise OutputError(
                "the token may only read", where=self.name, remedy="make one that may write, in the settings of the hub"
            )

    def is_private(self) -> bool | None:
        """Whether only its owners can read it; None where there is no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def info() -> bool | None:
            try:
                return bool(self._api.model_info(self.name).private)
            except RepositoryNotFoundError:
                return None

        return self._ask("looking for the repository", info)

    def create(self, *, private: bool) -> None:
        """Makes the repository."""
        self._ask("creating the repository", lambda: self._api.create_repo(self.name, private=private))

    def files(self, revision: str | None = None) -> dict[str, Remote]:
        """What it holds, by path."""
        from huggingface_hub.hf_api import RepoFile

        def tree() -> dict[str, Remote]:
            entries = self._api.list_repo_tree(self.name, recursive=True, revision=revision)
            return {
                entry.path: Remote(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
                for entry in entries
                if isinstance(entry, RepoFile)
            }

        return self._ask("listing the repository", tree)

    def upload(
        self,
        items: Sequence[Item],
        stale: Sequence[str],
        message: str,
        progress: Progress = tell,
    ) -> str:
        """Sends files and makes one commit of all of them; until then nothing of them is to be seen.

        Large files that the hub has already, from an interrupted upload or an earlier commit, are not sent again.

        Args:
            items: What to send.
            stale: Paths to remove in the same commit.
            message: First line of the commit's message.
            progress: Told what has arrived.

        Returns:
            The commit.
        """
        total, done = sum(item.size for item in items), 0
        additions = [_addition(item) for item in items]
        for addition, item in zip(additions, items, strict=True):
            progress("uploading", done, total)
            self._ask(f"sending {item.path}", lambda one=addition: self._send(one))  # type: ignore[misc]
            done += item.size
        progress("uploading", done, total)
        # New additions at every further attempt: the client compares them with what an attempt whose answer was lost
        # has committed after all.
        fresh = chain([additions], ([_addition(item) for item in items] for _ in repeat(None)))
        return self._ask("committing", lambda: self._commit(next(fresh), stale, message))

    def _send(self, addition: CommitOperationAdd) -> None:
        self._api.preupload_lfs_files(self.name, [addition], free_memory=False)

    def _commit(self, additions: Sequence[CommitOperationAdd], stale: Sequence[str], message: str) -> str:
        from huggingface_hub import CommitOperationDelete

        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *additions,
            *(CommitOperationDelete(path) for path in stale),
        ]
        return str(self._api.create_commit(self.name, operations, commit_message=message).oid)

    def _ask(self, what: str, call: Callable[[], Result]) -> Result:
        """Calls, and calls again where a failure may pass.

        Raises:
            PolysafeError: The failure, with its remedy.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return call()
            except Exception as error:
                wait = _wait(error, attempt)
                if wait is None or attempt == _ATTEMPTS:
                    refusal = self._refusal(error, what)
                    if refusal is None:
                        raise
                    raise refusal from error
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _refusal(self, error: BaseException, what: str) -> PolysafeError | None:
        errors = list(_chain(error))
        response = _response(error)
        if response is not None:
            return self._answered(int(response.status_code), what, _said(errors, self.token), _retry_after(response))
        for kind, refusal in self._refusals(what):
            if any(isinstance(one, kind) for one in errors):
                return refusal
        return None

    def _refusals(self, what: str) -> Iterator[tuple[type[BaseException], PolysafeError]]:
        """What went wrong before the hub answered, by the kind of error, the special ones first."""
        from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

        yield LocalTokenNotFoundError, OutputError("nobody is logged in", where=self.name, remedy=_LOGIN)
        yield OfflineModeIsEnabled, ResourceError("the hub's client is told to stay offline", remedy=_ONLINE)
        yield HFValidationError, OutputError("is not a name of a repository", where=self.name, remedy="use OWNER/NAME")
        lost = ResourceError(f"the connection was lost while {what}", where=self.name, remedy=AGAIN)
        yield _transport_error(), lost
        yield ConnectionError, lost
        # The answer is not one that the hub's client reads, for example a page of a proxy in place of JSON.
        yield ValueError, ResourceError(f"the hub gave no usable answer while {what}", where=self.name, remedy=AGAIN)

    def _answered(self, status: int, what: str, said: str, wait: float | None) -> PolysafeError:
        problem = f"the hub answered {status} while {what}{said}"
        if status == 429 and wait is not None:
            return ResourceError(problem, where=self.name, remedy=f"wait {wait:.0f} s, then {AGAIN}")
        if status in _PASSING:
            return ResourceError(problem, where=self.name, remedy=f"wait a little, then {AGAIN}")
        return OutputError(problem, where=self.name, remedy=_REMEDIES.get(status, "see what the hub's page says"))


_ONLINE = "unset HF_HUB_OFFLINE"
_LOGIN = "log in with `hf auth login`, or name an environment variable that holds a token with --token-env"
_REMEDIES = {
    401: f"the token is missing, wrong or expired; {_LOGIN}",
    402: "the account's storage or plan does not allow it; see its billing page",
    403: "the token may not write there; make one that may, or choose another owner",
    404: "check OWNER/NAME, and that the token may see it",
    409: "something else changes this repository now; run the same command again when it is done",
    412: "somebody else changed this repository; run the same command again",
    413: "a small file is too large for the hub; see which with --dry-run",
}


def _addition(item: Item) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    addition = CommitOperationAdd(item.path, item.source)
    addition.upload_info.sha256 = bytes.fromhex(item.sha256)  # known; a large file is not read only to be hashed
    return addition


def _wait(error: BaseException, attempt: int) -> float | None:
    """Seconds after which it is worth to try again, None where it is not."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    response = _response(error)
    if response is None:
        chain = list(_chain(error))
        lost = any(isinstance(one, _transport_error()) for one in chain)
        return (
            2.0 ** (attempt - 1) if lost and not any(isinstance(one, OfflineModeIsEnabled) for one in chain) else None
        )
    if response.status_code not in _PASSING:
        return None
    asked = _retry_after(response)
    if asked is not None and asked > _LONGEST_WAIT:
        return None
    return max(asked or 0.0, 2.0 ** (attempt - 1))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: BaseException) -> Any:
    """The server's answer behind an error, None where there was none."""
    found = (getattr(one, "response", None) for one in _chain(error))
    return next((response for response in found if response is not None), None)


def _retry_after(response: Any) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After")))
    except (TypeError, ValueError):
        return None


def _said(errors: Sequence[BaseException], token: str | None) -> str:
    """What the server gave as its reason, inert and without the token."""
    text = next((text for one in errors if (text := getattr(one, "server_message", None))), None)
    if not isinstance(text, str) or (token and token in text):
        return ""
    return f": {one_line(text)}"


def _transport_error() -> type[BaseException]:
    """The root of the errors of the HTTP library that the hub's client uses; which one that is has changed."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]
