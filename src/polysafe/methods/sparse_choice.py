"""Which layers and which gain a sparse edit takes: by a heuristic on anchors, or by comparing edited models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from polysafe.errors import EditError
from polysafe.methods.candidates import Candidates, choose_layers
from polysafe.methods.sparse_solve import Inputs, Workbench
from polysafe.methods.validation import Judging, Trial
from polysafe.probe.model import edited

if TYPE_CHECKING:
    from polysafe.methods.sparse_edit import SparseEdit

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
