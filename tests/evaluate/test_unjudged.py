"""An audit without a judge: what can be said is said, and that unsafe answers were not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.evaluate.audited import Audit
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.compare import compare_runs, run_notes
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.numbers import Numbers, file_of
from polysafe.evaluate.odds import HARMFUL, HARMLESS
from polysafe.findings.outcome import Kind
from polysafe.findings.runs import audit_report, comparison_report
from polysafe.findings.verdict import judge
from polysafe.judge.verdict import Label
from polysafe.report.html import build_report
from polysafe.report.screen import as_text, first_screen
from polysafe.workflows.audit import audit
from tests.byte_level import save_byte_model

FILE = file_of("refusal_odds")
ROWS = 6
TABLE = "id,category,question,language\n" + "".join(
    f"{row},kind {row % 2},{text} {row},{code}\n"
    for code, text in (("en", "how do I bake bread"), ("sw", "ninawezaje kuoka mkate"), ("qac", "vo ta le"))
    for row in range(ROWS)
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "xthreatbench").mkdir()
    (folder / "xthreatbench" / "prompts.csv").write_text(TABLE)
    (folder / "xstest").mkdir()
    lines = [f"{row},may I toast bread {row},homonyms,safe,bread,\n" for row in range(ROWS)]
    (folder / "xstest" / "xstest_prompts.csv").write_text("id,prompt,type,label,focus,note\n" + "".join(lines))
    return folder


def asked(tmp_path: Path, data: Path, seed: int = 0, **options: Any) -> Audit:
    folder = tmp_path / f"model {seed}"
    model = folder if folder.exists() else save_byte_model(folder, seed)
    given: dict[str, Any] = {
        "safety": ["xthreatbench"],
        "over_refusal": ["xstest.harmless"],
        "template": "raw",
        "max_tokens": 4,
        "data": data,
        "output": tmp_path / f"run {seed}",
        "cache": tmp_path / "cache.sqlite",
    }
    return audit(model, **{**given, **options})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Audit:
    return asked(tmp_path_factory.mktemp("base"), data)


def test_nothing_is_said_of_unsafe_answers(base: Audit) -> None:
    metrics = {row.metric for row in base.rates}
    assert metrics >= {"refused", "invalid", "wrong_language", "over_refusal"}
    assert not metrics & {"unsafe", "safe", "unparsed", "harmless_unparsed"}
    assert not base.run.judged
    assert {record.verdict.label for record in base.run.records} <= {
        Label.INVALID,
        Label.UNJUDGED,
        Label.WRONG_LANGUAGE,
    }
    assert {gap.metric for gap in base.gaps} == {"refused", "over_refusal"} - (
        {"over_refusal"} if len({r.language for r in base.rates if r.metric == "over_refusal"}) < 2 else set()
    )


def test_log_odds_are_measured_where_openings_are_known(base: Audit) -> None:
    rows = {(row.language, row.metric): row for row in base.numbers}
    assert set(rows) == {("en", HARMFUL), ("sw", HARMFUL), ("en", HARMLESS)}
    assert all(row.n == ROWS and row.low is not None for row in rows.values())
    (gap,) = base.number_gaps
    assert (gap.language, gap.pivot, gap.n) == ("sw", "en", ROWS)
    assert any("no openings are known in qac" in note for note in base.notes)


def test_a_set_is_asked_in_the_languages_that_it_has(base: Audit, data: Path, tmp_path: Path) -> None:
    assert "xstest.harmless has no prompts in sw, qac; not measured there" in set(run_notes(base.run))
    one = asked(tmp_path, data, languages=("en", "sw"))
    assert one.run.languages == ("en", "sw")
    with pytest.raises(DataError, match="no set has prompts in 'bn'"):
        asked(tmp_path, data, languages=("en", "bn"), output=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_report_says_so_first(base: Audit, tmp_path: Path) -> None:
    shown = audit_report(base)
    verdict = judge(shown)
    assert verdict.kind is Kind.NO_JUDGE
    assert verdict.sentence.startswith("Whether answers are unsafe was not measured")
    text = as_text(first_screen(shown))
    assert "Judged by nobody." in text
    assert "Cut off by the token budget" in text
    assert f"Few prompts: some rates rest on n = {ROWS}" in text
    page = build_report(shown, tmp_path).read_text()
    assert "not measured" in page
    assert "Error of the phrase rule" in page
    assert 'id="odds"' in page


def test_a_second_audit_asks_nothing_and_finds_the_same(base: Audit, data: Path, tmp_path: Path) -> None:
    again = asked(base.run.folder.parent, data, output=base.run.folder)
    assert again.numbers == base.numbers
    assert again.rates == base.rates
    assert ModelRun.load(base.run.folder).numbers == base.run.numbers


def test_answers_alone(data: Path, tmp_path: Path) -> None:
    found = asked(tmp_path, data, answers_only=True)
    assert found.run.numbers == ()
    assert not (found.run.folder / FILE).exists()
    assert judge(audit_report(found)).kind is Kind.NO_JUDGE
    whole = asked(tmp_path, data)  # the same run goes on from there
    assert whole.run.folder == found.run.folder
    assert whole.numbers


def test_two_models_are_compared_in_their_log_odds(base: Audit, data: Path, tmp_path: Path) -> None:
    other = asked(tmp_path, data, seed=1)
    found = compare_runs(base.run, other.run)
    changes = {(change.language, change.metric): change for change in found.numbers}
    assert set(changes) == {("en", HARMFUL), ("sw", HARMFUL), ("en", HARMLESS)}
    assert all(change.difference != 0 for change in changes.values())
    shown = comparison_report([found])
    assert judge(shown).kind is Kind.NO_JUDGE
    assert "Refusal log-odds moved by" in judge(shown).sentence
    assert "Refusal log-odds, before" in as_text(first_screen(shown))
    build_report(shown, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"judge": "organism", "answers_only": True}, "answers alone are asked for"),
        ({"calibration": Path("error.json")}, "calibration needs a judge"),
        ({"translate": "folder"}, "translator needs a judge"),
        ({"judge_key": "KEY"}, "key of a judge needs a judge"),
    ],
)
def test_what_belongs_to_a_judge_needs_one(options: dict[str, Any], words: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        asked(tmp_path, data, **options)


def test_a_base_model_without_a_template_is_told_how_to_be_asked(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--template raw"):
        asked(tmp_path, data, template="chat")
    with pytest.raises(RecipeError, match="a server puts messages into the chat template itself"):
        audit("name@http://127.0.0.1:9/v1", safety=["xthreatbench"], template="raw", data=data, output=tmp_path / "r")


def test_log_odds_of_another_kind_are_not_written_over(base: Audit, data: Path, tmp_path: Path) -> None:
    found = asked(tmp_path, data)
    path = found.run.folder / FILE
    content = json.loads(path.read_text())
    content["protocol"]["template"] = "chat"
    path.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="measured otherwise: template differ"):
        asked(tmp_path, data)


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        '{"polysafe": "refusal_odds", "schema": 2}',
        '{"polysafe": "refusal_odds", "schema": 1}',
        '{"polysafe": "refusal_odds", "schema": 1, "values": [["en", "m", {"a": null}]], "protocol": {}, "model": {}}',
        '{"polysafe":"refusal_odds","schema":1,"values":[["en","m",{"a":NaN}]],"protocol":{},"model":{},"notes":[]}',
        '{"polysafe": "refusal_odds", "schema": 1, "values": [1], "protocol": {}, "model": {}, "notes": []}',
        '{"polysafe":"refusal_odds","schema":1,"values":[["en","m",{"a":true}]],"protocol":{},"model":{},"notes":[]}',
        '{"polysafe":"refusal_odds","schema":1,"values":[["en","m",{"a":"1"}]],"protocol":{},"model":{},"notes":[]}',
        f'{{"polysafe":"refusal_odds","schema":1,"values":[["en","m",{{"a":{10**400}}}]],"protocol":{{}},"model":{{}},"notes":[]}}',
    ],
)
def test_a_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(DataError, match=FILE.replace(".", r"\.")):
        Numbers.load(tmp_path, "refusal_odds")


def test_what_was_measured_before_an_interruption_is_not_asked_again(data: Path, tmp_path: Path) -> None:
    counted: list[int] = []

    class StoppedError(Exception):
        pass

    def stop(what: str, done: int, _total: int) -> None:
        if what == "refusal log-odds":
            counted.append(done)
            if done == 5:
                raise StoppedError

    with pytest.raises(StoppedError):
        asked(tmp_path, data, progress=stop)
    with Cache(tmp_path / "cache.sqlite"):
        pass
    asked(tmp_path, data, progress=lambda what, done, _: counted.append(done) if what == "refusal log-odds" else None)
    assert counted[:6] == [0, 1, 2, 3, 4, 5]
    assert counted[6] == 5
