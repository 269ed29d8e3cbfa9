"""Writes the files of a checkpoint on a cluster: a task for each, on any machine that sees the same folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from polysafe.checkpoint.layout import Shard
from polysafe.cluster.pool import Cluster, finished, remote, told
from polysafe.cluster.probing import RayHands
from polysafe.engine.local import ShardTask
from polysafe.probe.hands import measured_by
from polysafe.progress import hearing
from polysafe.threads import threads


class RayEngine:
    """One task per file, spread over the machines: each writes at its own speed to the folder that all of them see.

    A file is written by one process at a time. Where its process or its machine is lost, another goes on from the last
    durable point, as a run that was killed does; other files are not touched.

    Args:
        cluster: Where.
    """

    def __init__(self, cluster: Cluster | None = None) -> None:
        self._cluster = cluster or Cluster()

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Within it, effects of attention heads are measured by processes of the cluster."""
        with RayHands(self._cluster) as hands, measured_by(hands):
            yield

    def execute(self, tasks: Sequence[ShardTask], advance: Callable[[int], None]) -> list[str]:
        """Executes all tasks and returns their hashes in order; the first failure ends the run.

        Raises:
            PolysafeError: What a task raised.
            ResourceError: There is no cluster, or a task was lost more often than it is begun again.
        """
        import ray

        if not tasks:
            return []
        seen = _Seen(tasks, advance)
        with self._cluster.connected():
            shared = ray.put(tasks[0])  # edit and sources, which are the same in all of them
            write = remote(self._cluster, _write)
            open_ = {write(shared, task.shard, task.progress_file): place for place, task in enumerate(tasks)}  # type: ignore[arg-type]
            digests = {}
            for place, (digest, lines) in finished(open_, seen):
                digests[place] = digest
                told(lines)
        seen.finish()
        return [digests[place] for place in range(len(tasks))]


def _write(shared: ShardTask, shard: Shard, progress_file: Path) -> tuple[str, list[str]]:
    """Writes one file; its hash, and what is to be said of it."""
    said: list[str] = []
    with FileLock(f"{progress_file}.lock"), hearing(said.append), threads(1):
        return replace(shared, shard=shard, progress_file=progress_file).execute(lambda _: None), said


class _Seen:
    """How much has been written, by the sizes of the files: all machines write into a folder that is seen here."""

    def __init__(self, tasks: Sequence[ShardTask], advance: Callable[[int], None]) -> None:
        self._sizes = {task.folder / task.shard.name: task.shard.size for task in tasks}
        self._advance, self._told = advance, 0

    def __call__(self) -> None:
        self._tell(sum(min(size, _size(path)) for path, size in self._sizes.items()))

    def finish(self) -> None:
        """Everything is there."""
        self._tell(sum(self._sizes.values()))

    def _tell(self, there: int) -> None:
        if there > self._told:
            self._advance(there - self._told)
            self._told = there


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
