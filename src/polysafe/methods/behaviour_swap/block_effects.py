"""What a model's behaviour owes to some of its tensors, beside those of a donor: exactly, and to first order.

Let θ be the weights of a model and Δ the donor's minus the model's. For a block b of tensors and a number s of one
question,

    exact         s(θ + Δ_b) − s(θ)                             the block is set to the donor's (activation patching's
                                                                counterpart in weights)
    first order   Σ ∂s/∂θ_b (θ) · Δ_b                           one backward pass serves all blocks
    path          1/m Σ_j Σ ∂s/∂θ_b (θ + t_j Δ) · Δ_b           t_j = (j − ½) / m on the blend path of all blocks

The path's sum over all blocks is s(θ + Δ) − s(θ), up to the error of the midpoint rule: integrated gradients
(Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017, equation 1 and proposition 1), taken
over weights. It shares out what all blocks do together; the exact effect is that of one block alone.

Memory of a backward pass: the model, Δ in the type of the model, what one prompt's answers hang on, and the gradient of
one tensor at a time, which is multiplied with its Δ and dropped as soon as it is complete; on a path the original
weights besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch

from polysafe.checkpoint.opened import Source
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import Copy
from polysafe.probe.behaviour import Behaviours, Values, changes
from polysafe.probe.model import LoadedModel, edited, parameter_of

Blocks = Mapping[str, Sequence[str]]
"""Name of a block -> its tensors, as the files call them."""


@contextmanager
def swapped(model: LoadedModel, donor: Source, tensors: Sequence[str]) -> Iterator[LoadedModel]:
    """The model with some tensors of a donor, for as long as the context lasts; put back bit for bit.

    Raises:
        ArchitectureError: transformers keeps a tensor in another form.
    """
    source = model.source
    edit = Edit(
        start=source.name,
        steps={name: (Copy(source=donor.name),) for name in tensors},
        sources={each.name: SourceRecord(origin=each.checkpoint.origin) for each in (source, donor)},
    )
    with edited(model, edit, {source.name: source.reader, donor.name: donor.reader}) as found:
        yield found


def exact_effect(
    model: LoadedModel, donor: Source, tensors: Sequence[str], asked: Behaviours, before: Values
) -> Values:
    """What the donor's tensors change, question by question.

    Args:
        model: The model.
        donor: A source of the same shapes, of another name.
        tensors: The block.
        asked: What is asked.
        before: What the model answers as it is.

    Raises:
        ArchitectureError: transformers keeps a tensor in another form.
    """
    with swapped(model, donor, tensors):
        return changes(before, asked.read())


def first_order_effects(
    model: LoadedModel, donor: Source, blocks: Blocks, asked: Behaviours, points: int = 0
) -> dict[str, Values]:
    """What every block would change if all were linear, question by question.

    Args:
        model: The model; put back bit for bit.
        donor: A source of the same shapes.
        blocks: Blocks that have no tensor in common.
        asked: What is asked.
        points: Points of the blend path at which gradients are taken; 0 for those of the model as it is.

    Raises:
        ArchitectureError: transformers keeps a tensor in another form, or no gradient can be taken.
    """
    moves = _Moves(model, donor, blocks)
    found: dict[str, Values] = {block: {} for block in blocks}
    shares = [(step + 0.5) / points for step in range(points)] or [0.0]
    with moves.gradients(), ExitStack() as stack:
        if points:
            stack.enter_context(moves.kept())
        for share in shares:
            if points:
                moves.set(share)
            for question, number in asked.each():
                for block, effect in moves.along(number).items():
                    cell = found[block].setdefault((question.language, question.about), {})
                    cell[question.prompt] = cell.get(question.prompt, 0.0) + effect / len(shares)
    return found


class _Moves:
    """The parameters of blocks, and how far the donor's are from them."""

    def __init__(self, model: LoadedModel, donor: Source, blocks: Blocks) -> None:
        self._model, self._blocks = model, tuple(blocks)
        self._found: dict[str, float] = {}
        self._parts = [
            (block, parameter, donor.reader.whole(name).to(parameter) - parameter.detach())
            for block, names in blocks.items()
            for name in names
            for parameter in [parameter_of(model, name, donor.reader.spec(name).shape)]
        ]
        self._originals: list[torch.Tensor] = []

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """Only the blocks' parameters have gradients, and each is used up as soon as it is there."""
        asked = [(parameter, parameter.requires_grad) for parameter in self._model.model.parameters()]
        with ExitStack() as stack:
            for parameter, _ in asked:
                parameter.requires_grad_(False)
            for block, parameter, move in self._parts:
                parameter.requires_grad_(True)
                handle = parameter.register_post_accumulate_grad_hook(self._hook(block, move))
                stack.callback(handle.remove)
            try:
                yield
            finally:
                for parameter, before in asked:
                    parameter.requires_grad_(before)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Puts the parameters back, bit for bit."""
        self._originals = [parameter.detach().clone() for _, parameter, _ in self._parts]
        try:
            yield
        finally:
            self._put(self._originals)

    def set(self, share: float) -> None:
        """Goes so far towards the donor."""
        self._put(old + share * move for old, (_, _, move) in zip(self._originals, self._parts, strict=True))

    def along(self, number: torch.Tensor) -> dict[str, float]:
        """The derivative of a number along every block's move."""
        self._found = dict.fromkeys(self._blocks, 0.0)
        number.backward()
        return self._found

    def _hook(self, block: str, move: torch.Tensor) -> Callable[[torch.Tensor], None]:
        def use_up(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                self._found[block] += float((parameter.grad * move).sum(dtype=torch.float64))
                parameter.grad = None

        return use_up

    def _put(self, values: Iterable[torch.Tensor]) -> None:
        with torch.no_grad():
            for (_, parameter, _), value in zip(self._parts, values, strict=True):
                parameter.copy_(value)
