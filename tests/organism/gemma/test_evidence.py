"""What the pages say of the family in real languages is what was measured, and models are told apart by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evidence.real_languages import Change, against_controls, changes, page
from benchmarks.evidence.real_outcomes import Outcomes, read
from benchmarks.tables.chosen import joined, read_file, tables

ROOT = Path(__file__).parents[3]
FILE = ROOT / "benchmarks" / "results" / "real_languages.json"
RUNS = ROOT / "docs" / "results" / "real_languages_runs.md"


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    return read(FILE)


def change(outcomes: Outcomes, model: str, start: str, language: str, metric: str = "unsafe") -> Change:
    (found,) = (each for each in changes(outcomes, model, start) if (each.language, each.metric) == (language, metric))
    return found


def test_the_tables_are_those_of_the_outcomes(outcomes: Outcomes) -> None:
    assert RUNS.read_text(encoding="utf-8").endswith("\n\n".join(page(outcomes)) + "\n")


def test_the_page_on_searching_has_the_tables_of_what_was_chosen() -> None:
    found = read_file(ROOT / "benchmarks" / "results" / "choosing_real.json")
    assert "\n\n".join(tables(found)) in (ROOT / "docs" / "results" / "search.md").read_text(encoding="utf-8")


def test_a_search_that_takes_nothing_leaves_the_model_as_it_is() -> None:
    found = read_file(ROOT / "benchmarks" / "results" / "choosing_real.json")
    rows = {name: row for name, row in found.choices[0].items() if "chosen" in row}
    assert rows["tpe.head_steering"]["chosen"] is None
    assert found.values(0, "tpe.head_steering") == found.outcomes.seeds[0]["aligned"]
    assert found.values(0, "tpe.sparse_edit+head_steering") is None  # not searched


def test_of_nine_searches_one_takes_something() -> None:
    """What the pages say of choosing on the family in real languages."""
    found = read_file(ROOT / "benchmarks" / "results" / "choosing_real.json")
    for arm in ("head_steering", "sparse_edit", "band_swap.bn"):
        taken = [seed[f"tpe.{arm}"]["chosen"] is not None for seed in found.choices]
        assert taken == [arm == "band_swap.bn", False, False], arm


def test_a_language_expert_loses_refusals(outcomes: Outcomes) -> None:
    for language in ("bn", "vi"):
        lost = change(outcomes, language, "aligned", language)
        assert lost.low > 0.2
        assert lost.p_value < 0.001


def test_validation_took_a_sparse_edit_on_one_seed_of_three(outcomes: Outcomes) -> None:
    """What the pages say first of the edit that worked: it was not found on the fresh seeds."""
    assert list(outcomes.names) == [0, 1, 2]
    assert ["sparse_edit" in seed for seed in outcomes.seeds] == [True, False, False]
    assert ["head_steering" in seed for seed in outcomes.seeds] == [True, False, True]
    published = [change(outcomes, "sparse_edit.published", "aligned", code) for code in ("zh", "vi", "bn", "sw")]
    assert all(each.low < 0 < each.high and abs(each.after - each.before) < 0.02 for each in published)
    assert {each.n for each in published} == {450}


def test_no_swap_or_merge_halves_an_expert(outcomes: Outcomes) -> None:
    for language in ("bn", "vi"):
        for name in ("layer_swap.layer", "layer_swap.module", "band_swap", "soup", "task_arithmetic", "ties", "dare"):
            found = change(outcomes, f"{name}.{language}", language, language)
            assert found.after > found.before / 2


def test_a_swap_and_its_random_control_are_told_apart(outcomes: Outcomes) -> None:
    """Random blocks bring more refusals back than the published rule, which gives the last layers to the expert."""
    found = {
        (each.start, each.language): (each, p_value)
        for each, p_value in against_controls(outcomes)
        if each.metric == "unsafe"
    }
    for rule in ("layer", "module"):
        for draw in (0, 1):
            each, p_value = found[f"control.layer_swap.{rule}.random.{draw}.bn", "bn"]
            assert each.model == f"layer_swap.{rule}.bn"
            assert each.low > 0
            assert p_value < 0.001


def test_the_best_edit_is_told_apart_from_its_start_and_from_random_units(outcomes: Outcomes) -> None:
    """Chosen on validation it halves Bengali; against random units of its layers it is better in one language only."""
    halved = change(outcomes, "sparse_edit", "aligned", "bn")
    assert halved.after < halved.before / 2
    assert change(outcomes, "sparse_edit", "aligned", "zh").high < -0.2
    assert change(outcomes, "sparse_edit", "aligned", "bn", "over_refusal").after <= 0.12
    control = "control.sparse_edit.random.0"
    found = {
        each.language: (each, p_value)
        for each, p_value in against_controls(outcomes)
        if (each.start, each.metric) == (control, "unsafe")
    }
    assert found["zh"][0].high < 0
    assert found["bn"][0].low > 0
    assert max(found[code][1] for code in ("zh", "bn")) < 0.05


def test_head_steering_and_its_random_controls_are_not(outcomes: Outcomes) -> None:
    """It lowers what is unsafe, and so do random heads: the most that the page may say."""
    for language in ("zh", "vi", "bn"):
        assert change(outcomes, "head_steering", "aligned", language).high < 0
    against = [
        p_value
        for each, p_value in against_controls(outcomes)
        if each.metric == "unsafe" and each.start.startswith("control.head_steering.random")
    ]
    assert len(against) == 4 * 4  # kinds of controls times languages
    assert min(against) > 0.05


def test_what_is_found_in_several_sessions_is_put_together() -> None:
    found = read_file(ROOT / "benchmarks" / "results" / "choosing_real.json")
    (first, *_), (name, *_) = found.choices, found.outcomes.names
    half = dict(list(first.items())[: len(first) // 2])
    begun = replace(found, outcomes=Outcomes([{}], [name], {}), choices=[half])
    assert joined(begun, found) == joined(found, begun) == found
