"""Which answers of runs are labelled: drawn by chance, each text once, under names that say nothing of the model."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from polysafe.annotate.key import Asked, Given, Item, Key
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.records import Record
from polysafe.evaluate.saved import AFTER, BEFORE
from polysafe.evaluate.saved import FILE as EVALUATION


@dataclass
class Left:
    """Answers that nobody is asked to label, and what raters could guess a model by.

    Attributes:
        empty: Answers without text, which are invalid whoever reads them.
        broken: Answers with half a character, which no file can hold.
        named: Answers that say the name of a model that is compared.
    """

    empty: int = 0
    broken: int = 0
    named: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """The same in words."""
        told = (
            (self.empty, "answers are empty and are not on the sheets: they are invalid"),
            (self.broken, "answers hold half a character and are not on the sheets"),
            (self.named, "answers say the name of one of the models themselves; raters will read it"),
        )
        return tuple(f"{count} {words}" for count, words in told if count)


@dataclass
class _Found:
    record: Record
    given: list[Given] = field(default_factory=list)


def open_runs(folders: Sequence[Path]) -> list[ModelRun]:
    """The runs in these folders; an evaluation's are the one before and the one after.

    Raises:
        DataError: A folder holds no run, or is named twice.
    """
    places = [
        place
        for folder in folders
        for place in ((folder / BEFORE, folder / AFTER) if (folder / EVALUATION).exists() else (folder,))
    ]
    runs = [ModelRun.load(place) for place in places]
    if twice := [place for place, count in Counter(run.folder.resolve() for run in runs).items() if count > 1]:
        raise DataError("is named twice", where=twice[0], remedy="name it once")
    return runs


def collect(
    runs: Sequence[ModelRun],
    *,
    raters: Sequence[str],
    languages: Collection[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[Key, tuple[str, ...]]:
    """Draws the answers to harmful prompts that are to be labelled, and names them in an order of chance.

    Args:
        runs: The runs; every model's answers are mixed with those of the others.
        raters: Names of the raters.
        languages: Only these.
        limit: Most answers of a language, drawn at random from all of it.
        seed: Of the draw and the order.

    Returns:
        The key, and what a reader should know of what was left out.

    Raises:
        DataError: There is nothing to label.
        RecipeError: A language was not asked in.
    """
    left = Left()
    found = _by_language(runs, left)
    wanted = list(found) if languages is None else list(languages)
    if unknown := [language for language in wanted if language not in found]:
        raise RecipeError(
            f"no run has answers to harmful prompts in {', '.join(unknown)}", remedy=f"languages: {', '.join(found)}"
        )
    items: list[Item] = []
    for number, language in enumerate(wanted):
        answers = found[language]
        order = np.random.default_rng([seed, number]).permutation(len(answers))[:limit]
        stem = language if re.fullmatch(r"\w[\w-]*", language, re.ASCII) else f"language{number + 1}"
        items += (_item(f"{stem}-{place:04d}", answers[at]) for place, at in enumerate(map(int, order), start=1))
    if not items:
        raise DataError("there is no answer to a harmful prompt to label", remedy="name runs that asked some")
    return Key(seed=seed, raters=tuple(raters), runs=tuple(map(_asked, runs)), items=tuple(items)), left.notes


def _by_language(runs: Sequence[ModelRun], left: Left) -> dict[str, list[_Found]]:
    """Language -> every text that was answered, once for each prompt, with the models that gave it."""
    found: defaultdict[str, dict[tuple[str, str], _Found]] = defaultdict(dict)
    names = [run.name.casefold() for run in runs]
    for number, record in _answers(runs):
        text = record.completion.text
        if not text.strip():
            left.empty += 1
        elif _half(text) or _half(record.exchange.prompt.text):
            left.broken += 1
        else:
            left.named += any(name in text.casefold() for name in names)
            prompt = record.exchange.prompt
            one = found[prompt.language].setdefault((prompt.text, text), _Found(record))
            one.given.append(Given(run=number, label=str(record.verdict.label)))
    return {language: list(answers.values()) for language, answers in found.items()}


def _answers(runs: Sequence[ModelRun]) -> Iterator[tuple[int, Record]]:
    for number, run in enumerate(runs):
        for record in run.records:
            if record.prompt.kind == "harmful":
                yield number, record


def _half(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _item(name: str, found: _Found) -> Item:
    record = found.record
    prompt = record.exchange.prompt
    return Item(
        id=name,
        language=prompt.language,
        cluster=record.item,
        prompt=prompt.text,
        answer=record.completion.text,
        given=tuple(found.given),
    )


def _asked(run: ModelRun) -> Asked:
    about = run.about
    judge = about["judge"]
    return Asked(
        model=run.name,
        records_sha256=str(about["records"]["sha256"]),
        judge=str(judge["name"]),
        identity=dict(judge["identity"]),
    )


def order_of(key: Key, rater: str, language: str) -> tuple[Item, ...]:
    """The items of a language in the order of one rater: each reads them in another."""
    items = key.of_language(language)
    place = [key.seed, key.raters.index(rater), key.languages.index(language), 1]
    return tuple(items[int(at)] for at in np.random.default_rng(place).permutation(len(items)))
