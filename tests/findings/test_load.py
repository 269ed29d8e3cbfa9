from __future__ import annotations

from pathlib import Path

import pytest

from polysafe.data.groupings import grouping
from polysafe.errors import DataError
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.model_run import ModelRun
from polysafe.findings.load import load_report_data
from polysafe.findings.runs import comparison_report
from polysafe.report.html import build_report
from polysafe.stats.rows import save_rows
from tests.findings.test_runs import run
from tests.report.examples import example, rows


def test_an_audit_is_read_from_its_records_and_keeps_its_report(tmp_path: Path) -> None:
    done = run(tmp_path / "m", 12)
    data = load_report_data(tmp_path / "m", pivot="sw")
    assert {gap.pivot for gap in data.audit_gaps} == {"sw"}
    build_report(data, tmp_path / "m")
    assert load_report_data(tmp_path / "m", pivot="sw") == data
    assert ModelRun.load(tmp_path / "m").rates() == done.rates()
    assert run(tmp_path / "m", 12).rates() == done.rates()  # goes on where it stopped, beside the report


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "m", 12)
    (tmp_path / "m" / "records.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="differs from what was written"):
        load_report_data(tmp_path / "m")


def test_a_comparison_is_read_from_what_its_report_left(tmp_path: Path) -> None:
    data = comparison_report([compare_runs(run(tmp_path / "a", 12), run(tmp_path / "b", 3), "soup")])
    build_report(data, tmp_path / "out")
    assert load_report_data(tmp_path / "out") == data
    regrouped = load_report_data(tmp_path / "out", groups=grouping("soteria"))
    assert regrouped.tiers == {"en": "pivot", "bn": "low"}
    assert regrouped.meta["Language groups"]["in no group"] == "sw"


def test_a_whole_report_comes_back(tmp_path: Path) -> None:
    build_report(example(), tmp_path)
    assert load_report_data(tmp_path) == example()


def test_rows_alone_make_a_report_that_says_so(tmp_path: Path) -> None:
    save_rows(tmp_path / "results.json", rows(unsafe=0.5))
    data = load_report_data(tmp_path)
    assert data.rows == rows(unsafe=0.5)
    assert "Only rows were there" in data.limits[0]


@pytest.mark.hostile("report")
def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds nothing that a report can be made of"):
        load_report_data(tmp_path)
