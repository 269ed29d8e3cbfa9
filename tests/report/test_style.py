"""Contrast of the page, worked out from its own colours (WCAG 2.2, success criteria 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import polysafe.report
from polysafe.report.charts.canvas import ROLES

TEMPLATES = Path(polysafe.report.__file__).parent / "templates"
CSS = (TEMPLATES / "style.css").read_text(encoding="utf-8")
Colour = tuple[float, float, float]

TEXT = [
    *((text, ground) for text in ("ink", "muted") for ground in ("page", "paper", "soft")),
    *((text, "paper") for text in ("good", "mixed", "bad")),
    *(("on", ground) for ground in ("safety", "language", "blend", "other")),
]
GRAPHICS = [
    *((role, ground) for role in ROLES if role not in ("rule", "paper") for ground in ("paper", "page")),
    *((role, "page") for role in ("safety", "language", "blend")),
    ("mixed", "page"),
]  # fmt: skip


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):\s*([^;]+);", block))


LIGHT = variables(CSS[: CSS.index("@media")])
DARK = LIGHT | variables(CSS[CSS.index("@media") : CSS.index("* {")])
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def colour(theme: dict[str, str], name: str) -> Colour:
    if not theme[name].startswith("#"):
        red, green, blue = (int(part) / 255 for part in theme[name].split())
        return red, green, blue
    digits = theme[name].lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with an opacity of `share` over `other`."""
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(one, other, strict=True))
    return red, green, blue


def luminance(values: Colour) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_itself() -> None:
    assert contrast((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) == pytest.approx(21.0)
    grey = 0x76 / 255
    assert contrast((grey, grey, grey), (1.0, 1.0, 1.0)) == pytest.approx(4.54, abs=0.01)


@THEMES
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_can_be_read(theme: dict[str, str], text: str, ground: str) -> None:
    assert contrast(colour(theme, text), colour(theme, ground)) >= 4.5


@THEMES
@pytest.mark.parametrize(("role", "ground"), GRAPHICS)
def test_graphics_can_be_told_from_their_ground(theme: dict[str, str], role: str, ground: str) -> None:
    assert contrast(colour(theme, role), colour(theme, ground)) >= 3.0


@THEMES
@pytest.mark.parametrize("heat", ["heat-bad", "heat-good"])
def test_numbers_can_be_read_on_every_shade_of_a_heat_map(theme: dict[str, str], heat: str) -> None:
    full = float(theme["full"])
    for step in range(11):
        ground = mixed(colour(theme, heat), colour(theme, "paper"), full * step / 10)
        assert contrast(colour(theme, "ink"), ground) >= 4.5


@THEMES
@pytest.mark.parametrize("heat", ["heat-bad", "heat-good"])
def test_more_heat_is_darker_or_lighter_all_the_way(theme: dict[str, str], heat: str) -> None:
    """In grey print, and to eyes that tell no hues apart, a heat map is a scale of lightness."""
    full = float(theme["full"])
    shades = [luminance(mixed(colour(theme, heat), colour(theme, "paper"), full * step / 10)) for step in range(11)]
    assert shades in (sorted(shades), sorted(shades, reverse=True))
    assert (max(shades) + 0.05) / (min(shades) + 0.05) > 2.0


@THEMES
def test_the_warning_can_be_read(theme: dict[str, str]) -> None:
    ground = mixed(colour(theme, "tint"), colour(theme, "page"), 0.12)
    assert "rgb(var(--tint) / .12)" in CSS
    assert contrast(colour(theme, "ink"), ground) >= 4.5


@THEMES
def test_every_colour_of_a_drawing_has_a_variable(theme: dict[str, str]) -> None:
    assert set(ROLES) <= set(theme)


def test_no_colour_is_written_where_a_variable_belongs() -> None:
    rules = CSS[CSS.index("* {") :] + (TEMPLATES / "figures.css").read_text(encoding="utf-8")
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b(?=\s*[;,)])", rules)


def test_every_variable_that_is_used_is_set() -> None:
    every = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.rglob("*") if path.is_file())
    used = set(re.findall(r"var\(--([\w-]+)", every))
    assert used <= set(re.findall(r"--([\w-]+):", every))
