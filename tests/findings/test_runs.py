"""What runs say is what their report shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polysafe.checkpoint.imported import Imported
from polysafe.data.groupings import grouping
from polysafe.data.prompts import PromptSet
from polysafe.errors import DataError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.audited import read_audit
from polysafe.evaluate.compare import Comparison, compare_runs
from polysafe.evaluate.correction import FILE as CALIBRATION
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.findings.data import MAX_CHANGES, ReportData
from polysafe.findings.runs import audit_report, comparison_report
from polysafe.findings.settings import is_toy, language_names, language_tiers
from polysafe.judge.calibrate import Calibration, Counts
from polysafe.report.html import render
from polysafe.report.notebook import Run
from polysafe.report.screen import first_screen
from polysafe.stats.gaps import gap_rows
from polysafe.text.readable import MAX_TEXT
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set

LANGUAGES = ("en", "sw", "bn")


def answers(limit: int, *, extra: str = "") -> Callable[[str], str]:
    """Unsafe to the first prompts, twice as many in Swahili; two answers that no judge can read."""

    def answer(text: str) -> str:
        row, language = int(text.split()[1]), text.rsplit(maxsplit=1)[-1]
        if language == "bn" and row < 2:
            return "<unparsed>"
        return ("<unsafe>" if row < limit * (1 + (language == "sw")) else "<safe>") + extra

    return answer


def run(folder: Path, limit: int, *, rows: int = 30, extra: str = "", **more: Any) -> ModelRun:
    harmless = prompt_set("plain", rows=6, languages=LANGUAGES, kind="harmless")
    weights = {"weights": f"{limit:064d}", "url": "http://localhost:1/v1", "model": "/srv/models/m"}
    return evaluate_model(
        FakeGenerator(answers(limit, extra=extra), identity=weights),
        [more.get("asked") or prompt_set(rows=rows, languages=LANGUAGES)],
        FakeJudge(),
        output=folder,
        over_refusal_sets=[harmless],
        name=folder.name,
        imported=more.get("imported", ()),
    )


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("runs")
    return compare_runs(run(folder / "expert", 12), run(folder / "edited", 3), "layer_swap.module")


@pytest.fixture(scope="module")
def data(comparison: Comparison) -> ReportData:
    return comparison_report([comparison])


def test_rows_rates_and_truncation_are_those_of_the_runs(comparison: Comparison, data: ReportData) -> None:
    assert data.rows == comparison.rows
    assert list(data.audits) == comparison.before.rates()
    assert {(row.model, row.language) for row in data.truncation} == {
        (name, language) for name in ("expert", "layer_swap.module") for language in LANGUAGES
    }


def test_gaps_are_those_of_the_two_runs(comparison: Comparison, data: ReportData) -> None:
    for run_, gaps in (
        (comparison.before, [each.before for each in data.gaps]),
        (comparison.after, [each.after for each in data.gaps]),
    ):
        asked = run_.outcomes.items()
        cells = {cell: items for cell, items in asked if cell[1] in ("unsafe", "over_refusal")}
        del cells["bn", "over_refusal"]  # two of six have no verdict
        assert gaps == gap_rows(run_.name, cells, "en")
        assert gaps == list(read_audit(run_).gaps)
    sw = next(each for each in data.gaps if (each.before.language, each.before.metric) == ("sw", "unsafe"))
    assert [sw.before.difference, sw.after.difference] == pytest.approx([0.4, 0.1])
    assert list(data.audit_gaps) == [each.before for each in data.gaps]


def test_categories_hold_the_unsafe_rows_of_the_comparison(comparison: Comparison, data: ReportData) -> None:
    expected = {
        name: tuple(row for row in rows if row.metric == "unsafe")
        for name, rows in comparison.categories.items()
        if name in data.categories
    }
    assert data.categories == expected
    assert set(data.categories) == {"category 0", "category 1", "category 2"}
    rates = [row.rate for rows in data.audit_categories.values() for row in rows]
    assert rates == [row.before for rows in data.categories.values() for row in rows]


def test_one_category_is_no_category(tmp_path: Path) -> None:
    asked = prompt_set(languages=LANGUAGES)
    same = replace(asked, prompts=tuple(replace(prompt, category=None) for prompt in asked.prompts))
    data = audit_report(read_audit(run(tmp_path / "m", 2, asked=same)))
    assert data.audit_categories == {}


def test_every_changed_prompt_is_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    before = run(tmp_path / "a", 40, rows=40, extra="a" * 5000)
    data = comparison_report([compare_runs(before, run(tmp_path / "b", 0, rows=40), "soup")])
    shown = [each for each in data.changes if (each.language, each.prompts) == ("sw", "trial")]
    (count,) = [each for each in data.change_counts if (each.language, each.prompts) == ("sw", "trial")]
    assert (count.before_verdict, count.after_verdict, count.count, count.prompts) == ("unsafe", "safe", 40, "trial")
    assert len(shown) == MAX_CHANGES
    assert all(len(each.before_answer) <= MAX_TEXT for each in data.changes)
    assert "more characters" in shown[0].before_answer
    assert f"{MAX_CHANGES} of 40 are shown" in " ".join(render(data).split())


def test_what_became_unsafe_comes_first(tmp_path: Path) -> None:
    data = comparison_report([compare_runs(run(tmp_path / "a", 5), run(tmp_path / "b", 15), "soup")])
    assert {each.after_verdict for each in data.changes} == {"unsafe"}


def test_a_refused_harmless_prompt_is_a_change(tmp_path: Path) -> None:
    def folder(name: str, says: str) -> ModelRun:
        asked = prompt_set("plain", kind="harmless")
        generator = FakeGenerator(lambda text: says, identity={"weights": says})
        return evaluate_model(generator, [], FakeJudge(), output=tmp_path / name, over_refusal_sets=[asked], name=name)

    data = comparison_report([compare_runs(folder("a", "<invalid>"), folder("b", "<safe>"), "soup")])
    assert {(each.before_verdict, each.after_verdict) for each in data.changes} == {("invalid", "refused")}


def test_answers_without_a_verdict_and_missing_ability_are_told(data: ReportData) -> None:
    told = " ".join(data.limits)
    for name in ("expert", "edited"):
        assert f"{name}: the judge fake-judge gave no verdict on 4 of 108 answers (no readable verdict: 4)" in told
    assert "Ability was not measured" in told


def test_an_ability_is_no_missing_one(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    run(folder, 2)
    Ability("mgsm", {"en": {"1": True}}, notes=("has no Bengali",)).save(folder)
    data = audit_report(read_audit(ModelRun.load(folder)))
    assert "mgsm: has no Bengali" in data.limits
    assert not any("Ability was not measured" in limit for limit in data.limits)
    assert any(row.metric == "capability.mgsm" for row in data.audits)


def test_an_audit_shows_one_model(comparison: Comparison) -> None:
    data = audit_report(read_audit(comparison.before))
    assert data.rows == ()
    assert list(data.audits) == comparison.before.rates()
    assert data.audit_gaps == read_audit(comparison.before).gaps
    assert data.title == "Audit of expert"
    assert "Audit of expert" in render(data)


def test_many_edits_stand_on_one_page(comparison: Comparison, tmp_path: Path) -> None:
    other = compare_runs(comparison.before, run(tmp_path / "other", 6), "soup")
    data = comparison_report([comparison, other], headline="soup")
    assert data.rows == (*comparison.rows, *other.rows)
    assert list(data.audits) == comparison.before.rates()
    assert {each.method for each in data.gaps} == {"layer_swap.module", "soup"}
    assert {row.method for rows in data.categories.values() for row in rows} == {"layer_swap.module", "soup"}
    assert data.headline == "soup"


def test_hashes_settings_and_licences_are_told_and_places_are_not(comparison: Comparison, data: ReportData) -> None:
    about = comparison.before.about
    assert data.meta["SHA-256 of the models"]["weights, expert"] == f"{12:064d}"
    assert data.meta["Settings"] == {"pivot": "en", "max tokens": 256, "temperature": 0.0, "top p": 1.0, "seed": 0}
    assert data.meta["SHA-256 of the prompt sets"]["trial, harmful"] == about["sets"][0]["sha256"]
    assert data.meta["Prompt sets"]["trial, harmful"] == "90 prompts in 3 languages; licence: CC0-1.0"
    assert data.meta["Judge"]["name"] == "fake-judge"
    assert data.meta["Models"]["model"] == "m"
    text = data.to_json().decode()
    for place in (str(comparison.before.folder.parent), "/srv/models", "localhost"):
        assert place not in text
    assert ReportData.from_json(data.to_json()) == data


def test_weights_that_were_quantised_before_are_told_on_the_first_screen(tmp_path: Path) -> None:
    record = Imported(
        "gguf", "tiny.Q4_1.gguf", "c" * 64, 9, "llama", {"Q4_1": 16, "F32": 5}, "BF16", "tiny", "pack", "1.0"
    )
    runs = [run(tmp_path / name, rows, imported=(record,)) for name, rows in (("expert", 12), ("edited", 3))]
    said = "the weights were quantised (Q4_1) before; dequantised from tiny.Q4_1.gguf of the package pack 1.0"
    audited = audit_report(read_audit(ModelRun.load(runs[0].folder)))
    compared = comparison_report([compare_runs(runs[0], runs[1], "layer_swap.module")])
    for data, models in ((audited, "expert"), (compared, "all models")):
        assert data.meta["Weights of another format"] == {models: said}
        assert data.meta["SHA-256 of the models"]["tiny.Q4_1.gguf, before"] == "c" * 64
        assert f"Of {models}, {said}." in first_screen(data).notes
        assert said in str(render(data))
    other = run(tmp_path / "other", 5)
    mixed = comparison_report([compare_runs(runs[0], other, "layer_swap.module")])
    assert mixed.meta["Weights of another format"] == {"expert": said}
    assert not any("quantised" in note for note in first_screen(audit_report(read_audit(other))).notes)


def test_where_weights_came_from_is_no_part_of_what_a_run_is_known_by(tmp_path: Path) -> None:
    record = Imported("gguf", "tiny.gguf", "c" * 64, 9, "llama", {"Q4_1": 16}, "BF16")
    plain = run(tmp_path / "m", 3)
    content = (plain.folder / "run.json").read_bytes()
    assert b"imported" not in content
    assert run(tmp_path / "m", 3, imported=(record,)).imported == ()
    assert (plain.folder / "run.json").read_bytes() == content
    told = run(tmp_path / "other" / "m", 3, imported=(record,))
    assert told.imported == (record,)
    assert {**told.about, "imported": None} == {**plain.about, "imported": None}
    about = {**told.about, "imported": [{"format": 3}]}
    (told.folder / "run.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="says of its weights"):
        _ = ModelRun.load(told.folder).imported


def test_rates_are_corrected_where_the_judge_was_calibrated(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    judged = run(folder, 6).about["judge"]
    counts = {"en": Counts(90, 10, 95, 5), "sw": Counts(found=5)}
    Calibration(judged["name"], judged["identity"], counts, "0" * 64).save(folder / CALIBRATION)
    data = audit_report(read_audit(ModelRun.load(folder)))
    (error,) = data.judge_errors
    assert (error.language, error.sensitivity, error.unsafe, error.specificity, error.other) == (
        "en",
        0.9,
        100,
        0.95,
        100,
    )
    assert error.sensitivity_low < 0.9 < error.sensitivity_high
    (rate,) = data.corrected
    expected = ModelRun.load(folder).corrected["en"]
    assert (rate.model, rate.language, rate.observed) == ("m", "en", 0.2)
    assert (rate.rate, rate.low, rate.high, rate.n) == (expected.rate, expected.low, expected.high, 30)
    assert "corrected for the judge" in Run.load(folder).summary()


def test_levels_are_those_of_the_source_that_knows_most() -> None:
    source, tiers = language_tiers(("sw", "en", "bn", "xx"), "en")
    assert source is not None
    assert source.name == "multijail"
    assert tiers == {"en": "pivot", "bn": "low", "sw": "low"}
    source, tiers = language_tiers(("en", "te", "bg", "de"), "en")
    assert source is not None
    assert source.name == "soteria"
    assert tiers == {"en": "pivot", "de": "high", "bg": "mid", "te": "low"}
    assert language_tiers(("en", "te"), "en", grouping("multijail")) == (None, {"en": "pivot"})
    assert language_tiers(("xx",), "en") == (None, {})


def test_whose_levels_they_are_is_told(data: ReportData) -> None:
    assert data.tiers == {"en": "pivot", "bn": "low", "sw": "low"}
    assert data.meta["Language groups"]["grouping"] == "multijail"
    assert "2310.06474" in str(data.meta["Language groups"]["source"])


def test_names_of_languages() -> None:
    assert language_names(("sw", "qac"), toy=True) == {"sw": "Swahili", "qac": "Conlang C"}
    assert language_names(("nobody knows this",), toy=False) == {}


def test_the_toy_family_is_known_by_prompts_judge_or_weights(comparison: Comparison, tmp_path: Path) -> None:
    from polysafe.checkpoint.digest import identity_of
    from polysafe.organism.packaged import packaged_family

    assert not is_toy([comparison.before])
    asked: PromptSet = prompt_set("organism")
    assert is_toy([evaluate_model(FakeGenerator(), [asked], FakeJudge(), output=tmp_path / "a")])
    family = packaged_family()
    files = [family.record["members"]["base"]["files"]["model.safetensors"]["sha256"]]
    weights = identity_of(files, json.loads((family.members["base"] / "config.json").read_text()))
    generator = FakeGenerator(identity={"weights": weights})
    toy = evaluate_model(generator, [prompt_set()], FakeJudge(), output=tmp_path / "b")
    assert audit_report(read_audit(toy)).toy
