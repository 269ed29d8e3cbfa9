"""What an edit touched: how much of the model, which neurons or heads, and what languages share of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from polysafe.findings import names
from polysafe.findings.data import LayerUnits, ReportData, Touched
from polysafe.findings.summary import main_and_other_methods
from polysafe.report.charts.canvas import MARGIN, WIDTH, Canvas
from polysafe.report.charts.figure import Figure
from polysafe.report.charts.head_grid import head_grid
from polysafe.report.charts.heatmap import HeatCell, HeatMap
from polysafe.report.tables import Cell, Group, Table
from polysafe.text.readable import NOTHING, percent, shorten

_LISTED = 12


@dataclass(frozen=True)
class TouchedGroup:
    """The charts of one edit.

    Attributes:
        heading: Its method and target.
        figures: Units per layer, or the map of heads.
        overlap: What languages share of the choice, or None.
        shown: Whether it is open from the start: it belongs to the methods that the report is about.
    """

    heading: str
    figures: tuple[Figure, ...]
    overlap: HeatMap | None
    shown: bool


def touched_table(data: ReportData, methods: Container[str]) -> Table | None:
    """Sizes and hashes of the edits of some methods; None where there are none."""
    groups = []
    for method in dict.fromkeys(touched.method for touched in data.touched if touched.method in methods):
        rows = tuple(_size_row(data, touched) for touched in data.touched if touched.method == method)
        groups.append(Group(names.method_name(method), "", rows))
    columns = ("For", "Weights changed", "Tensors changed", "Edit file", "Chosen", "SHA-256 of the edit")
    return Table("What every edit touched", columns, tuple(groups)) if groups else None


def _size_row(data: ReportData, touched: Touched) -> tuple[Cell, ...]:
    chosen, total = _counts(touched.layers)
    share = touched.weights / touched.weights_total if touched.weights_total else None
    return (
        Cell(_target(data, touched.target)),
        Cell(_fine_percent(share), (f"{touched.weights:,} of {touched.weights_total:,}",)),
        Cell(f"{touched.tensors:,}", (f"of {touched.tensors_total:,}",)),
        Cell(size(touched.edit_bytes), (f"{touched.edit_bytes:,} bytes",)),
        Cell(f"{chosen:,} {touched.unit}" if total else NOTHING, (f"of {total:,}",) if total else ()),
        Cell(shorten(touched.edit_sha256, 17)),
    )


def _counts(layers: Sequence[LayerUnits]) -> tuple[int, int]:
    return sum(len(layer.chosen) for layer in layers), sum(layer.total for layer in layers)


def _target(data: ReportData, target: str) -> str:
    return "all languages" if target == "all" else names.language_name(target, data.languages)


def _fine_percent(share: float | None) -> str:
    """A share of weights, which is often far below one percent."""
    return f"{100 * share:.2g}\N{NARROW NO-BREAK SPACE}%" if share and share < 0.01 else percent(share)


def size(count: int) -> str:
    """A number of bytes in the unit that people use."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} bytes" if unit == "bytes" else f"{value:.3g} {unit}"


def touched_groups(data: ReportData) -> list[TouchedGroup]:
    """The charts of every edit that has any, those that the report is about first."""
    main, others = main_and_other_methods(data)
    rank = {method: place for place, method in enumerate((*main, *others))}
    ordered = sorted(data.touched, key=lambda touched: rank.get(touched.method, len(rank)))
    groups = [
        TouchedGroup(
            heading=f"{names.method_name(touched.method)}, {_target(data, touched.target)}",
            figures=tuple(_figures(touched)),
            overlap=_overlap(data, touched),
            shown=touched.method not in others,
        )
        for touched in ordered
    ]
    return [group for group in groups if group.figures or group.overlap]


def _figures(touched: Touched) -> list[Figure]:
    if not touched.layers:
        return []
    if any(layer.scores for layer in touched.layers):
        return [_head_figure(touched)]
    modules = dict.fromkeys(layer.module for layer in touched.layers)
    return [_unit_figure(touched, module, len(modules) > 1) for module in modules]


def _head_figure(touched: Touched) -> Figure:
    chosen, total = _counts(touched.layers)
    best = sorted(
        ((layer.scores[unit], layer.layer, unit) for layer in touched.layers for unit in layer.chosen if layer.scores),
        reverse=True,
    )[:3]
    told = "; ".join(f"layer {layer} {_one(touched.unit)} {unit}: {_score(score)}" for score, layer, unit in best)
    highest = f" The highest scores among them: {told}." if told else ""
    return Figure(
        heading=f"{touched.unit.capitalize()} and their effects",
        caption=f"One row per layer, one cell per {_one(touched.unit)}: blue raises what was scored, orange lowers it, "
        f"the darker the more. Outlined: the {chosen:,} of {total:,} that the edit steers.{highest}",
        chart=head_grid(
            touched.layers,
            f"{chosen:,} of {total:,} {touched.unit} in {len(touched.layers)} layers are chosen.{highest}",
        ),
        table=_unit_table(touched, touched.layers),
    )


def _unit_figure(touched: Touched, module: str | None, several: bool) -> Figure:
    layers = sorted((layer for layer in touched.layers if layer.module == module), key=lambda layer: layer.layer)
    chosen, total = _counts(layers)
    where = f" in {module}" if several and module else ""
    told = "; ".join(f"layer {layer.layer}: {len(layer.chosen)} of {layer.total}" for layer in layers)
    return Figure(
        heading=f"{touched.unit.capitalize()} per layer{where}",
        caption=f"{chosen:,} of {total:,} {touched.unit} of the edited layers are changed. Every layer without a bar, "
        "drawn or not, is left as it was.",
        chart=_bars(layers, f"{touched.unit.capitalize()} changed per layer{where}. {told}."),
        table=_unit_table(touched, layers),
    )


def _one(unit: str) -> str:
    return unit.removesuffix("s")


def _score(score: float) -> str:
    return f"{score:+.3g}".replace("-", "\N{MINUS SIGN}")


def _unit_table(touched: Touched, layers: Sequence[LayerUnits]) -> Table:
    scored = any(layer.scores for layer in layers)
    rows = tuple(
        (
            Cell(f"layer {layer.layer}" + (f", {layer.module}" if layer.module else "")),
            Cell(f"{len(layer.chosen):,}", (f"of {layer.total:,}",)),
            *((Cell(_score(max(layer.scores)) if layer.scores else NOTHING),) if scored else ()),
            Cell(_listed(layer)),
        )
        for layer in layers
    )
    columns = ("Layer", "Chosen", *(("Highest score",) if scored else ()), "Which")
    return Table(f"{touched.unit.capitalize()} by layer", columns, (Group("", "", rows),))


def _listed(layer: LayerUnits) -> str:
    first = ", ".join(map(str, layer.chosen[:_LISTED]))
    more = len(layer.chosen) - _LISTED
    return f"{first} and {more:,} more" if more > 0 else first or NOTHING


def _overlap(data: ReportData, touched: Touched) -> HeatMap | None:
    if not touched.overlap:
        return None
    codes = names.in_order((*touched.overlap, *(c for row in touched.overlap.values() for c in row)), data.tiers)
    return HeatMap(
        heading="What languages share",
        caption=f"Jaccard index of the {touched.unit} that would be chosen for either language alone, from 0 (none in "
        f"common) to 1 (the same). {_by_chance(touched)}",
        corner="Language",
        columns=tuple(names.language_name(code, data.languages) for code in codes),
        rows=tuple(
            (names.language_name(one, data.languages), tuple(_shared(touched, one, other) for other in codes))
            for one in codes
        ),
    )


def _shared(touched: Touched, one: str, other: str) -> HeatCell | None:
    found = touched.overlap.get(one, {}).get(other, touched.overlap.get(other, {}).get(one))
    if found is None:
        found = 1.0 if one == other else None
    if found is None:
        return None
    chance = touched.chance.get(one, {}).get(other, touched.chance.get(other, {}).get(one))
    note = f"chance {chance.expected:.2f} ({chance.low:.2f}\N{EN DASH}{chance.high:.2f})" if chance else ""
    return HeatCell(f"{found:.2f}", note, found, "good")


def _by_chance(touched: Touched) -> str:
    if not touched.chance:
        return "What chance would give is not known: this edit does not say how many units each language has."
    return (
        f"Below it what as many {touched.unit} drawn at random in every layer and projection would give: the mean, and "
        "the range of 95 % of draws (hypergeometric)."
    )


_HEIGHT, _FOOT, _TOP = 120.0, 20.0, 18.0
_LEFT = 30.0


def _bars(layers: Sequence[LayerUnits], alternative: str) -> Markup:
    """One bar per layer, from layer 0 to the last one named."""
    canvas = Canvas(_TOP + _HEIGHT + _FOOT)
    counts = {layer.layer: len(layer.chosen) for layer in layers}
    columns, most = max(counts) + 1, max(1, *counts.values())
    width = (WIDTH - _LEFT - MARGIN) / columns
    foot = _TOP + _HEIGHT
    for share in (0.0, 1.0):
        y = foot - share * _HEIGHT
        canvas.line([_LEFT, WIDTH - MARGIN], [y, y], "rule", 0.8, depth=0)
        canvas.text(_LEFT - 5.0, y, f"{share * most:,.0f}", "muted", 10.5, "right")
    gap = 0.0 if width < 4 else 1.5
    canvas.boxes(
        [
            (_LEFT + layer * width + gap / 2, foot - _HEIGHT * count / most, width - gap, _HEIGHT * count / most)
            for layer, count in counts.items()
        ],
        "refused",
    )
    canvas.text(_LEFT, 6.0, "changed", "muted", 10.5)
    every = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if width * step >= 18)
    for layer in range(0, columns, every):
        canvas.text(_LEFT + (layer + 0.5) * width, foot + 11.0, str(layer), "muted", 10.5, "center")
    return canvas.svg(alternative)
