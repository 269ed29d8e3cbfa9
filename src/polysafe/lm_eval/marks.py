"""Which answers are right, and what a reader should know of the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite

from lm_eval.api.instance import Instance

from polysafe.evaluate.keys import content_hash
from polysafe.lm_eval.last_number import last_number
from polysafe.lm_eval.model import HarnessModel
from polysafe.lm_eval.tasks import Leaf, quiet

_WHOLE = "none"
_THEIRS = "flexible-extract"
_SAID = {
    "unreadable": "do not fit the model's positions; they count as wrong",
    "broken": "have no finite log-likelihood; they count as wrong",
    "truncated": "are cut off by the token budget",
    "unparsed": "hold no number; they count as wrong",
}


@dataclass
class Marks:
    """The marks of one family of tasks.

    Attributes:
        items: Language -> question -> whether it was answered right.
        told: What is to be told of answers -> language -> how many.
        theirs: Language -> what lm-eval's own filter finds right, where our scoring is another.
    """

    items: defaultdict[str, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))
    told: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    theirs: Counter[str] = field(default_factory=Counter)

    def notes(self) -> Iterator[str]:
        """What a reader should know, by language."""
        for what, counts in self.told.items():
            for code, count in counts.items():
                yield f"{code}: {count} of {len(self.items[code])} answers {_SAID[what]}"
        if self.theirs:
            shares = (f"{code} {100 * right / len(self.items[code]):.1f} %" for code, right in self.theirs.items())
            yield f"by lm-eval's own filter ({_THEIRS}), which reads 0-9 only: {', '.join(shares)}"


def mark(leaves: Iterable[Leaf], asked: HarnessModel) -> Marks:
    """Marks the answered requests of some tasks.

    Args:
        leaves: The tasks; their requests hold the answers.
        asked: The model that gave them.
    """
    marks = Marks()
    for leaf in leaves:
        for filter_ in leaf.task.instances:
            filter_.filtered_resps.clear()
        with quiet():
            leaf.task.apply_filters()
        for place, (question, requests) in enumerate(zip(leaf.questions, leaf.requests(), strict=True)):
            right = _chosen if question.choices else _written
            marks.items[question.language][question.parallel] = right(marks, leaf, place, requests, asked)
    return marks


def tokens_sha256(asked: HarnessModel, instances: Sequence[Instance]) -> str | None:
    """Hash over the token ids of all requests in order; None where only a server knows them."""
    found = []
    for each in instances:
        if each.request_type == "loglikelihood":
            likelihood = asked.likelihoods[each.args]
            found.append("" if likelihood is None else likelihood.tokens_sha256)
            continue
        completion = asked.completions[each.args[0]]
        if completion.prompt_sha256 is None and completion.tokens != 0:
            return None
        found.append(completion.prompt_sha256 or "")
    return content_hash(found)


def _chosen(marks: Marks, leaf: Leaf, place: int, requests: Sequence[Instance], asked: HarnessModel) -> bool:
    """A choice by likelihood. One that has none makes the question wrong: the first choice would win by default."""
    code = leaf.questions[place].language
    found = [asked.likelihoods[request.args] for request in requests]
    if None in found:
        marks.told["unreadable"][code] += 1
        return False
    if not all(isfinite(each.total) for each in found if each is not None):
        marks.told["broken"][code] += 1
        return False
    return leaf.score(place, requests, _WHOLE) == 1.0


def _written(marks: Marks, leaf: Leaf, place: int, requests: Sequence[Instance], asked: HarnessModel) -> bool:
    """A number at the end of an answer."""
    question, (request,) = leaf.questions[place], requests
    code, completion = question.language, asked.completions[request.args[0]]
    marks.theirs[code] += leaf.score(place, requests, _THEIRS) == 1.0
    if completion.tokens == 0 and completion.ending == "length":
        marks.told["unreadable"][code] += 1
        return False
    if completion.ending == "length":
        marks.told["truncated"][code] += 1
    number = last_number(request.resps[0])
    if number is None:
        marks.told["unparsed"][code] += 1
    return number == question.gold
