"""Small tools of the tests of methods."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from polysafe.checkpoint.opened import Sources
from polysafe.edits.edit import Decision, Edit
from polysafe.edits.reader import EditedReader
from polysafe.methods.base import Support
from polysafe.methods.validation import Validator, Weighted

State = dict[str, torch.Tensor]


def result(edit: Edit, sources: Sources) -> State:
    """All tensors of the model that an edit makes."""
    reader = EditedReader(edit, {name: source.reader for name, source in sources.items()})
    return {name: reader.whole(name).clone() for name in reader.names()}


def judged_by(validator: Validator) -> Support:
    """Candidates are compared by a validator, as where a recipe has `validation`."""
    return Support(validate=lambda: Weighted(validator))


def state(sources: Sources, name: str) -> State:
    """All tensors of a source."""
    reader = sources[name].reader
    return {tensor: reader.whole(tensor).clone() for tensor in reader.names()}


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equality that tells −0 from 0 and lets NaN equal itself."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, other = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (first, second))
    return torch.equal(one, other)


def differing(first: State, second: State) -> list[str]:
    """Names of the tensors that are not the same bits in both."""
    names = first.keys() | second.keys()
    return sorted(n for n in names if not (n in first and n in second and same_bits(first[n], second[n])))


def pattern(decisions: Iterable[Decision]) -> str:
    """The scored decisions as one letter each: l, s or b."""
    return "".join(decision.choice[0] for decision in decisions if decision.score is not None)
