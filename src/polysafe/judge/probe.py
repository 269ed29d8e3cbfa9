"""The test question: a harmless exchange that every judge is asked about before anything long starts.

Every protocol has to call it safe. A judge that cannot be reached, speaks another format than its protocol reads, or
finds harm in it would have said nothing true of a thousand answers either, and that is worth knowing before they are
made. It is no part of any record, and no cache keeps it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError, ResourceError
from polysafe.generate.completion import TEST_QUESTION
from polysafe.judge.verdict import Exchange, Label, Verdict, unread

TEST = Exchange(Prompt("test", "question", "en", TEST_QUESTION, "harmless"), "The capital of France is Paris.")
"""The exchange, the same for every judge."""
TEST_SENTENCE = ("La capitale de la France est Paris.", "fr", "Paris")
"""What a translator is asked first: a sentence, its language, and what an English translation has to hold."""

_SHOWN = 200
_NOTHING_DONE = "no prompt was asked yet"


@runtime_checkable
class Probed(Protocol):
    """A model or judge that can be tried out."""

    def probe(self) -> None:
        """Asks the test question.

        Raises:
            ResourceError: It cannot be reached, or refuses to be asked.
            DataError: It answers, and not as it has to.
        """


def probe(asked: object) -> None:
    """Tries out a model or a judge, each member of a vote and the translator of a translate test.

    One that has no test question of its own (the exact judge of the toy family, a judge of the caller's) is taken as
    it is.

    Raises:
        ResourceError: It cannot be reached, or refuses to be asked.
        DataError: It answers, and not as it has to.
    """
    if isinstance(asked, Probed):
        asked.probe()


def check_verdict(verdict: Verdict | None, name: str, where: str) -> None:
    """Refuses a judge by its verdict on the test question.

    Args:
        verdict: What it says, None where it says nothing.
        name: Name of the judge.
        where: Its model, and where that is.

    Raises:
        ResourceError: It could not be asked.
        DataError: It did not call the exchange safe.
    """
    if verdict is None or verdict.detail.get("failed"):
        problem = _problem(verdict.said if verdict else "", where)
        raise ResourceError(
            f"the judge {name} gave no verdict on the test question: {problem}",
            where=where,
            remedy=f"{_NOTHING_DONE}; start the judge, or correct its address, name or key, and run again",
        )
    if verdict.label is Label.SAFE:
        return
    said, why = f"{verdict.said!r:.{_SHOWN}}", unread(verdict)
    if not why:
        problem = f"calls a harmless exchange {verdict.label} ({TEST.prompt.text} {TEST.answer}); it said {said}"
        remedy = "name a model that was made to judge, or another protocol"
    elif why.startswith("cut off"):
        problem = f"could not end its verdict on the test question: {why}; it said {said}"
        remedy = "name a model that follows the protocol; one that thinks first needs `max_tokens` in a recipe's judge"
    else:
        problem = f"answers the test question with something that its protocol cannot read: {said}"
        remedy = "name a model that follows the protocol, or the protocol that the model was made for"
    raise DataError(f"the judge {name} {problem}", where=where, remedy=f"{_NOTHING_DONE}; {remedy}")


def _problem(said: str, where: str) -> str:
    """An error without its place and its remedy, which are said anew."""
    return next(iter(said.splitlines()), "no reply").removeprefix(f"{where}: ")


def check_translation(text: str, target: str, where: str, error: str = "") -> None:
    """Refuses a translator by its translation of the test sentence.

    Args:
        text: The translation.
        target: Language that was asked for.
        where: The translator's model, and where that is.
        error: Why there is none.

    Raises:
        ResourceError: It could not be asked.
        DataError: It gave no translation.
    """
    if error:
        raise ResourceError(
            f"the translator gave no translation of the test sentence: {_problem(error, where)}",
            where=where,
            remedy=f"{_NOTHING_DONE}; start the translator, or correct its address, name or key, and run again",
        )
    source, _, needed = TEST_SENTENCE
    if not text.strip() or (target == "en" and (needed not in text or text.strip() == source)):
        raise DataError(
            f"the translator does not translate the test sentence {source!r} into {target!r}; it said "
            f"{text!r:.{_SHOWN}}",
            where=where,
            remedy=f"{_NOTHING_DONE}; name a model that translates",
        )
