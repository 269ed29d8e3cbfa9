"""A chart of the report as a picture of its own, for notebooks and files.

On the page a chart takes its colours from the style sheet. Alone it has none, so here they are written into it: those
of the light page, and a rule that turns them into those of the dark one where the reader asks for dark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from polysafe.errors import OutputError
from polysafe.files.atomic import write_bytes_atomic
from polysafe.text.readable import clip, one_line

_STYLE = Path(__file__).parent.parent / "templates" / "style.css"
_DARK = re.compile(r"@media (?:screen and )?\(prefers-color-scheme: dark\)\s*\{(.*?)\}", re.DOTALL)
_LIGHT = re.compile(r":root\s*\{(.*?)\}", re.DOTALL)
_COLOUR = re.compile(r"--([\w-]+):\s*(#[0-9a-fA-F]{3,8})\s*;")
_ROLE = re.compile(r"var\(--([\w-]+)\)")
_FONT = "ui-sans-serif, system-ui, sans-serif"


@dataclass(frozen=True)
class Plot:
    """A picture that notebooks show.

    Attributes:
        chart: The chart as an element of the report's page.
        heading: What it is called.
    """

    chart: str
    heading: str

    @property
    def svg(self) -> str:
        """The picture as an SVG document of its own: no script, no reference to anything outside."""
        light, dark = _palettes()
        opening, _, body = str(self.chart).partition(">")
        size = re.search(r'viewBox="0 0 (\S+) (\S+)"', opening)
        assert size is not None
        width, height = size[1], size[2]
        opening = re.sub(r' class="[^"]*"', "", opening).replace(
            "<svg", f'<svg xmlns="http://www.w3.org/2000/svg" class="polysafe-plot" width="{width}" height="{height}"'
        )
        roles = sorted({*_ROLE.findall(body), "paper"})
        background = f'<rect width="{width}" height="{height}" rx="6" style="fill: var(--paper)"/>'
        drawn = _ROLE.sub(lambda found: light[found[1]], background + body)
        return f'{opening} font-family="{_FONT}"><style>{_in_the_dark(roles, light, dark)}</style>{drawn}'

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg

    def save(self, path: Path | str) -> Path:
        """Writes the picture as an SVG file, whole or not at all, and returns its path.

        Raises:
            OutputError: It cannot be written.
        """
        file = Path(path)
        try:
            write_bytes_atomic(file, self.svg.encode())
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror or error}", where=file) from error
        return file

    def __repr__(self) -> str:
        """What it is; the numbers are in `Run.table()`."""
        return f"<Plot: {one_line(clip(self.heading))}>"


@cache
def _palettes() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Role -> colour, of the light and of the dark page, from the page's own style sheet."""
    style = _STYLE.read_text(encoding="utf-8")
    light, dark = _LIGHT.search(style), _DARK.search(style)
    assert light is not None
    assert dark is not None
    bright = dict(_COLOUR.findall(light[1]))
    return bright, bright | dict(_COLOUR.findall(dark[1]))


def _in_the_dark(roles: list[str], light: Mapping[str, str], dark: Mapping[str, str]) -> str:
    """Rules that give what has a colour of the light page that of the dark one; roles of one colour share it."""
    rules = [
        f'.polysafe-plot [style*="{what}: {light[role]}"]{{{what}:{dark[role]}!important}}'
        for role in roles
        for what in ("fill", "stroke")
    ]
    return f"@media (prefers-color-scheme: dark){{{''.join(rules)}}}"
