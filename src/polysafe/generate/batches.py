"""Chats that a provider answers within a day, at a lower price: OpenAI's batch interface, which others speak too.

Chats go up in a file, a batch is made of it, and answers come down in a file when it has ended. What was handed over is
noted in the user's cache before anything is waited for, and a batch says itself of which chats it is, so that a command
that was stopped finds its batches again and pays for none twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from polysafe.errors import ResourceError
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import remembered
from polysafe.files.memory import cache_directory
from polysafe.generate.client import AGAIN, ChatClient, ChatReply, UnservedError, reply_of
from polysafe.generate.exchange import Answer, exchange
from polysafe.generate.keys import host_of
from polysafe.progress import counted, say
from polysafe.secret import hide

if TYPE_CHECKING:
    import httpx

MOST = 1000
"""Chats of a batch: what is lost with one that fails, and what is read at once."""
_ANSWERS = 256 * 2**20
"""Most bytes of a file of answers."""
_FIRST, _LONGEST = 5.0, 60.0
"""Seconds between two looks at a batch, at first and at most."""
_LOST = frozenset({"failed", "expired", "cancelling", "cancelled"})
_ENDED = _LOST - {"cancelling"} | {"completed"}
_MARK = "polysafe"
"""What a batch says of which chats it is under."""
_ID = re.compile(r"[\w.-]{1,200}", re.ASCII)
_KEPT = 7 * 86_400
"""Seconds for which answers are surely kept at a server."""
_FORM = "polysafe-batch-form"
_TOLD = 300
_REMEDY = "run the same command again; what was answered is kept"

T = TypeVar("T")
Found = ChatReply | ResourceError
"""A reply, or why there is none."""


@dataclass(frozen=True)
class _Begun:
    """A batch that was handed over.

    Attributes:
        id: What the provider calls it.
        names: Names of its chats.
        note: Where it is noted.
    """

    id: str
    names: frozenset[str]
    note: Path


@dataclass(frozen=True)
class _State:
    """How far a batch is.

    Attributes:
        status: As the provider says it.
        done: Chats that are answered, or have failed.
        files: Files of answers and of errors.
        problem: Why the batch as a whole failed, empty where it did not.
    """

    status: str
    done: int
    files: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class Batches:
    """Hands chats to a server in batches.

    Attributes:
        client: The server.
        most: Chats of a batch.
        few: Chats that are no batch: they are asked at once, as a question to try the model out is.
        sleep: How waits are spent; for tests.
    """

    client: ChatClient
    most: int = MOST
    few: int = 4
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def answers(self, questions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Found]]:
        """(place of a question, its reply or why there is none), batch by batch, as they end.

        Args:
            questions: What `ChatClient.question` makes. Equal ones are asked once.

        Raises:
            UnservedError: The server does not answer, or refuses the key.
            ResourceError: It takes no batches, or does not take this one.
        """
        places: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(_name(question), []).append(place)
        open_ = list(self._noted(places))
        known = frozenset[str]().union(*(each.names for each in open_))
        left = [name for name in places if name not in known]
        if len(left) <= self.few:
            for name in left:
                reply = self._at_once(questions[places[name][0]])
                yield from ((place, reply) for place in places.pop(name))
            left = []
        parts = (left[start : start + self.most] for start in range(0, len(left), self.most))
        open_ += [self._handed_over({name: questions[places[name][0]] for name in names}) for names in parts]
        for begun, found in self._ended(open_, len(places)):
            for name, reply in found:
                yield from ((place, reply) for place in places.pop(name, ()))
            begun.note.unlink(missing_ok=True)
        silent = UnservedError("was left out of the answers of its batch", where=self.client.where)
        yield from ((place, silent) for some in places.values() for place in some)

    def _at_once(self, question: Mapping[str, Any]) -> Found:
        try:
            return self.client.ask(question)
        except ResourceError as error:
            return error

    # Handing over.

    def _handed_over(self, questions: Mapping[str, Mapping[str, Any]]) -> _Begun:
        digest = hashlib.sha256("\n".join(questions).encode()).hexdigest()
        known = self._listed(digest)
        found = known or self._made(digest, questions)
        begun = _Begun(found, frozenset(questions), _folder() / f"{digest}.json")
        content = {"server": self.client.where, "batch": found, "names": sorted(begun.names)}
        with suppress(OSError):  # without its note, the server's list says where it is
            begun.note.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(begun.note, content)
        told = f"{len(questions)} chats are {'with' if known else 'handed to'} {host_of(self.client.url)} as {found}"
        say(f"{told}; they may take a day, and the command may be stopped and called again")
        return begun

    def _made(self, digest: str, questions: Mapping[str, Mapping[str, Any]]) -> str:
        lines = [
            {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": question}
            for name, question in questions.items()
        ]
        form, kind = _form(lines), f"multipart/form-data; boundary={_FORM}"
        file = self.client.tried(lambda http: exchange(http, "files", form, self.client.timeout, kind=kind), _id)
        wanted = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {_MARK: digest},
        }
        try:
            return self.client.tried(lambda http: self._post(http, wanted), _id, attempts=1)
        except UnservedError:
            # the request may have arrived though its answer did not: asked again, it would be made and paid for twice
            found = self._listed(digest)
            if found is None:
                raise
            return found

    def _post(self, http: httpx.Client, wanted: Mapping[str, Any]) -> Answer:
        return exchange(http, "batches", json.dumps(wanted).encode("ascii"), self.client.timeout)

    def _listed(self, digest: str) -> str | None:
        """The batch of these chats that the server has, of another machine or of a command whose note is lost."""

        def read(answer: Answer) -> str | None:
            if answer.status != 200:
                return ""  # not every server lists its batches
            listed = _read(answer).get("data")
            mine = (each for each in listed if isinstance(each, dict)) if isinstance(listed, list) else ()
            return next((_sound(each.get("id")) or "" for each in mine if _is_of(each, digest)), "")

        return self._asked("batches?limit=100", read) or None

    def _noted(self, names: Mapping[str, object]) -> Iterator[_Begun]:
        """Batches that an earlier command handed to this server, with chats that are wanted now."""
        for note in sorted(_folder().glob("*.json")):
            content = remembered(note)
            known = content.get("names")
            found, here = _sound(content.get("batch")), content.get("server") == self.client.where
            if found and here and isinstance(known, list) and not names.keys().isdisjoint(map(str, known)):
                yield _Begun(found, frozenset(map(str, known)), note)

    # Waiting.

    def _ended(self, begun: Sequence[_Begun], total: int) -> Iterator[tuple[_Begun, Iterator[tuple[str, Found]]]]:
        """Batches that have ended, with what came of each of their chats."""
        advance, told = counted("batches at the server", total), 0
        open_, done, pause = list(begun), dict.fromkeys(begun, 0), _FIRST
        while open_:
            for each in [*open_]:
                state = self._state(each)
                done[each] = max(done[each], state.done)
                if state.status in _ENDED:
                    open_.remove(each)
                    done[each] = len(each.names)
                    yield each, self._found(each, state)
            now = sum(done.values())
            advance(now - told)
            told = now
            if open_:
                self.sleep(pause)
                pause = min(_LONGEST, 2 * pause)

    def _state(self, begun: _Begun) -> _State:
        def read(answer: Answer) -> _State | None:
            if answer.status == 404:
                return _State("failed", 0, (), "the server does not know it any more")
            content = _read(answer) if answer.status == 200 else {}
            if not isinstance(content.get("status"), str):
                return None
            counts = content.get("request_counts")
            values = counts.values() if isinstance(counts, dict) else ()
            files = tuple(name for key in ("output_file_id", "error_file_id") if (name := _sound(content.get(key))))
            return _State(
                content["status"], max((n for n in values if type(n) is int), default=0), files, _told(content)
            )

        return self._asked(f"batches/{begun.id}", read)

    def _found(self, begun: _Begun, state: _State) -> Iterator[tuple[str, Found]]:
        for file in state.files:
            content = self.client.tried(
                lambda http, file=file: exchange(  # type: ignore[misc]
                    http, f"files/{file}/content", None, self.client.timeout, limit=_ANSWERS
                ),
                lambda answer: answer if answer.status == 200 else None,
            ).content
            for line in content.splitlines():
                if (found := self._line(line)) is not None:
                    yield found
        if state.status != "completed":
            told = UnservedError(
                f"the batch {begun.id} is {state.status}: {state.problem or 'the server does not say why'}",
                where=self.client.where,
                remedy=_REMEDY,
            )
            yield from ((name, told) for name in begun.names)

    def _line(self, line: bytes) -> tuple[str, Found] | None:
        """Name of a chat, and what came of it; None for a line that says nothing of one."""
        try:
            content = json.loads(line)
            name, response = str(content["custom_id"]), content.get("response") or {}
            answer = Answer(int(response.get("status_code", 0)), {}, json.dumps(response.get("body")).encode())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        reply = reply_of(answer)
        if reply is not None:
            return name, reply
        if answer.status in {0, 200} | AGAIN:
            told = hide(str(content.get("error") or answer.text))[:_TOLD]
            return name, UnservedError(f"gave no answer: {told}", where=self.client.where, remedy=_REMEDY)
        return name, self.client.refused(answer)

    def _asked(self, path: str, read: Callable[[Answer], T | None]) -> T:
        return self.client.tried(lambda http: exchange(http, path, None, self.client.timeout), read)


def _folder() -> Path:
    return cache_directory() / "batches"


def _name(question: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:48]


def _form(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """The form of an upload; the lines are JSON in ASCII, so that the boundary stands in none of them."""
    content = "".join(f"{json.dumps(line)}\n" for line in lines)
    parts = (
        ('form-data; name="purpose"', "batch"),
        ('form-data; name="file"; filename="polysafe.jsonl"\r\nContent-Type: application/jsonl', content),
    )
    text = "".join(f"--{_FORM}\r\nContent-Disposition: {head}\r\n\r\n{body}\r\n" for head, body in parts)
    return f"{text}--{_FORM}--\r\n".encode("ascii")


def _id(answer: Answer) -> str | None:
    return _sound(_read(answer).get("id")) if answer.status == 200 else None


def _is_of(batch: Mapping[str, Any], digest: str) -> bool:
    """Whether a batch is of some chats, and its answers are worth waiting for and still kept."""
    if batch.get("metadata") != {_MARK: digest} or batch.get("status") in _LOST:
        return False
    counts, made = batch.get("request_counts"), batch.get("created_at")
    in_vain = batch.get("status") == "completed" and isinstance(counts, dict) and counts.get("completed") == 0
    return not in_vain and not (isinstance(made, int) and made < time.time() - _KEPT)


def _sound(name: object) -> str | None:
    """A name that a server gives, if it can stand in an address."""
    return name if isinstance(name, str) and _ID.fullmatch(name) else None


def _told(content: Mapping[str, Any]) -> str:
    """Why a batch failed, as its server says it."""
    return hide(json.dumps(content.get("errors"), ensure_ascii=False))[:_TOLD] if content.get("errors") else ""


def _read(answer: Answer) -> dict[str, Any]:
    try:
        content = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
