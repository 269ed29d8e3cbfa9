"""The decision map: which expert each block came from, laid out by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from polysafe.edits.edit import Decision
from polysafe.text.readable import percent, score

_CHOICES = {"safety": "S", "language": "L", "blend": "B"}
_LETTERS_UP_TO = 16
_SCORES_UP_TO = 8


@dataclass(frozen=True)
class Cell:
    """One block on the map; `choice` is safety, language, blend or other."""

    choice: str
    letter: str
    score: str
    title: str
    borderline: bool


@dataclass(frozen=True)
class DecisionMap:
    """The map of one method and language.

    Attributes:
        language: Language code.
        layers: Layer indices, the columns.
        rows: Name and cells of each row; a cell is None where the row has no decision for a layer.
        outside: Blocks outside the layers with their decisions.
        density: scores, letters or colours: what a cell of this many columns has room for.
        summary: What the map shows, in a sentence.
        decisions: The decisions themselves, for the table.
    """

    language: str
    layers: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    outside: tuple[tuple[str, Cell], ...]
    density: str
    summary: str
    decisions: tuple[Decision, ...]


def lay_out(language: str, decisions: Sequence[Decision]) -> DecisionMap:
    """Arranges decisions by layer and module."""
    inside = [decision for decision in decisions if decision.layer is not None]
    layers = tuple(sorted({decision.layer for decision in inside if decision.layer is not None}))
    modules = list(dict.fromkeys(decision.module for decision in inside))
    at = {(decision.module, decision.layer): _cell(decision) for decision in inside}
    return DecisionMap(
        language=language,
        layers=layers,
        rows=tuple((_row_name(m, modules), tuple(at.get((m, layer)) for layer in layers)) for m in modules),
        outside=tuple((d.block, _cell(d)) for d in decisions if d.layer is None),
        density=_density(len(layers)),
        summary=_summary(len(layers), decisions),
        decisions=tuple(decisions),
    )


def describe(decision: Decision) -> str:
    """A decision in words."""
    if decision.choice == "blend":
        return f"blend, {percent(decision.safety_weight)} safety"
    return decision.choice


def _cell(decision: Decision) -> Cell:
    known = decision.choice in _CHOICES
    border = ", borderline" if decision.borderline else ""
    return Cell(
        choice=decision.choice if known else "other",
        letter=_CHOICES.get(decision.choice, "?"),
        score="" if decision.score is None else _short(decision.score),
        title=f"{decision.block}: {describe(decision)}, d = {score(decision.score)}{border}",
        borderline=decision.borderline,
    )


def _short(value: float) -> str:
    """A score for a small cell: three decimals without the leading zero."""
    return f"{value:+.3f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}")


def _row_name(module: str | None, modules: Sequence[str | None]) -> str:
    return module or ("whole layer" if len(modules) == 1 else "rest of layer")


def _density(columns: int) -> str:
    if columns <= _SCORES_UP_TO:
        return "scores"
    return "letters" if columns <= _LETTERS_UP_TO else "colours"


def _summary(layers: int, decisions: Sequence[Decision]) -> str:
    choices = Counter(decision.choice for decision in decisions if decision.layer is not None)
    counts = ", ".join(f"{count} {choice}" for choice, count in choices.most_common())
    borderline = sum(decision.borderline for decision in decisions)
    noted = f"; {borderline} borderline" if borderline else ""
    return f"{layers} layers, {choices.total()} blocks: {counts}{noted}"
