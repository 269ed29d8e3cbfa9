"""What raters gave back, held against what they were given; nothing of a text is repeated in a message."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from polysafe.annotate.key import Item, Key
from polysafe.annotate.sheets import CHOICES, UNSURE, Line, shown
from polysafe.errors import DataError
from polysafe.judge.verdict import Label

ADJUDICATOR = "adjudicator"
"""Who settles what raters disagree on; on the sheet of disagreements, and no rater of an export."""
SHOWN = 20
"""Problems that a message names."""


@dataclass(frozen=True)
class Given:
    """What everybody said.

    Attributes:
        labels: Rater -> item -> label; without those that nobody could tell.
        settled: Item -> what the adjudicator said.
        notes: Item -> what raters wrote beside a label, by rater.
        missing: Rater -> items of the sheets that have no label of this rater.
    """

    labels: Mapping[str, Mapping[str, Label]]
    settled: Mapping[str, Label]
    notes: Mapping[str, Mapping[str, str]]
    missing: Mapping[str, tuple[str, ...]]

    def said(self, item: str) -> dict[str, str]:
        """Rater -> label of an item, of those who gave it one."""
        return {rater: str(labels[item]) for rater, labels in self.labels.items() if item in labels}


def check(lines: Iterable[Line], key: Key, *, partial: bool = False) -> Given:
    """Takes over what is right, and refuses everything if anything is wrong.

    Args:
        lines: Lines of the sheets.
        key: What was given to raters.
        partial: Whether answers may be without a label.

    Raises:
        DataError: A line names an unknown rater or answer, or one twice; a prompt or an answer was changed; a label is
            none; or answers have none, and they may not. Names every such line, up to `SHOWN`.
    """
    items = {item.id: item for item in key.items}
    said: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)  # rater -> item -> label, place
    notes: defaultdict[str, dict[str, str]] = defaultdict(dict)
    problems: list[str] = []
    for line in lines:
        before = said[line.rater].get(line.id)
        if problem := _problem(line, items.get(line.id), key, before):
            problems.append(f"{line.where}: {problem}")
        elif line.label:
            said[line.rater][line.id] = (line.label, line.where)
        if line.note.strip() and line.rater in key.raters:
            notes[line.id][line.rater] = line.note
    missing = {rater: tuple(item for item in items if item not in said[rater]) for rater in key.raters}
    if not problems and not partial:
        problems = [_told(rater, left, key) for rater, left in missing.items() if left]
    if problems:
        _refuse(problems)
    told = {
        rater: {item: Label(label) for item, (label, _) in found.items() if label != UNSURE}
        for rater, found in said.items()
    }
    settled = told.pop(ADJUDICATOR, {})
    return Given({rater: told[rater] for rater in key.raters if rater in told}, settled, notes, missing)


def _problem(line: Line, item: Item | None, key: Key, before: tuple[str, str] | None) -> str:
    if line.rater not in (*key.raters, ADJUDICATOR):
        return f"{line.rater!r:.24} is no rater of these sheets: {', '.join(key.raters)}"
    if item is None:
        return f"there is no answer {line.id!r:.24} on these sheets"
    texts = {"prompt": (line.prompt, item.prompt), "answer": (line.answer, item.answer)}
    changed = [name for name, (found, given) in texts.items() if found != shown(given)]
    if changed:
        return f"the {' and the '.join(changed)} of {item.id} is not what was given out"
    if line.label and line.label not in CHOICES:
        return f"the label of {item.id} is none; labels are {', '.join(CHOICES)}"
    if line.label and before:
        return f"{line.rater} has labelled {item.id} before, in {before[1]}"
    return ""


def _told(rater: str, left: tuple[str, ...], key: Key) -> str:
    languages = Counter(item.language for item in key.items if item.id in set(left))
    counts = ", ".join(f"{count} in {language}" for language, count in languages.items())
    return f"{rater} has not labelled {len(left)} answers ({counts}): {', '.join(left[:5])}{' …' if left[5:] else ''}"


def _refuse(problems: list[str]) -> None:
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    missing_only = all(" has not labelled " in problem for problem in problems)
    raise DataError(
        "the sheets cannot be taken as they are:\n  " + "\n  ".join(problems[:SHOWN]) + more,
        remedy="have the rest labelled, or take what there is with --partial" if missing_only else None,
    )
