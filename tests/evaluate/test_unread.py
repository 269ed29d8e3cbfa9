"""Answers without a verdict widen what is possible, and too many of them leave no rate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polysafe.evaluate.ability import Ability
from polysafe.evaluate.audited import read_audit
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.metrics import BROKEN
from polysafe.evaluate.model_run import RECORDS, RUN, ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.evaluate.unread import Unread
from polysafe.findings.outcome import Kind
from polysafe.findings.runs import audit_report, comparison_report
from polysafe.findings.verdict import judge
from polysafe.judge.calibrate import Calibration, Counts
from polysafe.judge.verdict import NO_REPLY, Exchange, Label, Verdict
from polysafe.report.screen import first_screen
from polysafe.stats.intervals import wilson
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set

ROWS = 40


def run(folder: Path, unsafe: int, silent: int, *, quiet: str = "sw", name: str = "m") -> ModelRun:
    """Of 40 answers in each language the first are unsafe; in one language the last have no verdict."""

    def answer(text: str) -> str:
        row, language = int(text.split()[1]), text.rsplit(maxsplit=1)[-1]
        if language == quiet and row >= ROWS - silent:
            return "<unparsed>"
        return "<unsafe>" if row < unsafe else "<safe>"

    generator = FakeGenerator(answer, identity={"weights": f"{unsafe:032d}{silent:032d}"})
    return evaluate_model(generator, [prompt_set(rows=ROWS)], FakeJudge(), output=folder, name=name)


@pytest.mark.fault(21, "missing verdicts widen the interval")
def test_a_few_widen_the_interval_by_all_that_they_may_be(tmp_path: Path) -> None:
    found = run(tmp_path / "a", 4, 4)
    rates = {(row.language, row.metric): row for row in found.rates()}
    low, high = wilson(4, ROWS), wilson(8, ROWS)
    assert low is not None
    assert high is not None
    assert (rates["sw", "unsafe"].rate, rates["sw", "unsafe"].interval) == (0.1, (low.low, high.high))
    assert rates["en", "unsafe"].interval == low
    assert rates["sw", "unparsed"].interval == low
    assert (found.unread.count, found.unread.withheld, found.unread.problem) == (4, (), "")


def test_too_many_leave_no_rate_no_gap_and_no_word_about_the_model(tmp_path: Path) -> None:
    found = read_audit(run(tmp_path / "a", 4, 5))
    rates = {(row.language, row.metric): row for row in found.rates}
    assert all(rates["sw", metric].rate is None for metric in ("unsafe", "safe", "refused", *BROKEN[:2]))
    assert rates["sw", "unparsed"].rate == 5 / ROWS
    assert rates["en", "unsafe"].rate == 0.1
    assert not [gap for gap in found.gaps if gap.language == "sw"]
    assert found.run.unread.withheld == ("sw",)
    assert found.run.unread.remedy.startswith("judge the answers by another judge")  # asking again would not help
    told = judge(audit_report(found))
    assert told.kind is Kind.UNJUDGED
    assert "The judge fake-judge gave no verdict on 5 of 80 answers" in told.sentence
    assert "possible shares of unsafe ones: " in told.evidence


@pytest.mark.parametrize("quiet", ["en", "sw"])
def test_nothing_is_zero_where_nobody_judged(tmp_path: Path, quiet: str) -> None:
    data = audit_report(read_audit(run(tmp_path / "a", 4, ROWS, quiet=quiet)))
    screen = first_screen(data)
    assert screen.label == "The judge did not answer"
    (line,) = (row for row in screen.tables[0].rows if f"({quiet})" in row[0])
    assert "%" not in line[1]


def test_a_comparison_of_which_one_side_was_not_judged_tests_nothing(tmp_path: Path) -> None:
    before, after = run(tmp_path / "a", 20, 0), run(tmp_path / "b", 0, ROWS)
    comparison = compare_runs(before, after, "soup")
    rows = {(row.language, row.metric): row for row in comparison.rows}
    row = rows["sw", "unsafe"]
    assert (row.before, row.after, row.p_value, row.p_adjusted) == (0.5, None, None, None)
    assert row.after_interval is not None
    assert row.after_interval.high == 1.0
    other = rows["en", "unsafe"]
    assert other.p_adjusted == other.p_value  # the only language of its family
    assert all(
        each.after is None
        for rows in comparison.categories.values()
        for each in rows
        if (each.language, each.metric) == ("sw", "unsafe")
    )
    told = judge(comparison_report([comparison]))
    assert told.kind is Kind.UNJUDGED
    assert told.sentence.startswith("The judge fake-judge gave too few verdicts: what Model soup changed")
    assert any("gave no verdict on 40 of 80 answers" in note for note in comparison.notes)


class Dying(FakeJudge):
    """Gives no reply after some verdicts."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def verdict(self, exchange: Exchange) -> Verdict:
        self.left -= 1
        if self.left >= 0:
            return super().verdict(exchange)
        return Verdict(exchange.prompt.id, Label.UNPARSED, None, self.name, "gone", {"unread": NO_REPLY})


def test_a_finished_run_is_completed_in_its_place(tmp_path: Path) -> None:
    def carry_out(judge: FakeJudge, name: str = "run") -> tuple[ModelRun, FakeGenerator]:
        generator = FakeGenerator()
        return evaluate_model(generator, [prompt_set()], judge, output=tmp_path / name), generator

    first, _ = carry_out(Dying(5))
    assert (first.unread.again, first.unread.count) == (7, 7)
    ability = Ability("mgsm", {"en": {"1": True}})
    ability.save(first.folder)
    calibration = Calibration("fake-judge", FakeJudge().identity, {"en": Counts(9, 1, 9, 1)}, "0" * 64)
    keep_calibration(first.folder, calibration)
    (first.folder / "report").mkdir()
    (first.folder / "report" / "index.html").write_text("of what was not judged yet")
    judge = FakeJudge()
    second, asked = carry_out(judge)
    assert asked.asked == []
    assert len(judge.asked) == 7
    assert second.unread.count == 0
    assert (second.abilities, second.calibration) == ((ability,), calibration)
    assert not (second.folder / "report").exists()
    whole, _ = carry_out(FakeJudge(), "whole")
    for name in (RUN, RECORDS):
        assert (second.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("renames", [0, 1])
def test_an_end_while_a_run_is_replaced_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    output = tmp_path / "run"
    ability = Ability("mgsm", {"en": {"1": True}})
    ability.save(evaluate_model(FakeGenerator(), [prompt_set()], Dying(5), output=output).folder)
    rename = os.rename
    done: list[Path] = []

    def dies(source: Path, target: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=output)
    generator, judge = FakeGenerator(), FakeJudge()
    found = evaluate_model(generator, [prompt_set()], judge, output=output)
    assert (generator.asked, judge.asked) == ([], [])
    assert found.unread.count == 0
    assert found.abilities == (ability,)


def test_what_can_be_had_another_time_is_a_problem_however_little_it_is() -> None:
    one = Unread("j", {"no reply": 1}, 1000)
    assert one.problem == "the judge j gave no verdict on 1 of 1000 answers (no reply: 1)"
    assert one.remedy.startswith("run the same command again")
    assert Unread("j", {"no agreement": 1}, 1000).problem == ""
    assert "max_tokens" in Unread("j", {"cut off at 32 tokens": 900}, 1000, ("en",)).remedy
