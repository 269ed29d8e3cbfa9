"""Processes of a cluster that hold a model, and are given pieces of work as they are free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from polysafe.cluster.pool import RETRIES, TICK, Cluster, result
from polysafe.errors import ResourceError
from polysafe.progress import tell

_PIECES_EACH = 4
"""Pieces that every process gets of little work, so that they end at about the same time."""


class Pool:
    """The processes. One that goes away is replaced, and what it was doing is done by another.

    Args:
        cluster: Where they are.
        holder: What each is: a class with `open`, which loads the model, and `read`.
        given: What it is made with.
    """

    def __init__(self, cluster: Cluster, holder: type[Any], given: tuple[Any, ...]) -> None:
        self._cluster, self._holder, self._given, self._left = cluster, holder, given, 0
        self._free: deque[Any] = deque()
        self._opening: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[int, Any]] = {}
        self.size = 0

    def begin(self) -> Any:
        """Starts them; what the first gives that has opened the model."""
        self.size = self._cluster.processes()
        tell("loading on the cluster", 0, self.size)
        self._left = RETRIES * self.size
        for _ in range(self.size):
            self._start()
        while True:
            for _, about in self._ended():
                tell("loading on the cluster", self.size, self.size)
                return about

    def share(
        self, what: Any, how: Any, order: Sequence[int], asked: Callable[[int], Any], most: int
    ) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """(some places of what is asked, what `read` of a process gives for them) as soon as it is there.

        Args:
            what: As for `read`, like `how`.
            how: The same.
            order: Places in the order in which they are handed out.
            asked: What is asked at a place.
            most: Most of it that a process is given at once.
        """
        size = max(1, min(most, -(-len(order) // (_PIECES_EACH * self.size))))
        places = [order[start : start + size] for start in range(0, len(order), size)]
        for number, found in self.read(what, how, [[asked(place) for place in chosen] for chosen in places]):
            yield places[number], found

    def read(self, what: Any, how: Any, pieces: Sequence[Sequence[Any]]) -> Iterator[tuple[int, list[Any]]]:
        """(number of a piece, what `read` of a process gives for it) as soon as it is there."""
        waiting = deque(range(len(pieces)))
        try:
            while waiting or self._busy:
                while waiting and self._free:
                    number, holder = waiting.popleft(), self._free.popleft()
                    self._busy[holder.read.remote(what, how, list(pieces[number]))] = number, holder
                for number, found in self._ended():
                    if found is None:
                        waiting.appendleft(number)
                    elif number >= 0:
                        yield number, found
        finally:
            self._give_up()

    def probe(self) -> None:
        """Has one of them tried out."""
        result(self._free[0].probe.remote())

    def end(self) -> None:
        """Ends them all."""
        import ray

        for holder in (*self._free, *self._opening.values(), *(holder for _, holder in self._busy.values())):
            ray.kill(holder)

    def _start(self) -> None:
        import ray

        made: Any = ray.remote(**self._cluster.placed)(self._holder)
        holder = made.remote(*self._given)
        self._opening[holder.open.remote()] = holder

    def _ended(self) -> Iterator[tuple[int, Any]]:
        """(number of its piece, result) of what has ended; -1 for loading, None for what was lost with its process."""
        import ray

        ready, _ = ray.wait([*self._busy, *self._opening], num_returns=1, timeout=TICK)
        for task in ready:
            number, holder = self._busy.pop(task) if task in self._busy else (-1, self._opening.pop(task))
            found = self._kept(task)
            if found is not None:
                self._free.append(holder)
            if found is not None or number >= 0:
                yield number, found

    def _kept(self, task: Any) -> Any:
        """The result of a task; None where its process went away: another one is started."""
        from ray.exceptions import RayActorError

        try:
            return result(task)
        except ResourceError as error:
            self._left -= 1
            if not isinstance(error.__cause__, RayActorError) or self._left < 0:
                raise
        self._start()
        return None

    def _give_up(self) -> None:
        """What was begun is of no use any more; its processes are free when they end it."""
        import ray

        for task, (_, holder) in self._busy.items():
            ray.cancel(task)
            self._free.append(holder)
        self._busy.clear()
