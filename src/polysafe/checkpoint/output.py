"""The place where a checkpoint comes into being: locked, resumable, published by one rename."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polysafe.checkpoint.writer import output_error
from polysafe.errors import OutputError
from polysafe.files.atomic import publish_directory, remove_unfinished, write_json_atomic
from polysafe.files.json_file import remembered
from polysafe.files.plain import is_shared, remove_shared
from polysafe.progress import say

RECORDS = "polysafe"
"""Folder inside an output that holds manifest, edit, plan and recipe."""
MANIFEST = f"{RECORDS}/manifest.json"


class Workspace:
    """A hidden folder beside the output in which everything is prepared.

    Attributes:
        target: Where the finished folder will be.
        work: The hidden folder.
        content: The folder inside it that becomes `target`.
        progress: Durable progress of the shards.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.work = target.with_name(f".{target.name}.polysafe")
        self.content = self.work / "content"
        self.progress = self.work / "progress"

    def holds(self, job: str) -> bool:
        """Whether an interrupted run of this job left its work here."""
        return bool(remembered(self._record).get("job") == job)

    @property
    def begun(self) -> bool:
        """Whether an interrupted run of any job left its work here."""
        return self._record.is_file()

    def size(self) -> int:
        """Bytes that are here already."""
        return sum(path.stat().st_size for path in self.content.rglob("*") if path.is_file())

    def prepare(self, job: str) -> bool:
        """Makes the folders ready for the job with this identity and tells whether there is work to resume.

        Whatever another job left here is removed: it was never published, and mixing the two would be a disaster. So
        are links, and files that have a name elsewhere too: going on in one would write into what is there.

        Raises:
            OutputError: The folder cannot be made, or is a link.
        """
        self.check()
        try:
            if not self.holds(job):
                self.discard()
            remove_shared(self.work)
            for folder in (self.content, self.progress):
                folder.mkdir(parents=True, exist_ok=True)
                remove_unfinished(folder)
            resumed = any(self.progress.iterdir())
            write_json_atomic(self._record, {"job": job})
        except OSError as error:
            raise output_error(self.work, error) from error
        return resumed

    def check(self) -> None:
        """Refuses a workspace that lies elsewhere: what is in that folder may be anybody's, and work would end in it.

        Raises:
            OutputError: It is a link.
        """
        if self.work.is_symlink():
            raise OutputError(
                "is a link; polysafe works in a folder of its own", where=self.work, remedy="remove the link"
            )

    def discard(self) -> None:
        """Removes the workspace. The record goes first: a folder that is removed only in part belongs to no job.

        Raises:
            OutputError: It is a link.
        """
        self.check()
        self._record.unlink(missing_ok=True)
        if self.work.exists():
            shutil.rmtree(self.work)

    @contextmanager
    def kept_if_used(self) -> Iterator[None]:
        """Within it the workspace is worked in; if that fails before anything was kept in it, it is removed."""
        try:
            yield
        except BaseException:
            files = (path for folder in (self.content, self.progress) for path in folder.rglob("*") if path.is_file())
            with suppress(OSError):  # the failure itself is what has to be told
                if not any(path.stat().st_size for path in files):
                    self.discard()
            raise

    @property
    def _record(self) -> Path:
        return self.work / "job.json"

    def publish(self) -> None:
        """Gives the content its final name and removes the rest.

        Raises:
            OutputError: Something appeared at the target in the meantime, or the rename failed.
        """
        try:
            publish_directory(self.content, self.target)
        except OSError as error:
            raise output_error(self.target, error) from error
        with suppress(OSError):  # the output is complete; what is left of the workspace is only litter
            self.discard()

    def republish(self) -> None:
        """Puts the content in the place of what has the final name, which is gone then.

        A process that is killed between the two renames leaves the whole content here, for the next to publish.

        Raises:
            OutputError: A rename failed.
        """
        try:
            if self.target.exists():
                shutil.rmtree(self._replaced, ignore_errors=True)
                os.rename(self.target, self._replaced)
        except OSError as error:
            raise output_error(self.target, error) from error
        self.publish()

    @property
    def _replaced(self) -> Path:
        return self.work / "replaced"


def check_target(target: Path, inputs: list[Path]) -> None:
    """Refuses an output place that would touch an input or foreign files.

    Raises:
        OutputError: `target` is an input, lies inside one, holds one, or holds files that no run of polysafe wrote; or
            the workspace beside it is a link.
    """
    try:
        _check_target(target, inputs)
    except OSError as error:
        raise output_error(target, error) from error


def _check_target(target: Path, inputs: list[Path]) -> None:
    resolved = target.resolve()
    for folder in inputs:
        if resolved == folder or resolved.is_relative_to(folder) or folder.is_relative_to(resolved):
            raise OutputError(
                f"the output may not be, contain, or lie inside the input {folder}",
                where=target,
                remedy="choose another output folder; inputs are never written to",
            )
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError("exists and is not a folder", where=target, remedy="choose another output folder")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).exists():
        raise OutputError(
            "holds files that polysafe did not write",
            where=target,
            remedy="choose a new or empty output folder",
        )
    Workspace(target).check()


def _holder(path: Path) -> str:
    """Who wrote the lock, which may be gone by now."""
    with suppress(OSError):
        return path.read_text() or "another process"
    return "another process"


@contextmanager
def lock(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Lets one process at a time work on an output. A lock whose owner died is free again.

    Args:
        target: The output.
        wait: Wait for another process that holds it, and say so, where it is made for whoever comes.

    Raises:
        OutputError: Another process holds it; the message says which. Or something else lies at its place.
    """
    from filelock import FileLock, Timeout

    path = target.with_name(f".{target.name}.polysafe.lock")
    guard = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_shared(path):
            raise OutputError(
                "is a link, or a file with another name, and no lock of polysafe", where=path, remedy="remove it"
            )
        try:
            guard.acquire()
        except Timeout:
            if not wait:
                raise
            say(f"waiting for {_holder(path)}")
            guard.acquire(timeout=-1)
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except Timeout:
        raise OutputError(
            f"is being written by {_holder(path)}", where=target, remedy="wait for it, or choose another output"
        ) from None
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while the lock is held; filelock refuses a lock on a file without a name
        guard.release()
