"""How often a judge errs, per language, measured on answers that people labelled.

A rate without its judge's error is a statement about the judge. The error is measured in each language, because judges
are best in English; it belongs to one judge, so a calibration is refused for any other; and it corrects a rate by the
formula of `stats`.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from polysafe.data.prompts import Prompt
from polysafe.data.tables import read_table
from polysafe.errors import DataError
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import Format
from polysafe.judge.probe import probe
from polysafe.judge.verdict import Exchange, Judge, Label
from polysafe.progress import counted
from polysafe.stats.intervals import Interval, wilson
from polysafe.stats.judge_error import Calibration as Error
from polysafe.stats.judge_error import Corrected, correct_rate

FORMAT = Format("calibration of a judge", again="calibrate again")
COLUMNS = ("language", "prompt", "answer", "label")
LABELS = tuple(label for label in Label if label not in (Label.UNPARSED, Label.UNJUDGED))
"""What people may say of an answer."""


@dataclass(frozen=True, slots=True)
class Example:
    """An answer with the label that people gave it."""

    exchange: Exchange
    label: Label


@dataclass(frozen=True, slots=True)
class Counts:
    """What a judge said of the labelled answers of one language; unsafe is what it has to find.

    Attributes:
        found: Unsafe answers that it calls unsafe.
        missed: Unsafe answers that it calls something else.
        cleared: Other answers that it does not call unsafe.
        accused: Other answers that it calls unsafe.
        unread_unsafe: Unsafe answers on which it said nothing readable; no part of the rates.
        unread_other: Other such answers.
    """

    found: int = 0
    missed: int = 0
    cleared: int = 0
    accused: int = 0
    unread_unsafe: int = 0
    unread_other: int = 0

    def __post_init__(self) -> None:
        """Checks that all are counts.

        Raises:
            DataError: A number is not a count.
        """
        for name, value in self.as_json().items():
            if type(value) is not int or value < 0:
                raise DataError(f"{name}: {value!r} is not a count")

    @property
    def sensitivity(self) -> float | None:
        """Share of unsafe answers that it calls unsafe, None without any."""
        unsafe = self.found + self.missed
        return self.found / unsafe if unsafe else None

    @property
    def specificity(self) -> float | None:
        """Share of other answers that it does not call unsafe, None without any."""
        other = self.cleared + self.accused
        return self.cleared / other if other else None

    @property
    def sensitivity_interval(self) -> Interval | None:
        """95 % Wilson interval of the sensitivity."""
        return wilson(self.found, self.found + self.missed)

    @property
    def specificity_interval(self) -> Interval | None:
        """95 % Wilson interval of the specificity."""
        return wilson(self.cleared, self.cleared + self.accused)

    @property
    def unread(self) -> int:
        """Answers on which the judge said nothing readable."""
        return self.unread_unsafe + self.unread_other

    @property
    def error(self) -> Error:
        """The counts as `stats` takes them.

        Raises:
            DataError: There were no unsafe answers, or no others.
        """
        return Error(self.found + self.missed, self.found, self.cleared + self.accused, self.cleared)

    def as_json(self) -> dict[str, int]:
        """The counts by name."""
        names = ("found", "missed", "cleared", "accused", "unread_unsafe", "unread_other")
        return {name: getattr(self, name) for name in names}

    def plus(self, truth: Label, said: Label) -> Counts:
        """One more answer."""
        if said is Label.UNPARSED:
            name = "unread_unsafe" if truth is Label.UNSAFE else "unread_other"
        elif truth is Label.UNSAFE:
            name = "found" if said is Label.UNSAFE else "missed"
        else:
            name = "accused" if said is Label.UNSAFE else "cleared"
        return replace(self, **{name: getattr(self, name) + 1})


@dataclass(frozen=True)
class Calibration:
    """A judge's error in every language that was labelled.

    Attributes:
        judge: Name of the judge.
        identity: Its identity; the calibration holds for this judge and no other.
        languages: Language -> counts.
        examples_sha256: Hash over the labelled answers.
    """

    judge: str
    identity: Mapping[str, Any]
    languages: Mapping[str, Counts]
    examples_sha256: str

    @property
    def sha256(self) -> str:
        """Hash over judge, counts and labelled answers, by which a file is checked."""
        counts = {language: each.as_json() for language, each in sorted(self.languages.items())}
        content = [self.judge, _plain(self.identity), self.examples_sha256, counts]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes a JSON file: schema, judge, identity, per language counts, rates and intervals, and a hash."""
        write_json_atomic(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            **FORMAT.head,
            "judge": self.judge,
            "identity": dict(self.identity),
            "examples_sha256": self.examples_sha256,
            "languages": {language: _rates(counts) for language, counts in self.languages.items()},
            "sha256": self.sha256,
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file that `save` wrote. Rates are computed anew from its counts.

        Raises:
            DataError: The file cannot be read, has another form or another schema, or was changed.
        """

        def shaped(content: Mapping[str, Any]) -> tuple[tuple[Any, ...], str]:
            languages = {language: Counts(**row["counts"]) for language, row in content["languages"].items()}
            told = (str(content["judge"]), dict(content["identity"]), languages, str(content["examples_sha256"]))
            return told, str(content["sha256"])

        told, written = FORMAT.built(shaped, FORMAT.read(path), path)
        found = cls(*told)
        if found.sha256 != written:
            FORMAT.refuse("differs from what was written (SHA-256)", path)
        return found

    def check(self, judge: Judge) -> None:
        """Refuses every judge but the calibrated one.

        Raises:
            DataError: The judge has another identity.
        """
        self.check_identity(judge.identity, judge.name)

    def check_identity(self, identity: Mapping[str, Any], name: str) -> None:
        """As `check`, for the judge of a finished run.

        Raises:
            DataError: The judge has another identity.
        """
        if _plain(identity) != _plain(self.identity):
            raise DataError(
                f"this is the calibration of the judge {self.judge!r}, and not of this {name!r}",
                where=_difference(self.identity, identity),
                remedy="calibrate the judge that you use: model, wording and settings all count",
            )

    def correct(self, judge: Judge, language: str, unsafe: int, n: int) -> Corrected | None:
        """An unsafe rate, corrected for the judge's error in the language.

        Args:
            judge: The judge that gave the verdicts.
            language: Language of the prompts.
            unsafe: Answers that it calls unsafe.
            n: Answers on which it said something readable.

        Returns:
            The corrected rate with its interval, or None where n = 0.

        Raises:
            DataError: It is another judge; the language was not labelled, or not with both kinds of answers; or the
                judge is no better than chance in it.
        """
        self.check(judge)
        if language not in self.languages:
            raise DataError(
                f"the judge {self.judge!r} was not calibrated in {language!r}",
                remedy=f"calibrated in: {', '.join(self.languages) or 'no language'}",
            )
        return correct_rate(unsafe, n, self.languages[language].error)


def calibrate(judge: Judge, examples: Sequence[Example]) -> Calibration:
    """Asks a judge about labelled answers and counts; it is tried out with the test question first.

    Raises:
        DataError: There are no examples, or the judge does not answer the test question as it has to.
        ResourceError: The judge cannot be reached.
    """
    if not examples:
        raise DataError("there are no labelled answers", remedy="label some hundred answers in every language")
    probe(judge)
    said, advance = {}, counted("verdicts", len(examples))
    for verdict in judge.judge([example.exchange for example in examples]):
        said[verdict.id] = verdict.label
        advance()
    pairs = [(example, said.get(example.exchange.prompt.id, Label.UNPARSED)) for example in examples]
    return counted_against(judge.name, judge.identity, pairs)


def counted_against(judge: str, identity: Mapping[str, Any], verdicts: Sequence[tuple[Example, Label]]) -> Calibration:
    """The calibration of a judge by what it said of labelled answers.

    Args:
        judge: Name of the judge.
        identity: Its identity.
        verdicts: Labelled answers, each with what the judge said of it.
    """
    languages: defaultdict[str, Counts] = defaultdict(Counts)
    for example, said in verdicts:
        language = example.exchange.prompt.language
        languages[language] = languages[language].plus(example.label, said)
    return Calibration(judge, _plain(identity), dict(languages), _sha256([example for example, _ in verdicts]))


def read_examples(path: Path) -> tuple[Example, ...]:
    """Labelled answers from any table that `read_table` reads, with the columns of `COLUMNS`.

    Labels are safe, unsafe, invalid and wrong_language.

    Raises:
        DataError: The file cannot be read, lacks a column, or has a row without a known label; the message names
            the row.
    """
    table = read_table(path)
    rows = zip(*(table.texts(column) for column in COLUMNS), strict=True)
    return tuple(_example(path, number, *row) for number, row in enumerate(rows, start=1))


def _example(path: Path, number: int, language: str, prompt: str, answer: str, label: str) -> Example:
    known = label.strip().lower()
    if known not in LABELS:
        raise DataError(
            f"{label!r} is not a label", where=f"{path}, row {number}", remedy=f"labels are {', '.join(LABELS)}"
        )
    asked = Prompt("calibration", str(number), language.strip(), prompt, "harmful")
    return Example(Exchange(asked, answer), Label(known))


def _rates(counts: Counts) -> dict[str, Any]:
    return {
        "counts": counts.as_json(),
        "sensitivity": counts.sensitivity,
        "sensitivity_interval": counts.sensitivity_interval,
        "specificity": counts.specificity,
        "specificity_interval": counts.specificity_interval,
    }


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as it comes back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True))
    return plain


def _difference(known: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first keys in which two identities differ."""
    left, right = _plain(known), _plain(other)
    return "identity, " + ", ".join(sorted(key for key in {*left, *right} if left.get(key) != right.get(key)))


def _sha256(examples: Sequence[Example]) -> str:
    rows = [[e.exchange.prompt.language, e.exchange.prompt.text, e.exchange.answer, e.label] for e in examples]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
