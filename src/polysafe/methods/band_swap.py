"""Band swapping: a hand-set band of middle layers from one expert, the layers around it from another.

Bandarkar et al., *Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large Language Models*, ICLR 2025.
With L layers, `bottom` = b, `top` = u and transitions t_b, t_u of weight ω, the weight of the middle's donor
in layer i is

    0    for i < b or i ≥ L - u
    ω    for b ≤ i < b + t_b or L - u - t_u ≤ i < L - u
    1    otherwise

No weight is read to decide; where the band should lie is a matter of experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from polysafe.checkpoint.opened import Sources
from polysafe.checkpoint.roles import Kind
from polysafe.edits.edit import Decision, Edit
from polysafe.edits.operations import Copy, blend
from polysafe.errors import MismatchError, RecipeError
from polysafe.methods.agreement import (
    architecture_notes,
    require_agreement,
    require_layers,
    same_vocabulary_shape,
    storage_notes,
    vocabulary_conflict,
)
from polysafe.methods.base import LayerCount, SourceName
from polysafe.methods.materials import MODEL, SAFETY, Materials
from polysafe.methods.random_blocks import BlockMethod
from polysafe.methods.registry import register

PRESETS: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "bandarkar_2025": (32, {"bottom": 5, "top": 2, "transition_bottom": 1, "transition_top": 1}),
    "bandarkar_peng_2025": (32, {"bottom": 6, "top": 2, "transition_bottom": 0, "transition_top": 0}),
    "lasbordes_2026_french": (36, {"bottom": 13, "top": 13, "transition_bottom": 0, "transition_top": 0}),
    "lasbordes_2026_chinese": (36, {"bottom": 13, "top": 15, "transition_bottom": 0, "transition_top": 0}),
}
"""Bands that were reported, with the number of layers of their models. Starting points to test, not truths.

Bandarkar et al. (arXiv 2410.01335) and Bandarkar & Peng (arXiv 2505.18356) on Llama 3.1 8B, the latter as a
reproduction reports it; Lasbordes et al. (arXiv 2605.26735) on Qwen3-8B, middle layers 13 to 22 and 13 to 20.
"""

Preset = Literal["bandarkar_2025", "bandarkar_peng_2025", "lasbordes_2026_french", "lasbordes_2026_chinese"]
Count = Annotated[int, Field(ge=0)]


@register
class BandSwap(BlockMethod):
    """Take a band of middle layers from one expert and the rest from the other (Bandarkar et al., ICLR 2025)."""

    name: ClassVar[str] = "band_swap"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"band_swap": "Fixed-band swapping"}
    citation: ClassVar[str] = (
        "Bandarkar, Muller, Yuvraj, Hou, Singhal, Lv and Liu: Layer Swapping for Zero-Shot Cross-Lingual "
        "Transfer in Large Language Models. ICLR 2025. https://arxiv.org/abs/2410.01335"
    )
    baseline: ClassVar[bool] = True

    safety: SourceName
    """Source that was tuned for safety."""
    language: SourceName
    """Source that was tuned for the target language; the edit starts from it."""
    preset: Preset | None = None
    """Published band that gives the defaults of the four counts."""
    bottom: Count = 5
    """Number of lowest layers that stay with the outer expert."""
    top: Count = 2
    """Number of highest layers that stay with the outer expert."""
    transition_bottom: Count = 1
    """Number of blended layers above the bottom ones."""
    transition_top: Count = 1
    """Number of blended layers below the top ones."""
    transition_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the middle's donor in blended layers."""
    donor_of_middle: Literal["safety", "language"] = "safety"
    """Expert that gives the middle layers; the other one is the outer expert."""
    outside: Literal["language", "safety"] = "language"
    """Expert that gives embedding, final norm and head."""
    layers: LayerCount = None
    """Number of layers that the models must have; any by default."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, Mapping) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return data
        return {**PRESETS[preset][1], **data}

    @model_validator(mode="after")
    def _two_experts(self) -> BandSwap:
        if self.safety == self.language:
            raise ValueError("safety and language must be two different sources")
        return self

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:
        """Where the band begins and ends, and what blends into it."""
        return {
            "bottom": {"low": 0, "high": max(1, layers // 2)},
            "top": {"low": 0, "high": max(1, layers // 2 - 1)},
            "transition_bottom": 0,
            "transition_top": 0,
        }

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, Any]:
        """From the safety expert into the model."""
        there.require(SAFETY)
        return {"safety": SAFETY, "language": MODEL}

    @property
    def rule_label(self) -> str:
        """`band_swap`."""
        return self.name

    @property
    def start(self) -> str:
        """The language expert."""
        return self.language

    @property
    def uses(self) -> tuple[str, ...]:
        """Safety expert, language expert."""
        return self.safety, self.language

    def weights(self, num_layers: int) -> tuple[float, ...]:
        """Weight of the middle's donor in every layer.

        Raises:
            RecipeError: The bands need more layers than there are.
        """
        outer = (self.bottom, self.top, self.transition_bottom, self.transition_top)
        middle = num_layers - sum(outer)
        if middle < 0:
            raise RecipeError(
                f"the bands overlap: bottom {self.bottom} + transitions {self.transition_bottom} + "
                f"{self.transition_top} + top {self.top} are more than the {num_layers} layers of the model",
                remedy="choose smaller bands",
            )
        return (
            *([0.0] * self.bottom),
            *([self.transition_weight] * self.transition_bottom),
            *([1.0] * middle),
            *([self.transition_weight] * self.transition_top),
            *([0.0] * self.top),
        )

    def fit(self, sources: Sources) -> Edit:
        """Lays the bands over the layers.

        Raises:
            MismatchError: The experts do not fit together.
            RecipeError: The bands overlap, or the models have another number of layers than `layers`.
        """
        pair = [sources[name] for name in self.uses]
        require_agreement(pair)
        require_layers(pair[0], self.layers)
        if self.outside == "safety" and not same_vocabulary_shape(pair):
            raise MismatchError(
                f"`outside: safety` is impossible: {vocabulary_conflict(pair)}", remedy="use `outside: language`"
            )
        architecture = sources[self.language].architecture
        weights = dict(enumerate(self.weights(architecture.num_layers)))
        donor_weights = self.placed(weights, lambda _: "layer").values()
        shares = [w if self.donor_of_middle == "safety" else 1 - w for w in donor_weights]
        outside = 1.0 if self.outside == "safety" else 0.0
        steps = {
            name: blend({self.safety: share, self.language: 1 - share})
            for name, role in architecture.roles.items()
            if role.kind not in {Kind.BUFFER, Kind.UNKNOWN} or role.layer is not None
            if (share := outside if role.layer is None else shares[role.layer])
        }
        return self.make_edit(
            sources,
            {name: operation for name, operation in steps.items() if operation != Copy(source=self.language)},
            decisions=[_decision(f"layers.{i}", i, share) for i, share in enumerate(shares)]
            + [_decision("outside", None, outside)],
            notes=[*architecture_notes(pair), *storage_notes(pair)],
            warnings=self._warnings(architecture.num_layers),
        )

    def _warnings(self, num_layers: int) -> Iterator[str]:
        published = PRESETS[self.preset][0] if self.preset else num_layers
        if published != num_layers:
            yield f"preset {self.preset} is for {published} layers, this model has {num_layers}"


def _decision(block: str, layer: int | None, share: float) -> Decision:
    choice = {0.0: "language", 1.0: "safety"}.get(share, "blend")
    return Decision(block=block, layer=layer, choice=choice, safety_weight=share)
