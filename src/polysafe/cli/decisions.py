"""How decisions and operations are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from polysafe.cli.console import print_line, print_table
from polysafe.edits.edit import Decision

_STYLES = {"safety": "green", "language": "blue", "blend": "yellow"}
_BORDERLINE = "≈"
_OUTCOMES = ("problem", "shortfall", "feasible")
_RANKED = 6


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


def print_trials(evidence: Mapping[str, Any]) -> None:
    """Print what was tried on validation prompts, and how layers rank on the anchors."""
    trials = evidence.get("trials", ())
    if trials:
        chosen = evidence.get("chosen")
        options = list(trials[0])[: next((i for i, key in enumerate(trials[0]) if key in _OUTCOMES), None)]
        rows = [
            (*(_option(trial[key]) for key in options), *_outcome(trial), "taken" if _same(trial, chosen) else "")
            for trial in trials
        ]
        print_table((*options, ">gain", ">p", "costs too much", ""), rows, title="tried on validation prompts")
    elif ranking := evidence.get("ranking"):
        best = sorted(ranking.items(), key=lambda item: -item[1])[:_RANKED]
        print_table(("layer", ">score on the anchors"), [(layer, f"{score:.2f}") for layer, score in best])


def _option(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _outcome(trial: Mapping[str, Any]) -> tuple[str, str, str]:
    if "problem" in trial:
        return "", "", trial["problem"]
    if "shortfall" in trial:
        return f"short by {trial['shortfall']:.3f}", "", ""
    gains = ", ".join(f"{gain['language']} {_span(gain)}" for gain in trial["gains"])
    over = [loss for loss in trial["losses"] if not loss["within"]]
    return gains, f"{trial['p_value']:.2g}", ", ".join(f"{x['metric']} {x['language']} {_span(x)}" for x in over)


def _span(change: Mapping[str, Any]) -> str:
    interval = "" if change["low"] is None else f" ({change['low']:+.2f} … {change['high']:+.2f})"
    return f"{change['difference']:+.3f}{interval}, n = {change['n']}"


def _same(trial: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> bool:
    return chosen is not None and all(trial.get(key) == value for key, value in chosen.items())


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
