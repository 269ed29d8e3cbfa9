"""Effects of attention heads, measured by processes of a cluster that hold the model: prompts are shared among them.

The effect of a head on a prompt hangs on the model, the mean outputs and that prompt alone, so that how prompts are
shared changes nothing: results are those of this process to the bit where it computes with as many threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from polysafe.checkpoint.lora import open_reader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint
from polysafe.cluster.holders import Pool
from polysafe.cluster.pool import Cluster
from polysafe.errors import ResourceError
from polysafe.probe.hands import Here
from polysafe.probe.model import load_model
from polysafe.threads import threads

if TYPE_CHECKING:
    import torch

    from polysafe.probe.answers import Score, ScoredPrompt
    from polysafe.probe.model import LoadedModel

PIECE = 16
"""Most prompts that a process is given at once."""
_PIECES_EACH = 4


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

    def read(self, means: torch.Tensor, how: dict[str, Any], prompts: Sequence[ScoredPrompt]) -> list[torch.Tensor]:
        """The scores of some prompts, in order."""
        import torch

        try:
            return [scores for _, scores in Here().scores(self._model, means, prompts, **how)]
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
        self,
        model: LoadedModel,
        means: torch.Tensor,
        prompts: Sequence[ScoredPrompt],
        score: Score,
        *,
        by_rows: bool,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """As for `Hands`.

        Raises:
            ResourceError: There is no cluster, no room, or processes went away more often than they are begun again.
            PolysafeError: What a process could not measure.
        """
        pool = self._holding(model)
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place].prompt))
        size = max(1, min(PIECE, -(-len(order) // (_PIECES_EACH * pool.size))))
        places = [order[start : start + size] for start in range(0, len(order), size)]
        pieces = [[prompts[place] for place in chosen] for chosen in places]
        for number, found in pool.read(means.cpu(), {"score": score, "by_rows": by_rows}, pieces):
            yield from zip(places[number], found, strict=True)

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
