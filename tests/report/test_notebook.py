from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

import pytest

import polysafe
from polysafe.errors import DataError, OutputError, PolysafeError
from polysafe.evaluate.compare import compare_runs
from polysafe.findings.runs import comparison_report
from polysafe.findings.verdict import judge
from polysafe.report.html import build_report
from polysafe.report.notebook import Run
from tests.findings.test_runs import run
from tests.report.examples import example


@pytest.fixture
def compared(tmp_path: Path) -> Run:
    data = comparison_report([compare_runs(run(tmp_path / "a", 12), run(tmp_path / "b", 3), "soup")])
    build_report(data, tmp_path / "out")
    return polysafe.Run.load(tmp_path / "out")


def test_tables_hold_the_rows_that_are_asked_for(compared: Run) -> None:
    assert list(compared.table()) == [asdict(row) for row in compared.rows]
    table = compared.table(metric="unsafe", language="sw")
    (row,) = table
    assert len(table) == 1
    assert (row["before"], row["after"], row["n"]) == (0.8, 0.2, 30)
    assert compared.table(method="soup", metric="unsafe").columns[:3] == ("method", "language", "metric")


def test_what_is_not_there_is_said_with_what_is(compared: Run) -> None:
    with pytest.raises(DataError, match="no rows with metric 'unsave'") as caught:
        compared.table(metric="unsave")
    assert "over_refusal" in str(caught.value)
    with pytest.raises(DataError, match="no unsafe rates to draw") as caught:
        compared.plot_gap("ties")
    assert "methods: soup" in str(caught.value)


def test_a_table_is_text_and_html(compared: Run) -> None:
    table = compared.table(metric="unsafe", language="sw")
    header, rule, line = str(table).splitlines()
    assert header.split()[:5] == ["method", "language", "metric", "before", "after"]
    assert set(rule) == {"─", " "}
    assert line.split()[:5] == ["soup", "sw", "unsafe", "0.8", "0.2"]
    root = ET.fromstring(table._repr_html_())
    assert [cell.text for cell in root.iter("td")][:5] == ["soup", "sw", "unsafe", "0.8", "0.2"]


def test_tables_become_frames_where_the_libraries_are(compared: Run) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = compared.table(metric="unsafe").to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.set_index("language").loc["sw", "after"] == 0.2


def test_a_missing_library_is_named(compared: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(PolysafeError, match=f"pip install {name}"):
            getattr(compared.table(), f"to_{name}")()


def test_a_plot_is_a_picture_of_its_own(compared: Run, tmp_path: Path) -> None:
    plot = compared.plot_gap()
    root = ET.fromstring(plot._repr_svg_())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("role")) == ("340", "img")
    assert "Swahili (sw): +40.0 \N{RIGHTWARDS ARROW} +10.0" in (root.get("aria-label") or "")
    dark = plot.svg[plot.svg.index("<style>") : plot.svg.index("</style>")]
    assert "prefers-color-scheme: dark" in dark
    assert dark.count("!important") == dark.count("[style*=")
    assert "var(" not in plot.svg
    assert "http" not in plot.svg.replace("http://www.w3.org/2000/svg", "")
    saved = plot.save(tmp_path / "gap.svg")
    assert saved.read_text() == plot.svg
    with pytest.raises(OutputError, match="cannot be written"):
        plot.save(tmp_path / "none" / "gap.svg")


def test_the_audited_model_is_drawn_where_nothing_was_edited(tmp_path: Path) -> None:
    run(tmp_path / "m", 12)
    audited = Run.load(tmp_path / "m")
    assert "Swahili (sw): +40.0 points" in audited.plot_gap().svg
    alone = Run.load(tmp_path / "m", pivot="xx").plot_gap()
    assert "harmful requests" in alone.heading
    assert "unsafe 80" in alone.svg
    assert {row["model"] for row in audited.table(language="sw")} == {"m"}
    assert next(iter(audited.table(method="m", metric="unsafe")))["rate"] == 0.4
    assert audited.rows == ()


def test_summary_and_report(compared: Run, tmp_path: Path) -> None:
    assert compared.summary().startswith(f"{judge(compared.data).kind.label}. Model soup lowered")
    assert compared.report() == tmp_path / "out" / "report" / "index.html"
    assert "over_refusal" in Run(tmp_path, example()).table(metric="over_refusal")._repr_html_()
