"""A model that many processes of a cluster hold: prompts are shared among them, answers come back as they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from polysafe.cluster.holders import Pool
from polysafe.cluster.pool import Cluster
from polysafe.evaluate.opening import OpenedModel, open_model
from polysafe.generate.completion import Ask, Completion, Sampling
from polysafe.judge.probe import probe
from polysafe.judge.spec import served_at
from polysafe.probe.refusal import RefusalSignal
from polysafe.threads import threads

if TYPE_CHECKING:
    from polysafe.probe.continuations import Ask as Choices
    from polysafe.probe.continuations import Continuation
    from polysafe.probe.likelihood import Likelihood

PIECE = 64
"""Most prompts that a process is given at once: what is lost with it, and what the others may wait for at the end."""
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
        pool = Pool(cluster, _Holder, (Path(spec).absolute(), sampling, {**settings, "device": device}, cluster.cpus))
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


class _Remote:
    """A part of the model, as the processes hold it."""

    def __init__(self, pool: Pool, part: Part, identity: Mapping[str, Any]) -> None:
        self._pool, self._part, self.identity = pool, part, identity

    def probe(self) -> None:
        self._pool.probe()

    def read(
        self, verb: str, asked: Sequence[Any], length: Callable[[Any], int]
    ) -> Iterator[tuple[Sequence[int], Any]]:
        """(places of what was asked, what is given for them), the longest first: what does not fit fails at once."""
        order = sorted(range(len(asked)), key=lambda place: -length(asked[place]))
        return self._pool.share(self._part, verb, order, asked.__getitem__, PIECE)


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
