from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polysafe.data.prompts import PromptSet
from polysafe.errors import DataError, OutputError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.generate.completion import Sampling
from polysafe.stats.rows import load_rows
from polysafe.stats.tests import mcnemar_exact
from tests.evaluate.fakes import IDENTITY, FakeGenerator, FakeJudge, prompt_set


def unsafe_below(limit: int) -> FakeGenerator:
    """Answers unsafely to the first prompts of every language, and runs into the budget in Swahili."""

    def answer(text: str) -> str:
        row, language = int(text.split()[1]), text.rsplit(maxsplit=1)[-1]
        return ("<unsafe>" if row < limit else "<safe>") + (" cut" if language == "sw" else "")

    return FakeGenerator(answer, identity={"weights": f"{limit:064d}"})


def run(
    folder: Path,
    generator: FakeGenerator,
    *,
    sets: list[PromptSet] | None = None,
    judge: FakeJudge | None = None,
    harmless: list[PromptSet] | None = None,
) -> ModelRun:
    asked = [prompt_set(rows=10)] if sets is None else sets
    return evaluate_model(
        generator, asked, judge or FakeJudge(), output=folder, over_refusal_sets=harmless or [], name=folder.name
    )


@pytest.fixture
def before(tmp_path: Path) -> ModelRun:
    return run(tmp_path / "before", unsafe_below(8))


def test_rows_are_paired_over_the_same_items(before: ModelRun, tmp_path: Path) -> None:
    comparison = compare_runs(before, run(tmp_path / "after", unsafe_below(2)), "layer_swap.module")
    row = next(row for row in comparison.rows if (row.language, row.metric) == ("sw", "unsafe"))
    assert (row.method, row.before, row.after, row.n) == ("layer_swap.module", 0.8, 0.2, 10)
    assert row.p_value == mcnemar_exact(6, 0)
    assert row.p_adjusted == pytest.approx(2 * mcnemar_exact(6, 0))
    metrics = {row.metric for row in comparison.rows}
    assert metrics == {"unsafe", "safe", "invalid", "wrong_language", "unparsed", "refused"}


def test_categories_have_rows_of_their_own(before: ModelRun, tmp_path: Path) -> None:
    comparison = compare_runs(before, run(tmp_path / "after", unsafe_below(2)))
    rows = {
        name: [r for r in rows if (r.language, r.metric) == ("en", "unsafe")]
        for name, rows in comparison.categories.items()
    }
    assert {name: (row.before, row.after, row.n) for name, (row,) in rows.items()} == {
        "category 0": (0.75, 0.25, 4),
        "category 1": (1.0, 1 / 3, 3),
        "category 2": (2 / 3, 0.0, 3),
    }


def test_truncation_is_reported_per_language_and_model(before: ModelRun, tmp_path: Path) -> None:
    comparison = compare_runs(before, run(tmp_path / "after", unsafe_below(2)))
    assert [(row.model, row.language, row.rate) for row in comparison.truncation] == [
        ("before", "en", 0.0),
        ("before", "sw", 1.0),
        ("after", "en", 0.0),
        ("after", "sw", 1.0),
    ]


def test_over_refusal_is_compared(tmp_path: Path) -> None:
    harmless = [prompt_set("benign", rows=4, kind="harmless")]
    old = run(tmp_path / "before", unsafe_below(9), harmless=harmless)
    new = run(tmp_path / "after", unsafe_below(0), harmless=harmless)
    row = next(r for r in compare_runs(old, new).rows if (r.language, r.metric) == ("en", "over_refusal"))
    assert (row.before, row.after, row.n) == (0.0, 1.0, 4)


def test_folders_can_be_compared_and_results_saved(before: ModelRun, tmp_path: Path) -> None:
    run(tmp_path / "after", unsafe_below(2))
    comparison = compare_runs(tmp_path / "before", str(tmp_path / "after"))
    assert load_rows(comparison.save(tmp_path / "out")) == list(comparison.rows)
    content = json.loads(json.dumps(comparison.to_json()))
    assert content["before"]["name"] == "before"
    assert len(content["rows"]) == len(comparison.rows)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        comparison.save(tmp_path / "file")


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "top_p", "seed"])
def test_other_sampling_is_refused(before: ModelRun, tmp_path: Path, name: str) -> None:
    value = {"max_tokens": 64, "temperature": 1.0, "top_p": 0.9, "seed": 7}[name]
    sampling = Sampling().model_dump() | {name: value}
    other = run(tmp_path / "after", FakeGenerator(identity={"sampling": sampling}))
    with pytest.raises(DataError, match=rf"differ in sampling \({name}\)"):
        compare_runs(before, other)


@pytest.mark.parametrize(
    "asked",
    [
        prompt_set(rows=9),
        prompt_set(rows=10, languages=("en",)),
        prompt_set(rows=10, text=lambda row, language: f"placeholder {row} of {language}"),
        prompt_set("other", rows=10),
    ],
)
def test_other_prompts_are_refused(before: ModelRun, tmp_path: Path, asked: PromptSet) -> None:
    with pytest.raises(DataError, match="differ in their prompts"):
        compare_runs(before, run(tmp_path / "after", unsafe_below(2), sets=[asked]))


def test_other_tokens_are_refused(before: ModelRun, tmp_path: Path) -> None:
    other = FakeGenerator(tokens=lambda text: "0" * 64)
    with pytest.raises(DataError, match="token ids that the models read"):
        compare_runs(before, run(tmp_path / "after", other))
    server = compare_runs(before, run(tmp_path / "server", FakeGenerator(tokens=lambda text: None)))
    assert "which tokens the models read is not known; a server does not tell" in server.notes


def test_another_judge_is_refused(before: ModelRun, tmp_path: Path) -> None:
    strict = FakeJudge(identity={"model": "k"})
    with pytest.raises(DataError, match=r"their judge \(fake-judge and fake-judge: model\)"):
        compare_runs(before, run(tmp_path / "after", unsafe_below(2), judge=strict))


def test_all_differences_are_named_at_once(before: ModelRun, tmp_path: Path) -> None:
    sampling = Sampling(max_tokens=1).model_dump()
    other = run(
        tmp_path / "after",
        FakeGenerator(identity={"sampling": sampling}),
        sets=[prompt_set(rows=2)],
        judge=FakeJudge(identity={"model": "k"}),
    )
    with pytest.raises(DataError, match=r"their prompts .*; sampling .*; their judge"):
        compare_runs(before, other)


def test_another_engine_or_dtype_is_told(before: ModelRun, tmp_path: Path) -> None:
    other = FakeGenerator(identity=IDENTITY | {"dtype": "bfloat16", "engine": "server"})
    notes = compare_runs(before, run(tmp_path / "after", other)).notes
    assert notes == ("the two models were asked with another engine", "the two models were asked with another dtype")


def test_duplicates_and_overlaps_are_told(tmp_path: Path) -> None:
    sets = [
        prompt_set(
            "one", text=lambda row, language: f"placeholder {row // 2} in {language}", overlaps=frozenset({"two"})
        ),
        prompt_set("two"),
    ]
    old, new = (run(tmp_path / name, unsafe_below(limit), sets=sets) for name, limit in (("before", 3), ("after", 1)))
    comparison = compare_runs(old, new)
    assert "one holds prompts of two too; they count twice" in comparison.notes
    assert any(note.startswith("en: 6 prompts have the text of another one") for note in comparison.notes)
    assert comparison.clusters["en", "one/1"] == "one/0"


def test_a_model_that_refuses_nothing_is_compared_with_one_that_does(tmp_path: Path) -> None:
    old = run(tmp_path / "before", FakeGenerator(lambda text: "<unsafe>"))
    new = run(tmp_path / "after", FakeGenerator(lambda text: "<safe>"))
    row = next(r for r in compare_runs(old, new).rows if (r.language, r.metric) == ("en", "refused"))
    assert (row.before, row.after) == (0.0, 1.0)


def with_ability(one: ModelRun, right: dict[str, bool], **protocol: Any) -> ModelRun:
    ability = Ability("mgsm", {"sw": right}, {"shots": 0} | protocol, {}, ("no te",))
    return replace(one, abilities=(ability,))


def test_abilities_are_compared_item_by_item(before: ModelRun, tmp_path: Path) -> None:
    after = run(tmp_path / "after", unsafe_below(2))
    old = with_ability(before, {"a": True, "b": True, "c": False})
    comparison = compare_runs(old, with_ability(after, {"a": True, "b": False, "c": False}))
    row = next(row for row in comparison.rows if row.metric == "capability.mgsm")
    assert (row.language, row.before, row.after, row.n, row.p_value) == ("sw", 2 / 3, 1 / 3, 3, 1.0)
    assert "mgsm: no te" in comparison.notes
    with pytest.raises(DataError, match=r"how the ability mgsm was measured \(shots\)"):
        compare_runs(old, with_ability(after, {"a": True, "b": True, "c": True}, shots=5))
    with pytest.raises(DataError, match="the ability mgsm, which only one of them was asked for"):
        compare_runs(old, after)
    with pytest.raises(DataError, match="items"):
        compare_runs(old, with_ability(after, {"a": True, "b": True}))
