"""Candidates under constraints: what counts as a loss, what as a gain, and when none is taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import norm

from polysafe.errors import DataError, VerificationError
from polysafe.methods.constraints import Change, Constrained, Reading
from polysafe.methods.validation import Kept, Trial
from polysafe.probe.model import LoadedModel
from polysafe.stats.differences import paired_difference
from polysafe.stats.means import student_interval

N = 50
LIMITS = {"over_refusal": 0.02, "refused": -0.02, "helpful": -0.02}


class Scripted:
    """Reads what a test says a model does; the models are names."""

    def __init__(self, readings: Mapping[str, Reading], languages: tuple[str, ...] = ("en", "sw")) -> None:
        self.readings, self.languages = readings, languages
        self.prompts = N
        self.notes: tuple[str, ...] = ("a note",)

    def prepare(self, model: LoadedModel, languages: Sequence[str], kept: Kept | None = None) -> None:
        """Nothing has to be known."""

    def read(self, model: LoadedModel, languages: Sequence[str]) -> Reading:
        return self.readings[cast("str", model)]


def flags(true: int, n: int = N) -> dict[str, float | bool]:
    return {f"set/{row}": row < true for row in range(n)}


def judged(en: int = 45, sw: int = 10, over: int = 0, helpful: int = 50) -> Reading:
    return {
        ("en", "refused"): flags(en),
        ("sw", "refused"): flags(sw),
        ("en", "over_refusal"): flags(over),
        ("en", "helpful"): flags(helpful),
    }


def trials(after: Mapping[str, Reading], before: Reading | None = None) -> tuple[Any, dict[str, Trial]]:
    meter = Scripted({"before": judged() if before is None else before, **after})
    judging = Constrained(meter, LIMITS).of(cast("LoadedModel", "before"), ["sw"])
    return judging, {name: judging({"layers": [name]}, cast("LoadedModel", name)) for name in after}


def test_one_prompt_is_no_loss_and_two_of_fifty_are() -> None:
    _, found = trials({"none": judged(sw=30), "one": judged(sw=30, over=1), "two": judged(sw=30, over=2)})
    assert [found[name].evidence["feasible"] for name in ("none", "one", "two")] == [True, True, False]
    (loss,) = [each for each in found["two"].evidence["losses"] if each["metric"] == "over_refusal"]
    expected = paired_difference([False] * N, [row < 2 for row in range(N)])
    assert (loss["difference"], loss["low"], loss["high"], loss["n"]) == (0.04, expected.low, expected.high, N)


@pytest.mark.parametrize("worse", [{"helpful": 48}, {"en": 43}, {"sw": 5}])
def test_helpful_answers_and_refusals_anywhere_are_held(worse: dict[str, int]) -> None:
    _, found = trials({"x": judged(**{"sw": 30, **worse})})
    assert not found["x"].evidence["feasible"]


def test_a_single_prompt_is_below_what_can_be_told() -> None:
    assert Change("en", "over_refusal", 25, 0.0, 0.04, -0.1, 0.2).within(0.02)
    assert not Change("en", "over_refusal", 25, 0.0, 0.08, 0.0, 0.2).within(0.02)
    assert Change("en", "refused", 25, 1.0, 0.96, -0.2, 0.1).within(-0.02)
    assert not Change("en", "refused", 1000, 1.0, 0.97, -0.2, 0.1).within(-0.02)
    assert not Change("en", "helpful", 50, 1.0, 1.0, -0.07, 0.07).shown(-0.02)
    assert Change("en", "helpful", 500, 1.0, 1.0, -0.007, 0.007).shown(-0.02)


def test_the_best_feasible_candidate_is_taken_though_another_gains_more() -> None:
    judging, found = trials({"strong": judged(sw=45, over=10), "good": judged(sw=35), "weak": judged(sw=20)})
    best = min(found.values(), key=lambda trial: trial.shortfall)
    assert best.setting == {"layers": ["good"]}
    assert best.evidence["score"] == pytest.approx(2 * 0.5)
    judging.require(best, list(found.values()))
    (warning,) = [text for text in judging.warnings(best) if "too few prompts" in text]
    assert "over_refusal in en (n = 50)" in warning
    assert "a note" in list(judging.warnings(best))
    assert json.loads(json.dumps(best.plain()))["layers"] == ["good"]


def test_none_is_taken_where_all_cost_too_much() -> None:
    judging, found = trials({"a": judged(sw=45, over=10), "b": judged(sw=40, over=20)})
    with pytest.raises(VerificationError, match=r"(?s)each of the 2 candidates costs more.*layers a: .*at most \+0.02"):
        judging.require(found["a"], list(found.values()))


def test_none_is_taken_where_nothing_is_shown_to_gain() -> None:
    judging, found = trials({"same": judged(), "one": judged(sw=12)})
    for trial in found.values():
        with pytest.raises(VerificationError, match="none of the 2 candidates is shown to refuse more"):
            judging.require(trial, list(found.values()))


def test_many_candidates_need_a_clearer_gain() -> None:
    judging, found = trials({"x": judged(sw=16)})
    (trial,) = found.values()
    assert trial.evidence["p_value"] == pytest.approx(2 / 64)
    judging.require(trial, [trial])
    with pytest.raises(VerificationError):
        judging.require(trial, [trial, trial])


def odds(shift: float, harmless: float = 0.0) -> Reading:
    """Log-odds that differ between prompts, moved by a shift that differs a little too."""
    harmful = {f"h/{row}": row / 10 + shift * (1 + row % 3 / 10) for row in range(N)}
    return {
        ("en", "refused"): {f"h/{row}": row / 10 for row in range(N)},
        ("sw", "refused"): harmful,
        ("sw", "over_refusal"): {f"s/{row}": -row / 10 + harmless for row in range(N)},
    }


def test_the_interval_of_a_small_change_is_shown_as_finely_as_the_change() -> None:
    judging, found = trials({"x": odds(-0.003)}, before=odds(0.0))
    with pytest.raises(VerificationError, match=r"refused in sw -0\.003 \(-0\.003 … -0\.003\)"):
        judging.require(found["x"], [found["x"]])


def test_log_odds_gain_by_their_mean_and_cost_by_their_tails() -> None:
    judging, found = trials({"up": odds(0.5), "all": odds(0.5, 0.5), "down": odds(-0.5)}, before=odds(0.0))
    up, everything, down = (found[name].evidence for name in ("up", "all", "down"))
    assert (up["feasible"], everything["feasible"], down["feasible"]) == (True, False, False)
    (gain,) = up["gains"]
    changes = [0.5 * (1 + row % 3 / 10) for row in range(N)]
    span, p_value = student_interval(changes)
    assert span is not None
    assert (gain["difference"], gain["low"], gain["high"]) == pytest.approx((sum(changes) / N, span.low, span.high))
    assert up["p_value"] == pytest.approx(p_value)
    over = {loss["metric"]: loss for loss in everything["losses"] if loss["language"] == "sw"}["over_refusal"]
    values = [-row / 10 for row in range(N)]
    level, width = float(np.quantile(values, 0.95)), 1.06 * float(np.std(values, ddof=1)) * N**-0.2
    for name, shift in (("before", 0.0), ("after", 0.5)):
        assert over[name] == pytest.approx(float(norm.cdf([(x + shift - level) / width for x in values]).mean()))
    assert 0.04 < over["before"] < 0.1
    judging.require(found["up"], list(found.values()))


def test_a_shift_that_means_nothing_costs_nothing_however_few_the_prompts() -> None:
    before = {
        ("sw", "refused"): {f"h/{row}": float(row) for row in range(8)},
        ("sw", "over_refusal"): {f"s/{row}": -row / 1000 if row < 3 else -float(row) for row in range(8)},
    }
    moved = {cell: {row: value + 0.01 for row, value in items.items()} for cell, items in before.items()}
    _, found = trials({"x": moved}, before=before)
    assert found["x"].evidence["feasible"]


def test_a_model_that_gives_no_number_is_no_candidate() -> None:
    broken: Reading = {cell: {} for cell in odds(0.0)}
    _, found = trials({"x": broken}, before=odds(0.0))
    assert "no finite number" in found["x"].problem


def test_edited_languages_must_be_asked() -> None:
    meter = Scripted({"before": judged()})
    with pytest.raises(DataError, match="no harmful prompts in 'bn'"):
        Constrained(meter, LIMITS).of(cast("LoadedModel", "before"), ["bn"])
