"""The report as one self-contained HTML file without any script."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.errors import OutputError
from polysafe.files.atomic import write_bytes_atomic
from polysafe.findings.data import ReportData
from polysafe.report.spreadsheet import save_tables
from polysafe.text.templates import templates

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(data: ReportData, directory: Path) -> Path:
    """Writes the page, and beside it its tables as CSV and the data from which it can be built again.

    Args:
        data: What to show.
        directory: Folder of the results; the report goes to `directory/report/`.

    Returns:
        Path of `directory/report/index.html`.

    Raises:
        OutputError: The folder cannot be made or written to.
    """
    folder = directory / "report"
    page = folder / "index.html"
    content = render(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data.save(folder / "report.json")
        save_tables(data, folder)
        write_bytes_atomic(page, content.encode())
    except OSError as error:
        raise OutputError(
            f"the report cannot be written: {error.strerror}",
            where=folder,
            remedy="Name a folder that is writable and has room.",
        ) from error
    return page


def render(data: ReportData) -> str:
    """The page as text. The same data gives the same text."""
    from polysafe.report.view import page

    return environment().get_template("index.html.j2").render(page(data))


@cache
def environment() -> Environment:
    """Templates of pages: everything is escaped, made visible and bounded."""
    from markupsafe import Markup

    from polysafe.text.readable import LEVEL, MAX_TEXT, clip, language_tag, visible

    def show(value: object) -> object:
        """Every value on the page passes here: what is not markup of our own becomes bounded, visible text."""
        return value if isinstance(value, Markup) else visible(clip(str(value), MAX_TEXT))

    environment = templates(_TEMPLATES, autoescape=True, finalize=show)
    environment.globals["level"] = LEVEL
    environment.filters["clip"] = clip
    environment.filters["lang"] = language_tag
    return environment
