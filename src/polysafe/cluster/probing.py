"""Activations and effects of attention heads, measured by processes of a cluster that hold the model.

The effect of a head on a prompt hangs on the model, the mean outputs and that prompt alone, and what is recorded of a
batch on the model and that batch. So how they are shared among processes changes nothing: results are those of this
process to the bit where it computes with as many threads. Pooled rows come back, and sums of them are taken here in
their order: they are smaller than moments for fewer prompts than a layer has inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, Self

from polysafe.checkpoint.lora import open_reader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint
from polysafe.cluster.holders import Pool
from polysafe.cluster.pool import Cluster
from polysafe.errors import ResourceError
from polysafe.probe.hands import Here, Pooled, Together
from polysafe.probe.model import load_model
from polysafe.threads import threads

if TYPE_CHECKING:
    import torch

    from polysafe.probe.answers import Score, ScoredPrompt
    from polysafe.probe.forward import Pooling
    from polysafe.probe.model import LoadedModel
    from polysafe.probe.render import Side
    from polysafe.probe.residual import Residuals

PIECE = 16
"""Most prompts, or batches of them, that a process is given at once."""


class _Measurer:
    """A process that holds the model and measures prompts."""

    def __init__(self, name: str, checkpoint: Checkpoint, device: str, dtype: str, cpus: int) -> None:
        self._given, self._stack = (name, checkpoint, device, dtype), ExitStack()
        self._stack.enter_context(threads(cpus))

    def open(self) -> bool:
        """Loads the model."""
        import torch

        name, checkpoint, device, dtype = self._given
        checkpoint.check_unchanged()
        reader = self._stack.enter_context(open_reader(checkpoint))
        source = Source(name, checkpoint, classify(checkpoint), reader)
        self._model = load_model(source, device, dtype=getattr(torch, dtype))
        return True

    def read(self, verb: Literal["scores", "rows"], how: dict[str, Any], asked: Sequence[Any]) -> list[Any]:
        """What is measured of some prompts or batches, in order."""
        import torch

        try:
            return [found for _, found in getattr(Here(), verb)(self._model, asked, **how)]
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"a prompt does not fit the device: {error}") from None


class RayHands:
    """Measures on a cluster; processes load a model when it is measured first, and keep it until another is.

    Args:
        cluster: Where.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._stack = cluster, ExitStack()
        self._pool: Pool | None = None
        self._holds: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scores(
        self, model: LoadedModel, prompts: Sequence[ScoredPrompt], *, means: torch.Tensor, score: Score, by_rows: bool
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """As for `Hands`.

        Raises:
            ResourceError: There is no cluster, no room, or processes went away more often than they are begun again.
            PolysafeError: What a process could not measure.
        """
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place].prompt))
        how = {"means": means.cpu(), "score": score, "by_rows": by_rows}
        for places, found in self._shared(model, "scores", how, order, prompts.__getitem__):
            yield from zip(places, found, strict=True)

    def rows(
        self,
        model: LoadedModel,
        batches: Sequence[Together],
        *,
        places: Mapping[int, str],
        pooling: Pooling,
        side: Side,
        **_states: Residuals | None,
    ) -> Generator[tuple[int, Pooled]]:
        """As for `Hands`; processes begin every pass at the bottom, and keep no states.

        Raises:
            ResourceError: As for `scores`.
            PolysafeError: What a process could not measure.
        """

        def alone(place: int) -> Together:
            return [(prompts.select(indices), range(len(indices))) for prompts, indices in batches[place]]

        how = {"places": places, "pooling": pooling, "side": side}
        early: dict[int, Pooled] = {}
        turn = 0
        for chosen, found in self._shared(model, "rows", how, range(len(batches)), alone):
            early.update(zip(chosen, found, strict=True))
            while turn in early:
                yield turn, early.pop(turn)
                turn += 1

    def _shared(
        self, model: LoadedModel, verb: str, how: Mapping[str, Any], order: Sequence[int], asked: Callable[[int], Any]
    ) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """(places, what was measured there) of pieces, as soon as they are there."""
        if not order:
            return
        yield from self._holding(model).share(verb, dict(how), order, asked, PIECE)

    def _holding(self, model: LoadedModel) -> Pool:
        device = "cuda" if self._cluster.gpus else "cpu"
        given = (model.source.name, model.source.checkpoint, device, model.dtype, self._cluster.cpus)
        if self._pool is None or self._holds != model.sha256:
            self._stack.close()
            self._stack.enter_context(self._cluster.connected())
            self._pool = Pool(self._cluster, _Measurer, given)
            self._stack.callback(self._pool.end)
            self._pool.begin()
            self._holds = model.sha256
        return self._pool
