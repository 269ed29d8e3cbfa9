"""A surface for inline SVG, drawn with matplotlib.

Its unit is a CSS pixel, with y growing downwards. Colours are roles that the page's style sheet resolves, so one
drawing serves light, dark and print; text stays text, in the page's own font. The same data gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from polysafe.text.readable import MAX_TEXT, clip, visible

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

Align = Literal["left", "center", "right"]

WIDTH = 340.0
"""Width of a chart in CSS pixels: that of a phone."""
MARGIN = 8.0

ROLES = ("ink", "muted", "rule", "unsafe", "refused", "neither", "before", "paper")
"""What colours stand for; the style sheet has a variable of each name."""


class Canvas:
    """An empty surface.

    Args:
        height: In CSS pixels.
        width: In CSS pixels.
    """

    def __init__(self, height: float, width: float = WIDTH) -> None:
        from matplotlib.figure import Figure
        from matplotlib.transforms import Affine2D

        self.width, self.height = width, height
        # Not in axes: making and drawing them, although nothing of them is seen, takes half of the time.
        self._figure: Figure = Figure(figsize=(width / 72, height / 72))
        self._place = Affine2D().scale(1 / 72, -1 / 72).translate(0, height / 72) + self._figure.dpi_scale_trans
        self._texts: list[str] = []

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        role: str,
        width: float,
        *,
        opacity: float = 1.0,
        depth: int = 2,
        dashes: tuple[float, tuple[float, float]] | None = None,
    ) -> None:
        """Joins points by straight lines; a point that is NaN starts anew."""
        from matplotlib.lines import Line2D

        drawn = Line2D(
            list(xs),
            list(ys),
            color=_colour(role),
            linewidth=width,
            alpha=opacity,
            zorder=depth,
            linestyle="solid" if dashes is None else dashes,
            solid_capstyle="butt",
        )
        self._add(drawn)

    def boxes(
        self,
        corners: Sequence[tuple[float, float, float, float]],
        role: str,
        opacity: float = 1.0,
        outline: float | None = None,
    ) -> None:
        """Boxes (left, top, width, height) of one colour, as one shape: filled, or outlined in the given width."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        loops = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)] for x, y, w, h in corners if w > 0 and h > 0]
        if not loops:
            return
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(loops)
        path = Path([point for loop in loops for point in loop], codes)
        look: dict[str, object] = {"facecolor": _colour(role), "linewidth": 0}
        if outline is not None:
            look = {"facecolor": "none", "edgecolor": _colour(role), "linewidth": outline, "joinstyle": "miter"}
        patch = PathPatch(path, alpha=opacity, zorder=1 if outline is None else 4, **look)
        self._add(patch)

    def frame(self, x: float, y: float, width: float, height: float, role: str, thickness: float = 1.5) -> None:
        """An empty box."""
        from matplotlib.patches import Rectangle

        shape = Rectangle((x, y), width, height, fill=False, edgecolor=_colour(role), linewidth=thickness, zorder=4)
        self._add(shape)

    def circle(self, x: float, y: float, role: str, *, hollow: bool = False, radius: float = 5.0) -> None:
        """A dot."""
        from matplotlib.patches import Circle

        fill = _colour("paper" if hollow else role)
        shape = Circle((x, y), radius, facecolor=fill, edgecolor=_colour(role), linewidth=2.0, zorder=3)
        self._add(shape)

    def _add(self, artist: Artist) -> None:
        artist.set_transform(self._place)
        self._figure.add_artist(artist)

    def text(
        self, x: float, y: float, text: str, role: str, size: float, align: Align = "left", *, bold: bool = False
    ) -> None:
        """One line of text, centred on `y`."""
        from matplotlib.text import Text

        # matplotlib would read $…$ as mathematics and warn about scripts that its font lacks. It only ever sees
        # the number of a text; the text itself is put in, escaped, when the drawing is embedded.
        place = f"text{len(self._texts)}"
        self._texts.append(text)
        drawn = Text(
            x,
            y,
            place,
            color=_colour(role),
            fontsize=size,
            horizontalalignment=align,
            verticalalignment="center_baseline",
            fontweight="bold" if bold else "normal",
        )
        self._add(drawn)

    def svg(self, alternative: str, *, kind: str = "chart") -> Markup:
        """The drawing as an element of the page.

        Args:
            alternative: What the picture shows, for those who do not see it.
            kind: Class of the element.
        """
        import matplotlib as mpl

        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "polysafe", "path.simplify": False}):
            self._figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        opening = (
            f'<svg class="{kind}" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{escape(visible(clip(alternative, MAX_TEXT)))}">'
        )
        return _embed(buffer.getvalue(), opening, self._texts)


def _colour(role: str) -> str:
    """A stand-in colour that names a role; `_embed` turns it into the style sheet's variable."""
    return f"#0a0b{ROLES.index(role):02x}"


def _embed(svg: str, opening: str, texts: Sequence[str]) -> Markup:
    """Turns a stand-alone SVG file into an element of the page, without ids, fonts and styles of its own."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<defs>.*?</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[^"]*"| transform="rotate\(-0 [^"]*"|font-family: [^;]*; ', "", body)
    body = re.sub(r"#0a0b([0-9a-f]{2})", lambda found: f"var(--{ROLES[int(found[1], 16)]})", body)
    body = re.sub(r">text(\d+)<", lambda found: f">{escape(visible(texts[int(found[1])]))}<", body)
    return Markup(opening + re.sub(r"\s*\n\s*", "\n", body))  # noqa: S704  every text in it was escaped above
