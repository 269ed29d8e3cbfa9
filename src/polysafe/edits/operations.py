"""The four operations that every method's result is made of.

An operation says how one tensor of the result comes about. It is a value: it refers to models by the names that the
edit gives them and holds no tensors but its own factors. How operations are evaluated is in `reader.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from polysafe.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor
else:

    def _a_tensor(value: object) -> object:
        import torch

        if not isinstance(value, torch.Tensor):
            raise ValueError("must be a tensor")  # noqa: TRY004 — pydantic tells of this one
        return value

    Tensor = Annotated[Any, PlainValidator(_a_tensor)]  # torch is imported where there are factors, and not before

Arithmetic = Literal["float32", "authors"]
Probability = Annotated[float, Field(ge=0, lt=1)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Copy(_Value):
    """The tensor is byte for byte the one of `source`."""

    op: Literal["copy"] = "copy"
    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The models it reads."""
        return (self.source,)


class Ties(_Value):
    """TIES' elementwise rule (Yadav et al., NeurIPS 2023): trim, elect a sign, average what agrees.

    For task vectors τ_E = W_E − W_base the entries with |τ_E| below `thresholds[E]` count as zero; the elected sign of
    an element is that of Σ_E τ_E; the mean runs over the non-zero entries of that sign.

    Attributes:
        base: The model that the task vectors start from.
        thresholds: Smallest magnitude that is kept, per expert.
        shares: What an agreeing expert counts in the mean, where not all count alike; empty for a sum, which is not
            divided. With it, as in mergekit, a sum of zero elects plus; as published, it elects nothing.
    """

    rule: Literal["ties"] = "ties"
    base: str
    thresholds: dict[str, float]
    shares: dict[str, float] | None = None


class Dare(_Value):
    """DARE's elementwise rule (Yu et al., ICML 2024): drop entries of task vectors at random, rescale the others.

    Entry i of expert E is dropped where a counter-based generator keyed by (`seed`, E, tensor name) draws below
    `drop` at counter i, so the mask depends neither on blocks nor on the order of tensors.

    Attributes:
        base: The model that the task vectors start from.
        drop: Probability p of dropping, of all experts or of each; survivors are divided by 1 − p.
        seed: Seed of the mask.
        then: How the thinned task vectors are merged: summed (None) or by TIES.
    """

    rule: Literal["dare"] = "dare"
    base: str
    drop: Probability | dict[str, Probability]
    seed: int = Field(ge=0, lt=2**63)
    then: Ties | None = None

    def drop_of(self, expert: str) -> float:
        """The probability of dropping an entry of this expert."""
        return self.drop[expert] if isinstance(self.drop, dict) else self.drop


class Blend(_Value):
    """A weighted sum of the same tensor in several models, rounded once.

    With a `rule` the sum runs over the ruled task vectors instead: W_base + Σ_E weights[E]·τ̃_E.

    Attributes:
        weights: Weight of each model.
        rule: Elementwise rule on task vectors.
        arithmetic: `float32` computes wide and rounds once; `authors` computes in bfloat16 as the published program.
    """

    op: Literal["blend"] = "blend"
    weights: dict[str, float] = Field(min_length=1)
    rule: Annotated[Ties | Dare, Field(discriminator="rule")] | None = None
    arithmetic: Arithmetic = "float32"

    @property
    def sources(self) -> tuple[str, ...]:
        """The models it reads."""
        base = () if self.rule is None else (self.rule.base,)
        return tuple(dict.fromkeys((*base, *self.weights)))

    @model_validator(mode="after")
    def _rule_fits(self) -> Blend:
        if self.rule is not None and self.arithmetic == "authors":
            raise ValueError("a rule has no published bfloat16 form")
        if self.rule is not None and self.rule.base in self.weights:
            raise ValueError("the base of a rule has no task vector that could be weighted")
        ties = self.rule.then if isinstance(self.rule, Dare) else self.rule
        if ties is not None and set(ties.thresholds) != set(self.weights):
            raise ValueError("thresholds and weights must be of the same models")
        if ties is not None and ties.shares and set(ties.shares) != set(self.weights):
            raise ValueError("shares and weights must be of the same models")
        drop = self.rule.drop if isinstance(self.rule, Dare) else None
        if isinstance(drop, dict) and set(drop) != set(self.weights):
            raise ValueError("what is dropped and weights must be of the same models")
        return self


class AddDelta(_Value):
    """Adds scale·(W_of − W_minus) to the current value, on some columns or rows or on all of them.

    Inputs of a projection are the columns of its matrix, or the rows where it is stored input × output (GPT-2).

    Attributes:
        of: The model that the difference leads to.
        minus: The model that it starts from.
        scale: Factor.
        columns: Half-open column ranges of the two-dimensional view, ascending and disjoint; None means all.
        rows: Half-open row ranges of the two-dimensional view, likewise.
    """

    op: Literal["add_delta"] = "add_delta"
    of: str
    minus: str
    scale: float
    columns: tuple[tuple[int, int], ...] | None = None
    rows: tuple[tuple[int, int], ...] | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The models it reads beside the current value."""
        return (self.of, self.minus)

    @model_validator(mode="after")
    def _ascending(self) -> AddDelta:
        for name, ranges in (("columns", self.columns or ()), ("rows", self.rows or ())):
            flat = [edge for pair in ranges for edge in pair]
            if any(a < 0 or a >= b for a, b in ranges) or flat != sorted(flat):
                raise ValueError(f"{name} must be ascending, disjoint, non-empty ranges")
        return self


class AddLowRank(_Value):
    """Adds A·Bᵀ to some rows of the current value.

    Attributes:
        rows: Output rows of the two-dimensional view that change, shape [m], int64, ascending.
        a: Factor of shape [m, r].
        b: Factor of shape [columns, r].
    """

    op: Literal["add_low_rank"] = "add_low_rank"
    rows: Tensor
    a: Tensor
    b: Tensor

    @property
    def sources(self) -> tuple[str, ...]:
        """The models it reads beside the current value: none."""
        return ()

    @model_validator(mode="after")
    def _fits(self) -> AddLowRank:
        import torch

        rows, a, b = self.rows, self.a, self.b
        if rows.dtype != torch.int64 or rows.ndim != 1 or a.ndim != 2 or b.ndim != 2:
            raise ValueError("rows must be int64 [m], a and b matrices")
        if a.shape[0] != rows.shape[0] or a.shape[1] != b.shape[1]:
            raise ValueError(f"rows {list(rows.shape)}, a {list(a.shape)} and b {list(b.shape)} do not fit together")
        if rows.numel() and (int(rows[0]) < 0 or bool((rows.diff() <= 0).any())):
            raise ValueError("rows must be ascending and distinct")
        if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
            raise ValueError("factors must be finite")
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AddLowRank):
            return NotImplemented
        import torch

        mine, theirs = (self.rows, self.a, self.b), (other.rows, other.a, other.b)
        return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]


Operation = Annotated[Copy | Blend | AddLowRank | AddDelta, Field(discriminator="op")]


def blend(weights: Mapping[str, float]) -> Copy | Blend:
    """The plainest operation for a weighted sum: weight 0 is no source at all, one source of weight 1 is a copy.

    This is what makes the identities exact: 0·x + 1·y is never computed where a copy is meant.

    Raises:
        EditError: All weights are zero.
    """
    kept = {source: float(weight) for source, weight in weights.items() if weight != 0}
    if not kept:
        raise EditError("a blend needs at least one weight that is not zero")
    if len(kept) == 1 and next(iter(kept.values())) == 1.0:
        return Copy(source=next(iter(kept)))
    return Blend(weights=kept)
