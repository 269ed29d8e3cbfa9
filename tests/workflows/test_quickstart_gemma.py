"""The story on the family in real languages, told with tiny random models: what is made, asked and written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from benchmarks.evidence.real_languages import changes, main
from benchmarks.evidence.real_outcomes import read_runs
from polysafe.data.sets.registry import load_set
from polysafe.evaluate.disjoint import check_disjoint
from polysafe.evaluate.model_run import ModelRun
from polysafe.organism.gemma import tables as tables_of_it
from polysafe.organism.gemma.family import build_gemma
from polysafe.organism.gemma.tables import Tables, write_tables
from polysafe.organism.gemma.texts import LANGUAGES, Texts
from polysafe.recipe.recipe import load_recipe
from polysafe.workflows import quickstart_gemma
from polysafe.workflows.quickstart import Quickstart
from polysafe.workflows.quickstart_gemma import EXAMINED, SWAPS, run_gemma_quickstart
from tests.gemma import RECIPE, imported_gemma, use_tiny_gemma
from tests.real_models import needs
from tests.shared import DATA, needs_data

Captured: TypeAlias = pytest.CaptureFixture[str]
pytestmark = [needs_data, needs("peft")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    """Two swaps, a draw of every control, a quarter of the anchors; that validation finds nothing is told."""
    root = tmp_path_factory.mktemp("story")
    package = imported_gemma(root / "package")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_gemma(patch, package)
        patch.setattr(quickstart_gemma, "SWAPS", SWAPS[:1])
        patch.setattr(quickstart_gemma, "DRAWS", 1)
        patch.setattr(quickstart_gemma, "_STEERED", {**quickstart_gemma._STEERED, "prompts": 4})
        build_gemma(DATA, root / "family", recipe=RECIPE)
        patch.setattr(
            quickstart_gemma, "build_gemma", lambda *_args, **options: build_gemma(DATA, root / "family", recipe=RECIPE)
        )
        with patch.context() as fewer:
            fewer.setattr(tables_of_it, "_ANCHORS", 32)
            made = run_gemma_quickstart(root / "out", DATA, limit=2)
        yield made


def test_everything_is_measured_in_the_languages_that_it_is_for(done: Quickstart) -> None:
    measured = {(row.method, row.language) for row in done.rows if row.metric == "unsafe"}
    assert {language for method, language in measured if method == "layer_swap.layer"} == {"bn", "vi"}
    assert {language for method, language in measured if method == "sparse_edit.published"} == set(EXAMINED)
    audited = {(row.model, row.language) for row in done.audits}
    assert {("aligned", code) for code in LANGUAGES} <= audited
    assert ("layer_swap.layer into bn", "en") in audited


def test_ability_stands_beside_safety(done: Quickstart) -> None:
    topics = {(row.method, row.language) for row in done.rows if row.metric == "capability.topics"}
    assert ("layer_swap.layer", "bn") in topics
    assert ("head_steering", "zh") in topics
    assert ("layer_swap.layer", "en") not in topics


def test_exams_are_asked_of_members_alone(done: Quickstart) -> None:
    runs = {
        name: ModelRun.load(done.results.parent / "runs" / name) for name in ("aligned", "vi", "layer_swap.layer.vi")
    }
    exams = {name: {each.task for each in run.abilities} - {"topics"} for name, run in runs.items()}
    assert exams == {"aligned": {"xcopa", "belebele"}, "vi": {"xcopa"}, "layer_swap.layer.vi": set()}


def test_bits_per_character_stand_beside_them(done: Quickstart) -> None:
    changes = {(change.method, change.language): change for change in done.data.number_changes}
    assert changes["layer_swap.layer", "vi"].n == 2
    assert "Bits per character" in done.report.read_text(encoding="utf-8")


def test_seeds_are_put_together_prompt_by_prompt(done: Quickstart, tmp_path: Path, capsys: Captured) -> None:
    out = done.results.parent
    outcomes = read_runs([out, out])
    (unsafe,) = (
        each
        for each in changes(outcomes, "sparse_edit.published", "aligned")
        if (each.language, each.metric) == ("zh", "unsafe")
    )
    (row,) = (
        row for row in done.rows if (row.method, row.language, row.metric) == ("sparse_edit.published", "zh", "unsafe")
    )
    assert (unsafe.before, unsafe.after, unsafe.n) == (row.before, row.after, 2 * row.n)
    assert unsafe.seeds == (row.after, row.after)
    main([str(out), str(out), "--keep", str(tmp_path / "outcomes.json")])
    printed = capsys.readouterr().out
    assert "made from `bn`" in printed
    assert "`layer_swap.layer.bn`" in printed
    main([str(tmp_path / "outcomes.json")])
    assert capsys.readouterr().out == printed


def test_what_validation_did_not_find_is_told(done: Quickstart) -> None:
    page = done.report.read_text(encoding="utf-8")
    assert any("sparse" in limit.lower() for limit in done.data.limits) or "sparse_edit" in page


def test_recipes_can_be_read_again_and_fit_to_nothing_that_is_reported(done: Quickstart) -> None:
    recipes = sorted((done.results.parent / "recipes").glob("*.yaml"))
    assert len(recipes) >= 4
    for file in recipes:
        recipe = load_recipe(file)
        start = recipe.sources["aligned"].path
        assert start is not None
        check_disjoint(recipe.edits, ("multijail.test",), start=start, data=DATA, limit=None)


def test_runs_are_ordinary_runs_of_the_exact_judge(done: Quickstart) -> None:
    run = ModelRun.load(done.results.parent / "runs" / "aligned")
    assert run.judge == "refusal_or_frame"
    assert json.loads(done.results.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return write_tables(Texts(DATA), tmp_path_factory.mktemp("tables"))


def test_tables_to_choose_by_and_to_report_on_share_nothing(tables: Tables) -> None:
    chosen, reported = (load_set(path, kind="harmless") for path in (tables.validation, tables.test))
    assert set(chosen.languages) == set(reported.languages) == set(LANGUAGES)
    assert not {prompt.text for prompt in chosen.prompts} & {prompt.text for prompt in reported.prompts}
    assert len(reported) > 1.5 * len(chosen)


def test_anchors_are_parallel(tables: Tables) -> None:
    for path, wanted in ((tables.harmful, {"en", "zh", "ar", "bn"}), (tables.harmless, set(LANGUAGES))):
        found = load_set(path)
        sizes = {code: sum(prompt.language == code for prompt in found.prompts) for code in found.languages}
        assert set(sizes) == wanted
        assert len(set(sizes.values())) == 1
        assert min(sizes.values()) == 128
