"""What an ability is measured by: questions that have a right answer, the same ones in many languages."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from polysafe.errors import DataError

LETTERS = "ABCD"
"""Names of the choices, in order."""

_SLIPPED = 0.5
"""Share of equal right answers under which rows of two languages cannot be translations of each other. By chance four
choices agree in a quarter."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question in one language.

    Attributes:
        set: Name of the set that it belongs to, for example `belebele`.
        parallel: Name of the question, the same in every language of its set.
        language: Language code, as polysafe spells it everywhere.
        question: The question, as published; of XCOPA, whether the `cause` or the `effect` is asked for.
        gold: Index of the right choice; where there are no choices, the number that is the answer.
        choices: What can be chosen; empty where the answer is a number.
        context: What the question is about: a passage, a premise.
        category: Category of the set, None where the set has none.
        subject: Subject, for example `astronomy`; None where the set has none.
    """

    set: str
    parallel: str
    language: str
    question: str
    gold: int
    choices: tuple[str, ...] = ()
    context: str = ""
    category: str | None = None
    subject: str | None = None

    @property
    def id(self) -> str:
        """Name of the question, unique over sets and languages."""
        return f"{self.set}/{self.parallel}/{self.language}"


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one benchmark.

    Attributes:
        name: Name of the set.
        questions: Its questions; those of one language stand together and in the order of the source.
        licence: Licence as stated by the source.
        origin: Where it was read from, for messages.
    """

    name: str
    questions: tuple[Question, ...]
    licence: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        """Checks that every question has a name of its own.

        Raises:
            DataError: Two questions have the same name.
        """
        twice = [name for name, times in Counter(each.id for each in self.questions).items() if times > 1]
        if twice:
            raise DataError(f"the question {twice[0]!r} is there twice", where=self.origin or self.name)

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the set, in the order of its questions."""
        return tuple(dict.fromkeys(each.language for each in self.questions))

    @cached_property
    def sha256(self) -> str:
        """Hash over everything that decides a question and whether its answer is right."""
        rows = [[q.id, q.context, q.question, q.choices, q.gold] for q in self.questions]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()

    def select(self, languages: Collection[str] | None = None, limit: int | None = None) -> Self:
        """The questions in some languages, and `limit` of them in each.

        A language that the set lacks is left out: an ability that was not measured is an empty cell, not a failure.
        The limit takes those first that the most languages have, so that languages stay parallel.
        """
        kept = [each for each in self.questions if languages is None or each.language in languages]
        if limit is not None:
            times = Counter(each.parallel for each in kept)
            names = sorted(times, key=lambda name: -times[name])[:limit]  # stable: in the order of the source
            kept = [each for each in kept if each.parallel in set(names)]
        return replace(self, questions=tuple(kept))


def require_parallel(questions: Iterable[Question], where: object) -> None:
    """Refuses languages whose rows have slipped against each other, told by their right answers.

    Raises:
        DataError: Fewer than half of the right answers of a language are those of the first language.
    """
    golds: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for each in questions:
        golds[each.language][each.parallel] = each.gold
    first = next(iter(golds), "")
    for language, found in golds.items():
        shared = golds[first].keys() & found.keys()
        agreeing = sum(golds[first][name] == found[name] for name in shared)
        if agreeing < _SLIPPED * len(shared):
            raise DataError(
                f"only {agreeing} of {len(shared)} right answers in {language!r} are those in {first!r}, so that its "
                "rows are not parallel",
                where=where,
                remedy="get the files again, all from one source",
            )
