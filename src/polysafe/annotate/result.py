"""What people said together: labels, how far they agree, and how far a run's judge agrees with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from polysafe.annotate.checks import Given
from polysafe.annotate.key import Item, Key
from polysafe.data.prompts import Prompt
from polysafe.judge.calibrate import Calibration, Example, counted_against
from polysafe.judge.verdict import Exchange, Label
from polysafe.progress import counted
from polysafe.stats.agreement import Agreement, agreements


@dataclass(frozen=True)
class Result:
    """What became of sheets.

    Attributes:
        labels: Item -> the label that most raters, or the adjudicator, gave it.
        disagreements: The items on which raters differ, settled or not.
        agreements: How far raters agree, by language.
        calibrations: How often each judge of the runs errs, by these labels; its verdicts were there already.
    """

    labels: Mapping[str, Label]
    disagreements: tuple[Item, ...]
    agreements: tuple[Agreement, ...]
    calibrations: tuple[Calibration, ...]


def settle(key: Key, given: Given) -> Result:
    """Counts votes, agreement and the errors of judges.

    Raises:
        ImportError: There are several raters, and nltk is not installed.
    """
    votes = {item.id: [labels[item.id] for labels in given.labels.values() if item.id in labels] for item in key.items}
    labels = {name: label for name, each in votes.items() if (label := given.settled.get(name) or majority(each))}
    return Result(
        labels,
        tuple(item for item in key.items if len(set(votes[item.id])) > 1),
        tuple(_agreements(key, given)),
        tuple(_calibrations(key, labels)),
    )


def majority(votes: list[Label]) -> Label | None:
    """The label of more than half of the raters, None where none has that."""
    label, count = Counter(votes).most_common(1)[0] if votes else (None, 0)
    return label if 2 * count > len(votes) else None


def example(item: Item, label: Label) -> Example:
    """A labelled answer as `judge calibrate` takes it."""
    return Example(Exchange(Prompt("annotated", item.id, item.language, item.prompt, "harmful"), item.answer), label)


def _agreements(key: Key, given: Given) -> Iterator[Agreement]:
    raters = len(given.labels)
    clusters = {item.id: item.cluster for item in key.items}
    advance = counted("agreement", len(key.languages) * (raters * (raters - 1) + 2)) if raters > 1 else lambda: None
    for language in key.languages:
        here = {item.id for item in key.of_language(language)}
        by_label = {
            rater: {name: str(label) for name, label in labels.items() if name in here}
            for rater, labels in given.labels.items()
        }
        by_unsafe = {
            rater: {name: str(label == Label.UNSAFE) for name, label in labels.items()}
            for rater, labels in by_label.items()
        }
        yield from agreements(language, "label", by_label, clusters, seed=key.seed, advance=advance)
        yield from agreements(language, "unsafe", by_unsafe, clusters, seed=key.seed, advance=advance)


def _calibrations(key: Key, labels: Mapping[str, Label]) -> Iterator[Calibration]:
    """Needs no judge: the runs hold what each of them said of these very answers."""
    for judge, identity, said in key.verdicts():
        pairs = [(example(item, labels[item.id]), said[item.id]) for item in key.items
                 if item.id in labels and item.id in said]  # fmt: skip
        if pairs:
            yield counted_against(judge, identity, pairs)
