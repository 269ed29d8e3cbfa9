"""Layer swapping: a language expert takes over the blocks in which the safety expert moved more.

Shin & Hwang, *Layer-wise Swapping for Generalizable Multilingual Safety*, EACL 2026. For every block (a
layer, or the attention and the MLP of a layer) the relative update norms of its projections add up to n, and
per expert

    p = n / (Σ n + 1e-8)        d = p_safety − p_language

    d >  τ    the block of the safety expert
    d < −τ    the block of the language expert
    else      safety_weight · safety + (1 − safety_weight) · language

The rule sees only the shape of the two depth profiles: it is blind to how far an expert moved on the whole,
and since Σ d = 0 some blocks go each way unless the profiles coincide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from polysafe.checkpoint.opened import Source, Sources
from polysafe.checkpoint.roles import Architecture, Kind, Module, TensorRole
from polysafe.edits.edit import Decision, Edit
from polysafe.edits.operations import Arithmetic, Blend, Copy, Operation, blend
from polysafe.errors import ArchitectureError, MismatchError
from polysafe.methods.agreement import (
    architecture_notes,
    require_agreement,
    same_vocabulary_shape,
    shortened,
    storage_notes,
    vocabulary_conflict,
)
from polysafe.methods.base import SourceName
from polysafe.methods.blocks import BlockKey, blocks_of
from polysafe.methods.materials import BASE, MODEL, SAFETY, Materials
from polysafe.methods.random_blocks import BlockMethod
from polysafe.methods.registry import register
from polysafe.methods.scores import (
    Aggregate,
    Movement,
    Ratios,
    Scored,
    profile,
    require_descendant,
    scored_tensors,
    shares,
    usual_aggregate,
)

_REFERENCE_LAYERS = 32  # depth of the models that the published τ was chosen on
_FUSED = frozenset({"qkv", "gate_up"})
_OUTSIDE = (Kind.EMBEDDING, Kind.POSITION, Kind.FINAL_NORM, Kind.HEAD)

Outside = Literal["blend", "language", "safety", "base"]
Share = Annotated[float, Field(ge=0, le=1)]


Profile = Mapping[BlockKey, float]
"""A number per block, in order of depth, attention before MLP."""


@register
class LayerSwap(BlockMethod):
    """Swap or blend blocks of a language expert with those of a safety expert (Shin & Hwang, EACL 2026)."""

    name: ClassVar[str] = "layer_swap"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {
        "layer_swap": "Layer- or module-wise swapping",
        "layer_swap.layer": "Layer-wise swapping",
        "layer_swap.module": "Module-wise swapping",
    }
    citation: ClassVar[str] = (
        "Shin and Hwang: Layer-wise Swapping for Generalizable Multilingual Safety. EACL 2026. "
        "https://arxiv.org/abs/2601.22620"
    )

    base: SourceName
    """Source that both experts were fine-tuned from."""
    safety: SourceName
    """Source that was tuned for safety, usually in English."""
    language: SourceName
    """Source that was tuned for the target language; the edit starts from it."""
    granularity: Literal["layer", "module"] = "module"
    """Decide once per layer, or once for the attention and once for the MLP of every layer."""
    tau: Annotated[float, Field(ge=0)] = 0.001
    """Threshold on |d|; in `quantile` mode the quantile of |d|, 0 … 1. Ties blend."""
    tau_mode: Literal["absolute", "depth_scaled", "quantile"] = "absolute"
    """Use tau as it is, scaled by 32 / number of layers, or as a quantile of |d|."""
    rule: Literal["threshold", "continuous"] = "threshold"
    """Published rule, or blend every block with weight p_safety / (p_safety + p_language)."""
    safety_weight: Share = 0.5
    """Weight of the safety expert where tensors are blended (the α of the paper)."""
    aggregate: Aggregate | None = None
    """Sum (l1) or root of the sum of squares (l2) over a block. Default: l1 for layers, l2 for modules."""
    normalise: Literal["joint", "per_family"] = "joint"
    """Divide by the sum over all modules (published), or over attention and MLP modules separately."""
    norms: Literal["language", "follow_attention", "blend"] = "language"
    """Norms between the modules, module granularity only; whole layers always take their norms with them."""
    outside: Outside | None = None
    """Embedding, final norm and head. Default: blend (published), or language where vocabularies differ."""
    arithmetic: Arithmetic = "float32"
    """Wide with one rounding, or `authors`: bfloat16 throughout, bit-equal to the published program."""
    borderline: Annotated[float, Field(ge=0)] = 1.5e-4
    """Decisions with ||d| − τ| below this are reported: bfloat16 noise could have turned them."""
    score_biases: bool = True
    """Score the biases of projections, each as a tensor of its own."""
    max_safety_blocks: Annotated[int, Field(ge=0)] | None = None
    """Give at most this many whole blocks to the safety expert, largest d first; the others stay."""
    moe: Literal["experts", "attention_only"] = "experts"
    """Score every expert of a mixture as a member of its MLP, or leave the experts unscored."""
    unscored: Literal["error", "language"] = "error"
    """A block in which nothing can be scored is an error, or stays the language expert's."""
    allow_unrelated_base: bool = False
    """Go on although an expert seems not to descend from the base."""

    @model_validator(mode="after")
    def _consistent(self) -> LayerSwap:
        if len({self.base, self.safety, self.language}) < 3:
            raise ValueError("base, safety and language must be three different sources")
        if self.tau_mode == "quantile" and self.tau > 1:
            raise ValueError("tau must lie in 0 … 1 when tau_mode is quantile")
        if self.rule == "continuous" and self.max_safety_blocks is not None:
            raise ValueError("max_safety_blocks needs rule: threshold, a continuous rule has no safety blocks")
        if self.granularity == "layer" and (self.norms != "language" or self.normalise != "joint"):
            raise ValueError("norms and normalise: per_family need granularity: module")
        return self

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:  # noqa: ARG003
        """Both published rules, the threshold as a quantile of what it is compared with, and the blend between."""
        share = {"low": 0.0, "high": 1.0}
        kinds = {"choices": ["layer", "module"]}
        return {"granularity": kinds, "tau_mode": "quantile", "tau": share, "safety_weight": share}

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, Any]:
        """From base and safety expert into the model."""
        there.require(SAFETY, BASE)
        return {"base": BASE, "safety": SAFETY, "language": MODEL}

    @property
    def rule_label(self) -> str:
        """`layer_swap.layer` or `layer_swap.module`."""
        return f"{self.name}.{self.granularity}"

    @property
    def start(self) -> str:
        """The language expert."""
        return self.language

    @property
    def uses(self) -> tuple[str, ...]:
        """Base, safety expert, language expert."""
        return self.base, self.safety, self.language

    @property
    def written_from(self) -> tuple[str, ...]:
        """Both experts, and the base where it gives what lies outside of the layers."""
        return self.uses if self.outside == "base" else (self.safety, self.language)

    def donor(self) -> str:
        """The language expert; the base with `arithmetic: authors`, as in the published program."""
        return self.base if self.arithmetic == "authors" else self.language

    def fit(self, sources: Sources) -> Edit:
        """Scores both experts and decides every block.

        Raises:
            MismatchError: The three do not fit together, or the base is no ancestor of an expert.
            ArchitectureError: A block has no tensor that can be scored.
            CheckpointError: A scored tensor holds NaN or infinity.
        """
        moved = self.measures(sources)
        outside = self._outside_choice(sources)
        norms = moved.norms()
        if not self.allow_unrelated_base:
            for expert in moved.experts:
                require_descendant(moved.base, expert, moved.scored, norms[expert.name])
        return self._decided_edit(sources, moved.scored, norms, outside)

    def measures(self, sources: Sources) -> Movement:
        """How far both experts moved from the base.

        Raises:
            MismatchError: The three do not fit together.
            ArchitectureError: A block has no tensor that can be scored.
        """
        base, safety, language = (sources[name] for name in self.uses)
        require_agreement([base, safety, language])
        return Movement(base, (safety, language), self._scored(base), self.arithmetic)

    def decide(self, safety: Profile, language: Profile) -> tuple[Decision, ...]:
        """The rule itself: from the n of every block, per expert, to one decision per block."""
        p_safety, p_language = self._shares(safety), self._shares(language)
        d = {key: p_safety[key] - p_language[key] for key in safety}
        tau = self.threshold(d)
        verdicts = self._mixed(p_safety, p_language) if self.rule == "continuous" else self._swapped(d, tau)
        return tuple(
            Decision(
                block=key.name,
                layer=key.layer,
                module=key.module or None,
                choice=choice,
                safety_weight=weight,
                score=d[key],
                detail={
                    "n_safety": safety[key],
                    "n_language": language[key],
                    "p_safety": p_safety[key],
                    "p_language": p_language[key],
                },
                borderline=self.rule == "threshold" and abs(abs(d[key]) - tau) < self.borderline,
            )
            for key, (choice, weight) in self.placed(verdicts, lambda key: key.module).items()
        )

    def threshold(self, d: Profile) -> float:
        """The τ in force for these differences."""
        match self.tau_mode:
            case "absolute":
                return self.tau
            case "depth_scaled":
                return self.tau * _REFERENCE_LAYERS / len({key.layer for key in d})
            case "quantile":
                return float(np.quantile([abs(value) for value in d.values()], self.tau))

    def _shares(self, n: Profile) -> dict[BlockKey, float]:
        return shares(n, {key: key.module for key in n} if self.normalise == "per_family" else None)

    def _swapped(self, d: Profile, tau: float) -> dict[BlockKey, tuple[str, float]]:
        above = sorted((key for key in d if d[key] > tau), key=lambda key: -d[key])
        chosen = set(above[: self.max_safety_blocks])

        def verdict(key: BlockKey) -> tuple[str, float]:
            if key in chosen:
                return "safety", 1.0
            return ("language", 0.0) if abs(d[key]) > tau else ("blend", self.safety_weight)

        return {key: verdict(key) for key in d}

    def _mixed(self, p_safety: Profile, p_language: Profile) -> dict[BlockKey, tuple[str, float]]:
        totals = {key: p_safety[key] + p_language[key] for key in p_safety}
        return {key: ("blend", p_safety[key] / total if total else 0.0) for key, total in totals.items()}

    def _key(self, layer: int, module: Module) -> BlockKey:
        return BlockKey(layer) if self.granularity == "layer" else BlockKey(layer, module)

    def _scored(self, base: Source) -> tuple[Scored, ...]:
        scored = scored_tensors(
            base.architecture,
            biases=self.score_biases,
            experts=self.moe == "experts",
            published=self.arithmetic == "authors",
        )
        if not scored:
            raise ArchitectureError(
                "no tensor has a name that the published program scores"
                if self.arithmetic == "authors"
                else "no tensor can be scored",
                where=base.checkpoint.root,
                remedy="use `arithmetic: float32`, which knows more layouts",
            )
        missing = [key for key in self._unscored(base, scored) if not self._may_be_unscored(key)]
        if missing and self.unscored == "error":
            raise ArchitectureError(
                f"nothing can be scored in {shortened([key.name for key in missing])}",
                where=base.checkpoint.root,
                remedy="set `unscored: language` to leave such blocks with the language expert",
            )
        return scored

    def _unscored(self, base: Source, scored: Iterable[Scored]) -> list[BlockKey]:
        found = {self._key(item.layer, item.module) for item in scored}
        return [key for key in blocks_of(base.architecture, self.granularity) if key not in found]

    def _may_be_unscored(self, key: BlockKey) -> bool:
        """Whether an option already implies that this block is left alone (the authors skip mixtures)."""
        return key.module is Module.MLP and (self.arithmetic == "authors" or self.moe == "attention_only")

    def _profile(self, base: Source, scored: Iterable[Scored], ratios: Ratios) -> dict[BlockKey, float]:
        """The n of every block: the aggregate of its members' relative update norms."""
        blocks = blocks_of(base.architecture, self.granularity)
        return profile(blocks, scored, ratios, self.aggregate or usual_aggregate(self.granularity))

    def _outside_choice(self, sources: Sources) -> Outside:
        trio = [sources[name] for name in self.uses]
        mixable = same_vocabulary_shape(trio)
        if self.outside is None:
            agree = mixable if self.arithmetic == "authors" else vocabulary_conflict(trio) is None
            return "blend" if agree else "language"
        if self.outside != "language" and not mixable:
            raise MismatchError(
                f"`outside: {self.outside}` is impossible: {vocabulary_conflict(trio)}",
                where=sources[self.language].checkpoint.root,
                remedy="leave out `outside`: the language expert then keeps embedding, final norm and head",
            )
        return self.outside

    def _decided_edit(
        self, sources: Sources, scored: Sequence[Scored], norms: Mapping[str, Ratios], outside: Outside
    ) -> Edit:
        ratios = {"safety": norms[self.safety], "language": norms[self.language]}
        profiles = (self._profile(sources[self.base], scored, ratios[expert]) for expert in ("safety", "language"))
        decisions = self.decide(*profiles)
        roles = sources[self.language].architecture.roles
        fixed = self._fixed(roles.values(), outside)
        decided = {BlockKey(d.layer, Module(d.module) if d.module else ""): d for d in decisions if d.layer is not None}
        governing = {name: self._governing(role, decided, fixed) for name, role in roles.items()}
        operations = {name: self._operation(decision) for name, decision in governing.items() if decision}
        return self.make_edit(
            sources,
            {name: operation for name, operation in operations.items() if operation is not None},
            decisions=(*decisions, *fixed.values()),
            notes=self._notes(sources, outside),
            warnings=self._warnings(sources, scored, decisions, outside),
            evidence={
                "tau": self.threshold({key: d.score or 0.0 for key, d in decided.items()}),
                "relative_update_norms": {expert: _plain(values) for expert, values in ratios.items()},
            },
            dtype="BF16" if self.arithmetic == "authors" else None,
        )

    def _fixed(self, roles: Iterable[TensorRole], outside: Outside) -> dict[Kind, Decision]:
        """Choices that no score takes part in: outside the layers, and the norms between modules."""
        kinds = {role.kind for role in roles if role.layer is None}
        fixed = {kind: self._fixed_decision(kind.value, outside) for kind in _OUTSIDE if kind in kinds}
        if self.granularity == "module" and self.norms != "follow_attention":
            fixed[Kind.NORM] = self._fixed_decision("norms", self.norms)
        return fixed

    def _fixed_decision(self, block: str, choice: Outside) -> Decision:
        weight = {"safety": 1.0, "blend": self.safety_weight}.get(choice, 0.0)
        return Decision(block=block, choice=choice, safety_weight=weight)

    def _governing(
        self, role: TensorRole, decided: Mapping[BlockKey, Decision], fixed: Mapping[Kind, Decision]
    ) -> Decision | None:
        """The decision that a tensor follows; None leaves it with the language expert."""
        if role.kind is Kind.BUFFER:
            return None
        if role.layer is None:
            return fixed.get(role.kind)
        if self.granularity == "layer":
            return decided.get(BlockKey(role.layer))
        if role.module is not None:
            return decided.get(BlockKey(role.layer, role.module))
        if role.kind is Kind.NORM:
            return fixed.get(Kind.NORM) or decided.get(BlockKey(role.layer, Module.ATTENTION))
        return None

    def _operation(self, decision: Decision) -> Operation | None:
        weights = {self.safety: decision.safety_weight, self.language: 1 - decision.safety_weight}
        match decision.choice:
            case "safety":
                return Copy(source=self.safety)
            case "base":
                return Copy(source=self.base)
            case "blend" if self.arithmetic == "authors":
                # never a copy: the published program turns −0.0 into 0.0 even at weight 0 and 1
                return Blend(weights=weights, arithmetic="authors")
            case "blend":
                operation = blend(weights)
                return None if operation == Copy(source=self.language) else operation
        return None

    def _notes(self, sources: Sources, outside: Outside) -> Iterator[str]:
        trio = [sources[name] for name in self.uses]
        roles = trio[0].architecture.roles.values()
        yield from architecture_notes(trio)
        yield from storage_notes(trio)
        if self.arithmetic == "float32":
            if any(role.projection in _FUSED for role in roles):
                yield "a fused projection is scored as one member of its module"
            if self.moe == "experts" and any(role.experts or role.expert is not None for role in roles):
                yield "every expert of a mixture is scored as a member of its module"
        if self.outside is None and outside == "language":
            yield (
                f"the vocabularies differ ({vocabulary_conflict(trio)}); embedding, final norm and head stay "
                f"those of {self.language!r}, only the layers are edited"
            )

    def _warnings(
        self, sources: Sources, scored: Sequence[Scored], decisions: Sequence[Decision], outside: Outside
    ) -> Iterator[str]:
        trio = [sources[name] for name in self.uses]
        base = trio[0]
        yield from self._borderline_warning(decisions)
        yield from self._still_warnings(decisions)
        if unscored := self._unscored(base, scored):
            listed = shortened([key.name for key in unscored])
            yield f"blocks without a score stay with {self.language!r}: {listed}"
        if skipped := self._skipped(base.architecture, scored):
            yield f"{len(skipped)} projections are not scored: {shortened(skipped)}"
        if unknown := base.architecture.unknown:
            yield (
                f"the role of {len(unknown)} tensors is unknown: {shortened(unknown)}; those inside a block "
                f"follow its decision, the others stay with {self.language!r}"
            )
        if outside == "blend" and (conflict := vocabulary_conflict(trio)):
            yield f"vocabularies are mixed although they differ: {conflict}"

    def _borderline_warning(self, decisions: Sequence[Decision]) -> Iterator[str]:
        close = [f"{d.block} (d = {d.score:+.6f})" for d in decisions if d.borderline]
        if close:
            yield (
                f"{len(close)} of {len(decisions)} decisions lie within {self.borderline:g} of tau, "
                f"so that bfloat16 noise could turn them: {shortened(close)}"
            )

    def _still_warnings(self, decisions: Sequence[Decision]) -> Iterator[str]:
        for role, name in (("safety", self.safety), ("language", self.language)):
            if not any(d.detail[f"n_{role}"] for d in decisions):
                yield f"{name!r} equals {self.base!r} where it is scored, so no block prefers it"

    def _skipped(self, architecture: Architecture, scored: Sequence[Scored]) -> list[str]:
        """Projections that carry no weight in any decision although they may move with one."""
        known = {item.tensor for item in scored}
        return [
            name
            for name, role in architecture.roles.items()
            if role.kind is Kind.PROJECTION and name not in known and (self.score_biases or not role.bias)
        ]


def _plain(ratios: Ratios) -> dict[str, Any]:
    """One number per tensor, a list where experts are stacked."""
    return {tensor: values[0] if len(values) == 1 else list(values) for tensor, values in ratios.items()}
