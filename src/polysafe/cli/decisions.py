"""How decisions and operations are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from polysafe.cli.console import print_line, print_table
from polysafe.edits.edit import Decision

_STYLES = {"safety": "green", "language": "blue", "blend": "yellow"}
_BORDERLINE = "≈"


def print_operations(operations: Mapping[str, int]) -> None:
    """Print the number of tensors by what happens to them."""
    print_table(("what happens", ">tensors"), list(operations.items()), title="tensors")


def print_decisions(label: str, decisions: Sequence[Decision]) -> None:
    """Print one line per layer, its blocks side by side, and one per block outside the layers."""
    if not decisions:
        return
    columns = list(dict.fromkeys(decision.module for decision in decisions if decision.layer is not None))
    lines: dict[str, dict[str | None, Decision]] = {}
    for decision in decisions:
        line = decision.block if decision.layer is None else f"layer {decision.layer}"
        lines.setdefault(line, {})[decision.module if decision.layer is not None else None] = decision
    inside = [(name, *_cells(line, columns)) for name, line in lines.items() if name.startswith("layer ")]
    outside = [(name, *_cells(line, [None])) for name, line in lines.items() if not name.startswith("layer ")]
    headings = [text for column in columns for text in (column or "whole layer", ">score")]
    if inside:
        print_table(("", *headings), inside, title=label)
    if outside:
        print_table(("", "outside the layers", ">score"), outside)
    if any(decision.borderline for decision in decisions):
        print_line(f"{_BORDERLINE} borderline: rounding of the inputs could have turned this decision")


def _cells(line: Mapping[str | None, Decision], columns: Sequence[str | None]) -> list[Text]:
    return [cell for column in columns for cell in _cell(line.get(column))]


def _cell(decision: Decision | None) -> tuple[Text, Text]:
    if decision is None:
        return Text(""), Text("")
    style = _STYLES.get(decision.choice, "")
    share = f" {decision.safety_weight:.2f}" if 0 < decision.safety_weight < 1 else ""
    score = "" if decision.score is None else f"{decision.score:+.4f}"
    return Text(f"{decision.choice}{share}", style=style), Text(
        f"{score} {_BORDERLINE if decision.borderline else ' '}"
    )
