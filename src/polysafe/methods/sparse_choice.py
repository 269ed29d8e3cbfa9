"""Which layers and which gain a sparse edit takes: by a heuristic on anchors, or by comparing edited models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polysafe.errors import EditError
from polysafe.methods.sparse_solve import Workbench
from polysafe.methods.validation import Judging, Trial, choose_layers
from polysafe.probe.model import edited

if TYPE_CHECKING:
    from polysafe.methods.sparse_edit import SparseEdit


def setting(layers: Sequence[int], gain: float) -> dict[str, Any]:
    """A candidate, option by option."""
    return {"layers": list(layers), "gain": gain}


def preference(trial: Trial) -> tuple[float, int, float]:
    """The smallest shortfall; of equals, the fewest layers, then the smallest gain."""
    return trial.shortfall, len(trial.setting["layers"]), trial.setting["gain"]


def try_candidates(
    options: SparseEdit, bench: Workbench, layers: Sequence[int], gains: Sequence[float], judging: Judging
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
        return [attempt(tuple(layers), gain) for gain in gains]
    trials = choose_layers(layers, gains, options.max_layers, attempt)
    if all(trial.problem for trial in trials):
        raise EditError(trials[0].problem, where=options.model, remedy="lower `tau_mag` and `tau_stat`")
    return trials


def shortlist(ranking: Mapping[int, float], most: int | None) -> list[int]:
    """The layers of highest score, ascending; of equals, the lower ones."""
    return sorted(sorted(ranking, key=lambda layer: -ranking[layer])[:most])


def separation(bench: Workbench, layers: Sequence[int]) -> dict[int, float]:
    """TODO."""
    return {layer: bench.separation(layer) for layer in layers}
