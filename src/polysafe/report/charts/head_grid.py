"""The map of heads: a grid of layers and heads, coloured by score, the chosen ones outlined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup

from polysafe.findings.data import LayerUnits
from polysafe.report.charts.canvas import MARGIN, WIDTH, Canvas

_LEFT, _TOP, _FOOT = 30.0, 15.0, 34.0
_TALLEST, _SHORTEST = 22.0, 4.0
_SHADES = 8
_FAINTEST = 0.06


def shade(score: float, strongest: float) -> tuple[str, float]:
    """Colour and opacity of a score: one of a few shades, so that cells of the same shade are one shape."""
    if strongest <= 0.0 or score == 0.0:
        return "rule", 1.0
    step = round(_SHADES * min(abs(score) / strongest, 1.0)) / _SHADES
    return ("refused" if score > 0 else "unsafe"), _FAINTEST + (1.0 - _FAINTEST) * step


def head_grid(layers: Sequence[LayerUnits], alternative: str) -> Markup:
    """Draws the grid.

    Args:
        layers: One row each, from top to bottom in the order of their indices.
        alternative: What the picture shows, for those who do not see it.
    """
    ordered = sorted(layers, key=lambda layer: layer.layer)
    heads = max(layer.total for layer in ordered)
    across = (WIDTH - _LEFT - MARGIN) / heads
    down = min(max(across, _SHORTEST), _TALLEST)
    canvas = Canvas(_TOP + down * len(ordered) + _FOOT)
    strongest = max((abs(score) for layer in ordered for score in layer.scores), default=0.0)
    gap = 1.0 if across >= 6 else 0.3
    shades: defaultdict[tuple[str, float], list[tuple[float, float, float, float]]] = defaultdict(list)
    chosen = []
    for row, layer in enumerate(ordered):
        for unit in range(layer.total):
            box = (_LEFT + unit * across, _TOP + row * down, across - gap, down - gap)
            shades[shade(layer.scores[unit] if unit < len(layer.scores) else 0.0, strongest)].append(box)
            if unit in layer.chosen:
                chosen.append(box)
    for (role, opacity), boxes in shades.items():
        canvas.boxes(boxes, role, opacity)
    canvas.boxes(chosen, "ink", outline=1.3 if across >= 8 else 0.9)
    _axes(canvas, ordered, heads, across, down)
    _scale(canvas, strongest)
    return canvas.svg(alternative)


def _axes(canvas: Canvas, layers: Sequence[LayerUnits], heads: int, across: float, down: float) -> None:
    foot = _TOP + down * len(layers)
    canvas.text(0.0, 5.0, "layer \N{DOWNWARDS ARROW}  head \N{RIGHTWARDS ARROW}", "muted", 10.5)
    every = next(step for step in (1, 2, 4, 5, 10, 20, 50, 1000) if down * step >= 12)
    for row, layer in enumerate(layers):
        if row % every == 0:
            canvas.text(_LEFT - 5.0, _TOP + (row + 0.5) * down, str(layer.layer), "muted", 10.5, "right")
    every = next(step for step in (1, 2, 4, 8, 16, 32, 1000) if across * step >= 18)
    for head in range(0, heads, every):
        canvas.text(_LEFT + (head + 0.5) * across, foot + 8.0, str(head), "muted", 10.5, "center")


def _scale(canvas: Canvas, strongest: float) -> None:
    """The shades from the lowest score to the highest."""
    y, width = canvas.height - 10.0, 11.0
    start = _LEFT + 58.0
    for step in range(-_SHADES, _SHADES + 1):
        role, opacity = shade(step / _SHADES, 1.0)
        canvas.boxes([(start + (step + _SHADES) * width, y - 4.0, width - 1.0, 8.0)], role, opacity)
    ends = f"{strongest:.2g}"
    canvas.text(start - 6.0, y, f"\N{MINUS SIGN}{ends}", "muted", 10.5, "right")
    canvas.text(start + (2 * _SHADES + 1) * width + 5.0, y, f"+{ends}", "muted", 10.5)
