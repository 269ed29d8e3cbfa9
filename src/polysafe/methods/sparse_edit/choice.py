"""Which layers and which gain a sparse edit takes: by what it does on anchors, or by comparing edited models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from polysafe.data.anchors import Anchors, ParallelPrompts
from polysafe.data.openings import opening_languages
from polysafe.data.prompts import Kind, Prompt
from polysafe.errors import EditError
from polysafe.methods.candidates import Candidates, choose_layers
from polysafe.methods.constraints import OVER_REFUSAL, REFUSED, Reading
from polysafe.methods.refusal_meter import RefusalMeter
from polysafe.methods.sparse_edit.solve import Inputs, Workbench
from polysafe.methods.validation import PROMPTS, Judging, Trial
from polysafe.probe.model import edited
from polysafe.progress import Parts

if TYPE_CHECKING:
    from polysafe.methods.sparse_edit.method import SparseEdit

RANKING = "ranking layers"
LAST = 0.8
"""Share of the layers, from the first on, in which `separation` looks."""


def setting(layers: Sequence[int], gain: float) -> dict[str, Any]:
    """A candidate, option by option."""
    return {"layers": list(layers), "gain": gain}


def preference(trial: Trial) -> tuple[float, int, float]:
    """The smallest shortfall; of equals, the fewest layers, then the smallest gain."""
    return trial.shortfall, len(trial.setting["layers"]), trial.setting["gain"]


def try_candidates(
    options: SparseEdit,
    bench: Workbench,
    layers: Sequence[int],
    gains: Sequence[float],
    judging: Judging,
    candidates: Candidates,
) -> list[Trial]:
    """Makes and judges candidates: of the layers that are named all gains, of `auto` what `choose_layers` looks at.

    Raises:
        EditError: None of the layers has safety neurons.
    """
    source = bench.model.source

    def attempt(chosen: tuple[int, ...], gain: float) -> Trial:
        try:
            solved = bench.solve(chosen, gain)
        except EditError as error:  # a layer without safety neurons is no reason to give up on the others
            return Trial(setting(chosen, gain), problem=error.problem)
        with edited(bench.model, bench.edit_of(solved), {source.name: source.reader}) as model:
            return judging(setting(chosen, gain), model)

    if options.layers != ("auto",):
        return candidates.tried({f"gain {gain!r}": partial(attempt, tuple(layers), gain) for gain in gains})
    trials = choose_layers(layers, gains, options.max_layers, attempt, candidates)
    if all(trial.problem for trial in trials):
        raise EditError(trials[0].problem, where=options.model, remedy="lower `tau_mag` and `tau_stat`")
    return trials


def shortlist(ranking: Mapping[int, float], most: int | None) -> list[int]:
    """The layers of highest score, ascending; of equals, the lower ones."""
    return sorted(sorted(ranking, key=lambda layer: -ranking[layer])[:most])


@dataclass(frozen=True)
class LayerRanking:
    """How much good an edit of each layer alone is expected to do.

    Attributes:
        scores: Layer -> score; the higher, the better. Empty where no layer can be edited.
        why: What the layer of the highest score is.
    """

    scores: Mapping[int, float]
    why: str

    @property
    def best(self) -> int:
        """The layer of the highest score."""
        return max(self.scores, key=lambda layer: self.scores[layer])


def rank_layers(bench: Workbench, layers: Sequence[int], gain: float) -> LayerRanking:
    """By `effect` where it can be measured, by `separation` otherwise.

    Raises:
        EditError: A system is singular.
    """
    asked = effect_prompts(bench.anchors, bench.held_out, bench.edited_languages)
    if not asked:
        return LayerRanking(separation(bench, layers), "where the other languages fall shortest of the pivot")
    return LayerRanking(
        effect(bench, layers, gain, asked),
        "whose edit makes held-out harmful anchors more likely to be refused, beyond what it does to harmless ones",
    )


def effect_prompts(anchors: Anchors, held_out: Sequence[int], languages: Sequence[str]) -> list[Prompt]:
    """Held-out harmful anchors and as many harmless ones; none where a language has no known refusal openings."""
    if not set(languages) <= set(opening_languages()):
        return []
    kinds: tuple[tuple[Kind, ParallelPrompts], ...] = (
        ("harmful", anchors.harmful.select(held_out)),
        ("harmless", anchors.harmless.select(range(min(len(held_out), len(anchors.harmless))))),
    )
    return [
        Prompt(kind, name, code, text, kind)
        for kind, rows in kinds
        for code in languages
        for name, text in rows.prompts(code).items()
    ]


def effect(bench: Workbench, layers: Sequence[int], gain: float, asked: Sequence[Prompt]) -> dict[int, float]:
    """What an edit of each layer alone does to the model's inclination to refuse.

    The score is the mean rise of refusal log-odds (`probe.refusal`) of harmful prompts minus that of harmless ones,
    each a mean over the prompts of a language and then over languages. Layers without safety neurons are left out.
    """
    meter, source = RefusalMeter(asked, template=bench.template), bench.model.source
    parts = Parts(RANKING, PROMPTS, meter.prompts, 1 + len(layers))
    with parts.part():
        before = meter.read(bench.model, meter.languages)
    found = {}
    for layer in layers:
        with parts.part():
            try:
                solved = bench.solve((layer,), gain)
            except EditError:  # no safety neuron, which is no reason to give up on the others
                continue
            with edited(bench.model, bench.edit_of(solved), {source.name: source.reader}) as model:
                found[layer] = _rise(before, meter.read(model, meter.languages))
    return found


def _rise(before: Reading, after: Reading) -> float:
    """Mean rise over languages, that of harmful prompts minus that of harmless ones."""
    rises: dict[str, list[float]] = {REFUSED: [], OVER_REFUSAL: []}
    for cell, items in before.items():
        moved = [after[cell][item] - value for item, value in items.items() if item in after.get(cell, {})]
        if moved:
            rises[cell[1]].append(sum(moved) / len(moved))
    harmful, harmless = (sum(each) / len(each) if each else 0.0 for each in (rises[REFUSED], rises[OVER_REFUSAL]))
    return harmful - harmless


def separation(bench: Workbench, layers: Sequence[int]) -> dict[int, float]:
    """How far the edited languages fall short of the pivot, in every layer: where an edit has something to do.

    In a layer, r is the direction from the mean MLP input of the pivot's harmless anchors to that of its harmful ones:
    the refusal direction of Arditi et al. (*Refusal in Language Models Is Mediated by a Single Direction*, NeurIPS
    2024, section 2.3), taken where this method edits. Along r, with m the mean over anchors,

        shortfall of a language = [(m_harmful − m_harmless of the pivot) − (m_harmful − m_harmless of the language)] / s

    where s is the pivot's pooled standard deviation, and the score is the mean over the edited languages. As there, the
    last fifth of the layers is left out (unless no other is named): gaps grow to the end, where they are about words.

    Returns:
        Layer -> score; the higher, the better.
    """
    harmful, harmless = bench.recorded
    early = [layer for layer in layers if layer < LAST * bench.model.architecture.num_layers] or list(layers)
    return {layer: _shortfall(harmful, harmless, layer, bench) for layer in early}


def _shortfall(harmful: Inputs, harmless: Inputs, layer: int, bench: Workbench) -> float:
    pivot, others = bench.pivot, [language for language in harmful if language != bench.pivot]

    def inputs(recorded: Inputs, language: str) -> torch.Tensor:
        return recorded[language][layer].to(torch.float64)

    direction = inputs(harmful, pivot).mean(0) - inputs(harmless, pivot).mean(0)
    size = direction.norm()
    if not float(size) > 0:
        return 0.0
    along = {
        name: (inputs(harmful, name) @ (direction / size), inputs(harmless, name) @ (direction / size))
        for name in harmful
    }
    spread = torch.stack([part.var() for part in along[pivot]]).mean().sqrt()
    gaps = {name: part[0].mean() - part[1].mean() for name, part in along.items()}
    short = torch.stack([gaps[pivot] - gaps[name] for name in others]).mean()
    return float(short / spread) if float(spread) > 0 else 0.0


def searched(layers: int) -> dict[str, object]:
    """What a search varies by default: middle layers, and what decides how strong an edit is.

    Layers go from a third to 85 % of the depth: there refusals sit in the models that were looked at.

    Args:
        layers: Number of layers of the model.
    """
    first = layers // 3
    middle = list(range(first, max(first + 1, math.ceil(0.85 * layers))))
    return {
        "layers": {"among": middle, "most": min(3, len(middle))},
        "target_gain": {"low": 0.75, "high": 3.0},
        "cap": {"choices": [0.01, 0.1, 0.5]},
        "absolute": {"choices": [False, True]},
        "utility_weight": {"low": 0.1, "high": 10.0, "log": True},
    }
