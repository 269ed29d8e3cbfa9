"""Safety neurons: units of an MLP that respond to harmful prompts otherwise than to harmless ones.

The published rule (Liang et al., ICML 2026, Appendix B) looks at every unit of one projection of one layer, with Δ the
mean output over harmful prompts minus the mean over harmless ones:

    z = (Δ − mean Δ) / σ(Δ)         mean and population standard deviation over the units of the layer
    d = Δ / s                       Cohen's d, s² = ((n_h − 1)s_h² + (n_s − 1)s_s²) / (n_h + n_s − 2)

    S = { z > 2 } ∪ { d > 1 }

Section 3.1 of the same paper describes another rule, a large *absolute* gap *and* separability; it is the options
`absolute` and `intersection`. The thresholds alone choose what share they like (a quarter of the units of a small
model), therefore the cap.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch.nn import functional

from polysafe.errors import DataError
from polysafe.probe.moments import MeanVariance

Combine = Literal["union", "intersection"]

_STILL = 1e-6  # share of the typical deviation below which a unit counts as constant
_PROBE_Z = 3.0
_PROBE_DECAY = 1e-3
_PROBE_STEPS = 200


@dataclass(frozen=True, slots=True)
class Contrast:
    """How the units of one projection of one layer tell harmful from harmless prompts.

    Attributes:
        z: Standing of the mean gap among the units, [units].
        d: Cohen's d, [units]; 0 for a unit that is constant.
        alive: Units that are not constant, [units].
    """

    z: torch.Tensor
    d: torch.Tensor
    alive: torch.Tensor

    @classmethod
    def of(cls, harmful: MeanVariance, harmless: MeanVariance) -> Self:
        """Compares the outputs over two sets of prompts.

        Raises:
            DataError: A set has fewer than two prompts, or an output is not finite.
        """
        _require_usable(harmful, harmless)
        gap = harmful.mean - harmless.mean
        pooled = (harmful.deviation + harmless.deviation) / (harmful.count + harmless.count - 2)
        deviation = pooled.sqrt()
        alive = deviation > _STILL * pooled.mean().sqrt()
        width = gap.std(correction=0)
        z = (gap - gap.mean()) / width if float(width) > 0 else torch.zeros_like(gap)
        return cls(z, torch.where(alive, gap / deviation, 0.0), alive)


@dataclass(frozen=True, slots=True)
class Criterion:
    """Which units are chosen.

    Attributes:
        tau_mag: Threshold on z.
        tau_stat: Threshold on d.
        combine: Whether one threshold suffices or both must be passed.
        absolute: Whether units that fire *less* on harmful prompts count as well.
        cap: Largest share of the units of a layer, those of largest d; None for no cap.
    """

    tau_mag: float = 2.0
    tau_stat: float = 1.0
    combine: Combine = "union"
    absolute: bool = False
    cap: float | None = None

    def choose(self, contrast: Contrast) -> torch.Tensor:
        """Indices of the chosen units, ascending, int64."""
        z, d = (contrast.z.abs(), contrast.d.abs()) if self.absolute else (contrast.z, contrast.d)
        large, separate = z > self.tau_mag, d > self.tau_stat
        chosen = (large | separate if self.combine == "union" else large & separate) & contrast.alive
        return capped(chosen.nonzero().flatten(), d, self.cap)


def capped(chosen: torch.Tensor, score: torch.Tensor, cap: float | None) -> torch.Tensor:
    """The best of the chosen units.

    Args:
        chosen: Indices, [m].
        score: Score of every unit, [units].
        cap: Largest share of all units, at least one unit; None keeps all chosen ones.
    """
    limit = len(score) if cap is None else max(1, int(cap * len(score)))
    best = score[chosen].argsort(descending=True, stable=True)[:limit]
    return chosen[best].sort().values


def probe_units(harmful: torch.Tensor, harmless: torch.Tensor, cap: float | None = None) -> torch.Tensor:
    """Units that a logistic probe weighs most, in the manner of NeuroStrike (Wu et al., NDSS 2026).

    One linear probe on the outputs of all units tells harmful from harmless prompts; a unit is chosen if its weight is
    positive and more than three standard deviations from the mean weight. The published program trains for 5,000 steps
    of Adam with weight decay 1e-3; here the same convex objective is minimised by L-BFGS, so that the result does not
    depend on a schedule.

    Args:
        harmful: Outputs on harmful prompts, [n_h, units].
        harmless: Outputs on harmless prompts, [n_s, units].
        cap: As in `capped`, by weight.
    """
    _require_usable(MeanVariance.of(harmful), MeanVariance.of(harmless))
    inputs = torch.cat([harmful, harmless]).to(torch.float64)
    labels = torch.cat([inputs.new_ones(len(harmful)), inputs.new_zeros(len(harmless))])
    weight = inputs.new_zeros(inputs.shape[1]).requires_grad_()
    bias = inputs.new_zeros(()).requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = functional.binary_cross_entropy_with_logits(inputs @ weight + bias, labels)
        value = value + _PROBE_DECAY / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    found = weight.detach()
    z = (found - found.mean()) / found.std(correction=0)
    return capped(((z.abs() > _PROBE_Z) & (found > 0)).nonzero().flatten(), found, cap)


def strongest(contrast: Contrast, count: int, *, absolute: bool) -> torch.Tensor:
    """So many units of largest d, whatever their thresholds; ascending."""
    return (contrast.d.abs() if absolute else contrast.d).topk(count).indices.sort().values


def random_units(units: int, count: int, seed: int) -> torch.Tensor:
    """The control of every choice: as many units, drawn at random; ascending."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(units, generator=generator)[:count].sort().values


def jaccard(first: AbstractSet[Hashable], second: AbstractSet[Hashable]) -> float:
    """|A ∩ B| / |A ∪ B|; 1 for two empty sets."""
    union = first | second
    return len(first & second) / len(union) if union else 1.0


def overlap(chosen: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, dict[str, float]]:
    """Jaccard overlap of the safety neurons of languages.

    Args:
        chosen: Language -> its units, one tensor per layer and projection, in one order for all languages.
    """
    sets = {
        language: {(place, unit) for place, units in enumerate(tensors) for unit in units.tolist()}
        for language, tensors in chosen.items()
    }
    return {one: {other: jaccard(mine, theirs) for other, theirs in sets.items()} for one, mine in sets.items()}


def _require_usable(*sets: MeanVariance) -> None:
    for outputs in sets:
        if outputs.count < 2:
            raise DataError(
                f"{outputs.count} prompts are too few to tell what a unit does", remedy="use at least two of each kind"
            )
        broken = ~(outputs.mean.isfinite() & outputs.deviation.isfinite())
        if bool(broken.any()):
            raise DataError(f"the outputs of unit {int(broken.nonzero()[0])} are not finite")
