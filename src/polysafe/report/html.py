"""The report as one self-contained HTML file without any script."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.checkpoint.atomic import write_bytes_atomic
from polysafe.errors import OutputError
from polysafe.report.data import ReportData

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(data: ReportData, directory: Path) -> Path:
    """Writes the page, and beside it the data from which it can be built again.

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
    from polysafe.report import tables, view
    from polysafe.report.summary import main_and_other_methods
    from polysafe.report.verdict import judge

    main, others = main_and_other_methods(data)
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            data=data,
            verdict=judge(data),
            tiles=view.tiles(data),
            gap=view.gap_figure(data),
            repairs=view.repair_figures(data, main),
            other_repairs=view.repair_figures(data, others),
            comparison=view.comparison(data),
            tables=[
                ("Safety", tables.safety_table(data, main), tables.safety_table(data, others)),
                ("Ability", tables.ability_table(data, main), tables.ability_table(data, others)),
            ],
            maps=view.map_groups(data),
            changes=view.change_groups(data),
            limits=list(view.limits(data)),
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from polysafe.report.text import LEVEL, MAX_TEXT, clip, language_tag, visible

    def show(value: object) -> object:
        """Every value on the page passes here: what is not markup of our own becomes bounded, visible text."""
        return value if isinstance(value, Markup) else visible(clip(str(value), MAX_TEXT))

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["level"] = LEVEL
    environment.filters["clip"] = clip
    environment.filters["lang"] = language_tag
    return environment
