"""Results in a notebook: a folder as an object with tables, pictures and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from polysafe.data.groupings import Grouping
from polysafe.errors import DataError, PolysafeError
from polysafe.findings.data import ReportData
from polysafe.findings.load import load_report_data
from polysafe.report.charts.plot import Plot
from polysafe.stats.rows import RateRow, Row
from polysafe.text.readable import MAX_LABEL, clip, visible


@dataclass(frozen=True)
class Run:
    """What an audit, an evaluation, a comparison or a quickstart found.

    Attributes:
        folder: Where it is.
        data: Everything that its report shows.
    """

    folder: Path
    data: ReportData

    @classmethod
    def load(cls, folder: Path | str, *, pivot: str = "en", groups: Grouping | None = None) -> Self:
        """Reads a folder that `polysafe audit`, `evaluate`, `compare` or `quickstart` wrote.

        Args:
            folder: The folder.
            pivot: Language that the others are compared with, for an audit; the other folders know theirs.
            groups: Whose resource levels languages are shown in (see `polysafe.data.groupings`).

        Raises:
            DataError: It is none of these, or was changed since.
        """
        return cls(Path(folder), load_report_data(folder, pivot=pivot, groups=groups))

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every metric of every method in every language, before and after; empty for an audit."""
        return self.data.rows

    def table(self, metric: str | None = None, language: str | None = None, method: str | None = None) -> ResultTable:
        """The rows of one metric, language or method, or all of them; for an audit the rates of the model.

        Raises:
            DataError: There are no such rows.
        """
        wanted = {"metric": metric, "language": language, "method" if self.rows else "model": method}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        rows: tuple[Row | RateRow, ...] = self.rows or self.data.audits
        for name, value in chosen.items():
            rows = _where(rows, name, value)
        return ResultTable(tuple(asdict(row) for row in rows))

    def plot_gap(self, method: str | None = None) -> Plot:
        """The gap of every language to the pivot: before and after a method, or of the audited model.

        Where the pivot was not asked, unsafe answers by language are drawn instead.

        Args:
            method: The method; by default the one that the verdict is about.

        Raises:
            DataError: There are no unsafe rates of it.
        """
        from polysafe.findings.summary import headline_method, methods_of
        from polysafe.report.charts.gap_figures import gap_change_figure, model_gap_figure
        from polysafe.report.sections.unsafe import answers_figure, repair_figures

        chosen = method or headline_method(self.data)
        if chosen is not None:
            figures = [gap_change_figure(self.data, chosen), *repair_figures(self.data, [chosen])]
        else:
            model = next((row.model for row in self.data.audits), "")
            figures = [model_gap_figure(self.data, model), answers_figure(self.data)]
        drawn = next((figure for figure in figures if figure is not None), None)
        if drawn is None:
            raise DataError(
                "there are no unsafe rates to draw",
                where=f"{self.folder}, {chosen}",
                remedy=f"methods: {', '.join(methods_of(self.data.rows)) or 'none'}",
            )
        return Plot(drawn.chart, drawn.heading)

    def summary(self) -> str:
        """The first screen of the report as text."""
        from polysafe.report.screen import as_text, first_screen

        return as_text(first_screen(self.data))

    def report(self) -> Path:
        """Builds `report/index.html` in the folder anew and returns its path.

        Raises:
            OutputError: It cannot be written.
        """
        from polysafe.report.html import build_report

        return build_report(self.data, self.folder)


def _where(rows: tuple[Row | RateRow, ...], name: str, value: str) -> tuple[Row | RateRow, ...]:
    found = tuple(row for row in rows if getattr(row, name) == value)
    if not found:
        there = dict.fromkeys(str(getattr(row, name)) for row in rows)
        raise DataError(f"there are no rows with {name} {value!r}", remedy=f"there are: {', '.join(there) or 'none'}")
    return found


@dataclass(frozen=True)
class ResultTable:
    """Rows of results; a notebook shows them as a table, `print` as text, and iteration gives them one by one.

    Attributes:
        rows: The rows, with their values as they are in `results.json`.
    """

    rows: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Row after row."""
        return iter(self.rows)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.rows[0]) if self.rows else ()

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
            PolysafeError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise PolysafeError("this needs the library pandas", remedy="pip install pandas") from error
        return DataFrame([dict(row) for row in self.rows])

    def to_polars(self) -> Any:
        """The rows as a `polars.DataFrame`.

        Raises:
            PolysafeError: polars is not installed.
        """
        try:
            from polars import DataFrame
        except ImportError as error:
            raise PolysafeError("this needs the library polars", remedy="pip install polars") from error
        return DataFrame([dict(row) for row in self.rows], infer_schema_length=None)

    def __str__(self) -> str:
        """The table as lines of text."""
        from polysafe.report.screen import aligned

        columns = [column if self._is_text(column) else f">{column}" for column in self.columns]
        return aligned(columns, ([_shown(row[column]) for column in self.columns] for row in self.rows))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table as HTML; every value in it is escaped, and notebooks typeset none of them as mathematics."""
        from markupsafe import Markup

        head = Markup().join(Markup("<th>{}</th>").format(_shown(column)) for column in self.columns)
        lines = (
            Markup().join(Markup("<td>{}</td>").format(_shown(row[column])) for column in self.columns)
            for row in self.rows
        )
        body = Markup("\n").join(Markup("<tr>{}</tr>").format(line) for line in lines)
        table = Markup(
            '<table class="tex2jax_ignore mathjax_ignore"><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table>'
        )
        return str(table.format(head, body))

    def _is_text(self, column: str) -> bool:
        return all(isinstance(row[column], str) for row in self.rows)


def _shown(value: object) -> str:
    """A value for people: numbers to three digits, texts bounded and inert."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else visible(clip(str(value), MAX_LABEL))
