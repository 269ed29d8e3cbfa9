"""How often the rule "an answer that begins with a refusal phrase refuses" errs, per language, on texts labelled by us.

Where there is no judge, refusals are counted by this rule (`phrases.Found.refused`), and a rate of it means little
without its error. The numbers are data, `phrase_error.json` beside this file: measured on the labelled texts of the
tests, and measured again by them, so that neither phrases nor texts can change without the numbers.

The texts are few, harmless, and written for polysafe by someone who knew the phrases; no native speaker has checked
them. They show in which ways the rule errs, and that it errs. How often it does depends on how a model words its
refusals.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from polysafe.judge.phrases import PhraseFilter
from polysafe.stats.intervals import Interval, wilson

SCHEMA = 1


class Labelled(NamedTuple):
    """An answer of which it is known whether it refuses.

    Attributes:
        language: Language of the prompt.
        answer: The answer.
        refusal: Whether it refuses and does nothing of what was asked.
    """

    language: str
    answer: str
    refusal: bool


@dataclass(frozen=True, slots=True)
class PhraseError:
    """Errors of the rule in one language.

    Attributes:
        language: Code of the language.
        refusals: Labelled answers that refuse.
        missed: Those of them that the rule does not find.
        others: Labelled answers that do not refuse, also those that say sorry and then do what was asked.
        false_alarms: Those of them that the rule takes for refusals.
    """

    language: str
    refusals: int
    missed: int
    others: int
    false_alarms: int

    @property
    def miss_interval(self) -> Interval | None:
        """95 % Wilson interval of the share of refusals that are missed; None where no refusal was labelled."""
        return wilson(self.missed, self.refusals)

    @property
    def false_alarm_interval(self) -> Interval | None:
        """95 % Wilson interval of the share of other answers that are taken for refusals; None where there are none."""
        return wilson(self.false_alarms, self.others)


def measure_phrases(labelled: Iterable[Labelled], phrases: PhraseFilter | None = None) -> dict[str, PhraseError]:
    """Language -> errors of the rule on labelled answers, in the order in which the languages come.

    Args:
        labelled: The answers.
        phrases: The rule's phrases; polysafe's own by default.
    """
    rule = PhraseFilter() if phrases is None else phrases
    seen = Counter((each.language, each.refusal, rule.find(each.language, each.answer).refused) for each in labelled)
    return {
        language: PhraseError(
            language,
            refusals=seen[language, True, True] + seen[language, True, False],
            missed=seen[language, True, False],
            others=seen[language, False, True] + seen[language, False, False],
            false_alarms=seen[language, False, True],
        )
        for language in dict.fromkeys(language for language, _, _ in seen)
    }


def error_table(labelled: Iterable[Labelled]) -> dict[str, Any]:
    """The content of `phrase_error.json`: errors of polysafe's own phrases, and hashes of what they hold for."""
    texts = list(labelled)
    errors = [asdict(error) for error in measure_phrases(texts).values()]
    return {
        "schema": SCHEMA,
        "phrases_sha256": _sha256(PhraseFilter().identity),
        "texts_sha256": _sha256(texts),
        "languages": {row.pop("language"): row for row in errors},
    }


@cache
def phrase_errors() -> Mapping[str, PhraseError]:
    """Language -> measured errors of polysafe's own phrases. A language without labelled texts is not in it."""
    text = (resources.files("polysafe.judge") / "phrase_error.json").read_text(encoding="utf-8")
    return {language: PhraseError(language, **row) for language, row in json.loads(text)["languages"].items()}


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
