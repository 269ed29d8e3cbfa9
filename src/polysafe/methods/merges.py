"""Merges that know nothing of safety or languages: the baselines that a swap has to beat.

All of them act on every floating-point tensor unless `restrict_to` says otherwise. With task vectors
τ_E = θ_E - θ_base:

    soup               Σ w_E · θ_E                       Wortsman et al., ICML 2022
    task_arithmetic    θ_base + Σ λ_E · τ_E              Ilharco et al., ICLR 2023
    ties               θ_base + λ · elected mean of τ    Yadav et al., NeurIPS 2023
    dare               the latter two on thinned τ       Yu et al., ICML 2024
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from polysafe.checkpoint.dtypes import EDITABLE
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.opened import Sources
from polysafe.checkpoint.roles import Kind
from polysafe.edits.edit import Edit
from polysafe.edits.operations import Blend, Copy, Dare, Operation, Probability, Ties, blend
from polysafe.errors import MismatchError
from polysafe.methods.agreement import (
    architecture_notes,
    require_agreement,
    require_layers,
    same_vocabulary_shape,
    storage_notes,
    vocabulary_conflict,
)
from polysafe.methods.base import LayerCount, Method, SourceName, distinct
from polysafe.methods.materials import BASE, MODEL, SAFETY, Materials
from polysafe.methods.registry import register

Scale = Annotated[float, Field(ge=0)]
Density = Annotated[float, Field(gt=0, le=1)]


class Merge(Method):
    """What the baselines share: which tensors they act on, and where the result starts from."""

    start_from: SourceName | None = None
    """Source that gives all other tensors and the tokenizer, and that the result is compared with.

    Default: the last expert.
    """
    restrict_to: Literal["all", "layers", "projections"] = "all"
    """Merge every floating-point tensor, those inside the layers, or the projections inside the layers."""
    layers: LayerCount = None
    """Number of layers that the models must have; any by default."""

    @property
    @abstractmethod
    def merged(self) -> tuple[str, ...]:
        """Names of the experts."""

    @property
    def start(self) -> str:
        """`start_from`, or the last expert."""
        return self.start_from or self.merged[-1]

    @property
    def uses(self) -> tuple[str, ...]:
        """The experts, and where the result starts from."""
        return distinct((*self.merged, self.start_from))

    @abstractmethod
    def operations(self, sources: Sources) -> dict[str, Operation]:
        """The operation of every merged tensor."""

    def fit(self, sources: Sources) -> Edit:
        """Merges.

        Raises:
            MismatchError: The sources do not fit together.
            RecipeError: They have another number of layers than `layers`.
        """
        merged = [sources[name] for name in self.uses]
        require_agreement(merged)
        require_layers(merged[0], self.layers)
        conflict = vocabulary_conflict(merged) if self.restrict_to == "all" else None
        if conflict and not same_vocabulary_shape(merged):
            raise MismatchError(
                f"embeddings cannot be merged: {conflict}", remedy="use `restrict_to: layers` to leave them alone"
            )
        operations = self.operations(sources)
        return self.make_edit(
            sources,
            {name: operation for name, operation in operations.items() if operation != Copy(source=self.start)},
            notes=[*architecture_notes(merged), *storage_notes(merged)],
            warnings=[f"vocabularies are mixed although they differ: {conflict}"] if conflict else [],
        )

    def merged_tensors(self, sources: Sources) -> tuple[str, ...]:
        """Names of the tensors that are merged."""
        start = sources[self.start]
        return tuple(
            name
            for name, role in start.architecture.roles.items()
            if role.kind is not Kind.BUFFER and start.reader.spec(name).dtype in EDITABLE
            if self.restrict_to == "all" or role.layer is not None
            if self.restrict_to != "projections" or role.kind is Kind.PROJECTION
        )

    def _everywhere(self, sources: Sources, operation: Operation) -> dict[str, Operation]:
        return dict.fromkeys(self.merged_tensors(sources), operation)


class TaskVectorMerge(Merge):
    """A merge of the task vectors of several experts of one base."""

    base: SourceName
    """Source that the experts were fine-tuned from."""
    experts: Annotated[tuple[SourceName, ...], Field(min_length=1)]
    """Sources whose task vectors are merged."""

    @model_validator(mode="after")
    def _distinct_sources(self) -> TaskVectorMerge:
        if len(set(self.experts)) < len(self.experts) or self.base in self.experts:
            raise ValueError("base and experts must be different sources")
        return self

    @property
    def merged(self) -> tuple[str, ...]:
        """Names of base and experts."""
        return self.base, *self.experts

    def of_each(self, option: float | Mapping[str, float]) -> dict[str, float]:
        """An option that is one number for all experts, or one for each."""
        return dict(option) if isinstance(option, Mapping) else dict.fromkeys(self.experts, option)


class ElectedMerge(TaskVectorMerge):
    """What TIES, and DARE before it, share: how much each expert counts, and what the elected entries become."""

    scale: float = 1.0
    """λ of the merged task vector."""
    weights: dict[SourceName, float] | None = None
    """Weight of each expert's task vector in election and mean; 1 each by default."""
    average: Literal["count", "weight", "sum"] = "count"
    """Mean of the elected entries over their number as published, over the sum of their weights, or their sum.

    The latter two also round the number of kept entries down, and a sum of zero elects plus, as mergekit does.
    """

    @model_validator(mode="after")
    def _each_expert(self) -> ElectedMerge:
        for option in ("weights", "density", "drop"):
            stated = getattr(self, option, None)
            if isinstance(stated, dict) and set(stated) != set(self.experts):
                raise ValueError(f"{option} of each expert name exactly the experts")
        return self

    @property
    def weight_of_each(self) -> dict[str, float]:
        """What each expert's task vector counts."""
        return self.of_each(1.0 if self.weights is None else self.weights)

    @property
    def _scaled(self) -> dict[str, float]:
        return {name: self.scale * weight for name, weight in self.weight_of_each.items()}

    def _election(self, thresholds: Mapping[str, float]) -> Ties:
        shares: dict[str, dict[str, float] | None] = {"count": None, "weight": self.weight_of_each, "sum": {}}
        return Ties(base=self.base, thresholds=dict(thresholds), shares=shares[self.average])


@register
class Soup(Merge):
    """Weighted mean of several models (Wortsman et al., ICML 2022)."""

    name: ClassVar[str] = "soup"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"soup": "Model soup"}
    citation: ClassVar[str] = (
        "Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy "
        "without increasing inference time. ICML 2022. https://arxiv.org/abs/2203.05482"
    )
    baseline: ClassVar[bool] = True

    weights: Annotated[dict[SourceName, Scale], Field(min_length=1)]
    """Weight of every model; the weights add up to 1."""

    @model_validator(mode="after")
    def _mean(self) -> Soup:
        if not math.isclose(total := math.fsum(self.weights.values()), 1.0, abs_tol=1e-9):
            raise ValueError(f"the weights of a soup add up to 1, not to {total:g}")
        return self

    @property
    def merged(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self.weights)

    def operations(self, sources: Sources) -> dict[str, Operation]:
        """The same weighted mean everywhere."""
        return self._everywhere(sources, blend(self.weights))


@register
class TaskArithmetic(TaskVectorMerge):
    """Add scaled task vectors to the base (Ilharco et al., ICLR 2023)."""

    name: ClassVar[str] = "task_arithmetic"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"task_arithmetic": "Task arithmetic"}
    citation: ClassVar[str] = (
        "Ilharco et al.: Editing Models with Task Arithmetic. ICLR 2023. https://arxiv.org/abs/2212.04089"
    )
    baseline: ClassVar[bool] = True

    scale: float | dict[SourceName, float] = 0.5
    """λ of all experts, or one per expert."""

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:  # noqa: ARG003
        """λ."""
        return {"scale": {"low": 0.1, "high": 1.2}}

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, Any]:
        """Base, safety expert and the model."""
        there.require(SAFETY, BASE)
        return {"base": BASE, "experts": [SAFETY, MODEL], "start_from": MODEL}

    @model_validator(mode="after")
    def _scales_match(self) -> TaskArithmetic:
        if isinstance(self.scale, dict) and set(self.scale) != set(self.experts):
            raise ValueError("a scale per expert names exactly the experts")
        return self

    def operations(self, sources: Sources) -> dict[str, Operation]:
        """The same weighted sum everywhere."""
        return self._everywhere(sources, _task_sum(self.base, self.of_each(self.scale)))


@register
class TiesMerge(ElectedMerge):
    """Trim task vectors, elect a sign, average what agrees with it (Yadav et al., NeurIPS 2023)."""

    name: ClassVar[str] = "ties"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"ties": "TIES"}
    citation: ClassVar[str] = (
        "Yadav, Tam, Choshen, Raffel and Bansal: TIES-Merging: Resolving Interference When Merging Models. "
        "NeurIPS 2023. https://arxiv.org/abs/2306.01708"
    )
    baseline: ClassVar[bool] = True

    density: Density | dict[SourceName, Density] = 0.2
    """Share of each task vector's entries that is kept, largest magnitudes first; one, or one per expert."""
    trim: Literal["tensor", "model"] = "tensor"
    """Trim every tensor to the density, or all tensors together (one threshold per expert)."""

    def reads(self, sources: Sources) -> Iterator[TensorSpec]:
        """Base and expert twice for the threshold of each expert; small tensors once, which is not counted here."""
        for expert in self.experts if self.scale else ():
            for source in (self.base, expert):
                specs = [sources[source].reader.spec(tensor) for tensor in self.merged_tensors(sources)]
                yield from (*specs, *specs)

    def operations(self, sources: Sources) -> dict[str, Operation]:
        """TIES with the exact thresholds of the sources."""
        from polysafe.methods.trimming import trimming_thresholds  # torch, which no other merge needs to decide

        if self.scale == 0:
            return self._everywhere(sources, Copy(source=self.base))
        tensors = self.merged_tensors(sources)
        parts = [(name,) for name in tensors] if self.trim == "tensor" else [tensors]
        base, floor = sources[self.base], self.average != "count"
        thresholds = {
            name: trimming_thresholds(base, sources[name], parts, density, floor=floor)
            for name, density in self.of_each(self.density).items()
        }
        merged: dict[str, Operation] = {}
        for place, part in enumerate(parts):
            rule = self._election({name: found[place] for name, found in thresholds.items()})
            merged |= dict.fromkeys(part, Blend(weights=self._scaled, rule=rule))
        return merged


@register
class DareMerge(ElectedMerge):
    """Drop entries of task vectors at random, rescale the rest, then merge (Yu et al., ICML 2024)."""

    name: ClassVar[str] = "dare"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"dare": "DARE"}
    citation: ClassVar[str] = (
        "Yu, Yu, Yu, Huang and Li: Language Models are Super Mario: Absorbing Abilities from Homologous "
        "Models as a Free Lunch. ICML 2024. https://arxiv.org/abs/2311.03099"
    )
    baseline: ClassVar[bool] = True

    drop: Probability | dict[SourceName, Probability] = 0.5
    """Probability of dropping an entry, one or one per expert; survivors are divided by 1 - drop."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the mask, which depends on nothing but seed, expert, tensor name and element."""
    scale: float = 0.5
    """λ of the thinned task vectors."""
    then: Literal["sum", "ties"] = "sum"
    """Add the thinned task vectors up, or merge them by the sign election of TIES without trimming."""

    @model_validator(mode="after")
    def _elected(self) -> DareMerge:
        if self.average != "count" and self.then == "sum":
            raise ValueError("`average` is of the elected entries: it needs `then: ties`")
        return self

    def operations(self, sources: Sources) -> dict[str, Operation]:
        """The same rule everywhere; the mask comes from the tensor's name."""
        dropped = any(self.of_each(self.drop).values())
        if self.scale == 0 or (self.then == "sum" and not dropped):
            return self._everywhere(sources, _task_sum(self.base, self._scaled))
        ties = self._election(dict.fromkeys(self.experts, 0.0)) if self.then == "ties" else None
        rule = Dare(base=self.base, drop=self.drop, seed=self.seed, then=ties)
        return self._everywhere(sources, Blend(weights=self._scaled, rule=rule))


def _task_sum(base: str, scales: dict[str, float]) -> Operation:
    """θ_base + Σ λ·τ as a weighted sum of models; a weight that is only rounding is zero."""
    rest = 1.0 - math.fsum(scales.values())
    return blend({base: rest if abs(rest) > 1e-12 else 0.0, **scales})
