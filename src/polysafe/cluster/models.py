"""A model that many processes of a cluster hold: prompts are shared among them, answers come back as they are there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from polysafe.cluster.pool import RETRIES, TICK, Cluster, result
from polysafe.errors import ResourceError
from polysafe.evaluate.opening import OpenedModel, open_model
from polysafe.generate.completion import Ask, Completion, Sampling
from polysafe.judge.probe import probe
from polysafe.judge.spec import served_at
from polysafe.probe.refusal import RefusalSignal
from polysafe.progress import tell
from polysafe.threads import threads

if TYPE_CHECKING:
    from polysafe.probe.continuations import Ask as Choices
    from polysafe.probe.continuations import Continuation
    from polysafe.probe.likelihood import Likelihood

PIECE = 64
"""Most prompts that a process is given at once: what is lost with it, and what the others may wait for at the end."""
_PIECES_EACH = 4
"""Pieces that every process gets of little work, so that they end at about the same time."""
Part = Literal["generator", "scorer", "continuations"]
_PARTS: tuple[Part, ...] = ("generator", "scorer", "continuations")


@contextmanager
def open_on(
    cluster: Cluster, spec: Path | str, sampling: Sampling, *, device: str | None = None, **settings: Any
) -> Iterator[OpenedModel]:
    """A model to be asked, as `open_model` opens it, in processes of a cluster.

    The processes see the same folder. What they say does not depend on how prompts are shared among them, up to the
    rounding of the forward pass, as with any other batches.

    Args:
        cluster: Where they are.
        spec: A folder. What a server runs is asked by this process: the server shares the work itself.
        sampling: How answers are drawn.
        device: As for `open_model`; `cuda` by default where processes take accelerators.
        settings: As for `open_model`.

    Raises:
        ResourceError: There is no cluster or no room, or processes went away more often than they are begun again.
        PolysafeError: As for `open_model`.
    """
    if served_at(str(spec)) is not None:
        with open_model(spec, sampling, device=device, **settings) as served:
            yield served
        return
    device = device or ("cuda" if cluster.gpus else None)
    with cluster.connected():
        pool = _Pool(cluster, (Path(spec).absolute(), sampling, {**settings, "device": device}, cluster.cpus))
        try:
            about, identities = pool.begin()
            remote = {part: _Remote(pool, part, identities[part]) for part in _PARTS}
            continuations = _Continuations(remote["continuations"])
            yield replace(
                about,
                generator=_Generator(remote["generator"]),
                scorer=_Scorer(remote["scorer"]),
                continuations=continuations,
                signal=RefusalSignal(continuations),
            )
        finally:
            pool.end()


class _Holder:
    """A process that holds the model. It is opened by a call, so that what is wrong comes back as an error."""

    def __init__(self, spec: Path, sampling: Sampling, settings: Mapping[str, Any], cpus: int) -> None:
        self._open = partial(open_model, spec, sampling, **settings)
        self._stack = ExitStack()
        self._stack.enter_context(threads(cpus))

    def open(self) -> tuple[OpenedModel, dict[Part, dict[str, Any]]]:
        """Loads the model; what is known of it, without its weights."""
        self._model = model = self._stack.enter_context(self._open())
        bare = replace(model, generator=None, scorer=None, continuations=None, signal=None)  # type: ignore[arg-type]
        return bare, {part: dict(getattr(model, part).identity) for part in _PARTS}

    def read(self, part: Part, verb: str, asked: Sequence[Any]) -> list[Any]:
        """What a part of the model gives for some of what is asked."""
        return list(getattr(getattr(self._model, part), verb)(asked))

    def probe(self) -> None:
        """Tries it out."""
        probe(self._model.generator)


class _Pool:
    """The processes. One that goes away is replaced, and what it was doing is done by another."""

    def __init__(self, cluster: Cluster, given: tuple[Any, ...]) -> None:
        self._cluster, self._given, self._left = cluster, given, 0
        self._free: deque[Any] = deque()
        self._opening: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[int, Any]] = {}
        self.size = 0

    def begin(self) -> tuple[OpenedModel, dict[Part, dict[str, Any]]]:
        """Starts them; returns as soon as one of them holds the model."""
        self.size = self._cluster.processes()
        tell("loading on the cluster", 0, self.size)
        self._left = RETRIES * self.size
        for _ in range(self.size):
            self._start()
        while True:
            for _, about in self._ended():
                found: tuple[OpenedModel, dict[Part, dict[str, Any]]] = about
                tell("loading on the cluster", self.size, self.size)
                return found

    def read(self, part: Part, verb: str, pieces: Sequence[Sequence[Any]]) -> Iterator[tuple[int, list[Any]]]:
        """(number of a piece, what a part gives for it) as soon as it is there."""
        waiting = deque(range(len(pieces)))
        try:
            while waiting or self._busy:
                while waiting and self._free:
                    number, holder = waiting.popleft(), self._free.popleft()
                    self._busy[holder.read.remote(part, verb, list(pieces[number]))] = number, holder
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

        made: Any = ray.remote(**self._cluster.placed)(_Holder)
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


class _Remote:
    """A part of the model, as the processes hold it."""

    def __init__(self, pool: _Pool, part: Part, identity: Mapping[str, Any]) -> None:
        self._pool, self._part, self.identity = pool, part, identity

    def probe(self) -> None:
        self._pool.probe()

    def read(self, verb: str, asked: Sequence[Any], length: Callable[[Any], int]) -> Iterator[tuple[list[int], Any]]:
        """(places of what was asked, what is given for them), the longest first: what does not fit fails at once."""
        order = sorted(range(len(asked)), key=lambda place: -length(asked[place]))
        size = max(1, min(PIECE, -(-len(asked) // (_PIECES_EACH * self._pool.size))))
        places = [order[start : start + size] for start in range(0, len(order), size)]
        pieces = [[asked[place] for place in chosen] for chosen in places]
        for number, found in self._pool.read(self._part, verb, pieces):
            yield places[number], found


class _Generator:
    """Writes answers."""

    def __init__(self, remote: _Remote) -> None:
        self._remote, self.identity, self.probe = remote, remote.identity, remote.probe

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        for _, found in self._remote.read("generate", asks, lambda ask: len(ask.text)):
            yield from found


class _Scores:
    """Says how probable answers are."""

    def __init__(self, remote: _Remote) -> None:
        self._remote, self.identity = remote, remote.identity

    def _score(self, asked: Sequence[Any], length: Callable[[Any], int]) -> Iterator[tuple[int, Any]]:
        for places, found in self._remote.read("score", asked, length):
            yield from ((places[place], value) for place, value in found)


class _Scorer(_Scores):
    def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
        return self._score(requests, lambda request: len(request[0]) + len(request[1]))


class _Continuations(_Scores):
    def score(self, asks: Sequence[Choices]) -> Iterator[tuple[int, tuple[Continuation, ...]]]:
        return self._score(asks, lambda ask: len(ask[0]))
