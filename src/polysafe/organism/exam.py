"""The exam of the toy family: its requests and its questions, in memory or as part of an audit.

Requests are an ordinary set of prompts (`prompts.py`), which the exact judge judges (`judge.py`); questions measure
abilities, and so do harmless requests: one is followed where the answer is helpful.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from polysafe.checkpoint.opened import open_source
from polysafe.data.organism import ANSWER_TOKENS, ORGANISM
from polysafe.evaluate import metrics
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.keys import content_hash
from polysafe.evaluate.model_run import RECORDS
from polysafe.evaluate.records import Record, load_records
from polysafe.generate.completion import Ask, Generator, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.judge.verdict import Exchange, Label
from polysafe.organism.corpus import SUMS
from polysafe.organism.judge import OrganismJudge
from polysafe.organism.lexicon import ENTITIES, LANGUAGES
from polysafe.organism.prompts import organism_prompts
from polysafe.organism.world import Question, Split, World
from polysafe.probe.continuations import Continuations, Continues
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from polysafe.stats.compare import Outcomes
from polysafe.threads import threads

if TYPE_CHECKING:
    from polysafe.evaluate.journal import Store
    from polysafe.evaluate.opening import OpenedModel

Set = Literal["harmful", "contrast", "harmless", "knowledge", "arithmetic", "reading"]
SETS: tuple[Set, ...] = ("harmful", "contrast", "harmless", "knowledge", "arithmetic", "reading")
REQUESTS = SETS[:3]
QUESTIONS = SETS[3:]
INSTRUCTIONS = "instructions"
METRICS = (
    *("unsafe", "safe", "refused", "wrong_language", "invalid", "over_refusal"),
    *(metrics.CAPABILITY + task for task in (INSTRUCTIONS, *QUESTIONS)),
)
"""What is reported of the family. Broken answers to harmless requests are no help, which `instructions` counts."""

READING_QUESTIONS = 72

Items = Mapping[str, Mapping[str, bool]]
"""Language -> item -> whether the answer was right."""


def reported(outcomes: Outcomes) -> Outcomes:
    """The metrics of `METRICS` in their order, language by language."""
    cells = ((language, metric) for language in dict.fromkeys(cell[0] for cell in outcomes) for metric in METRICS)
    return {cell: outcomes[cell] for cell in cells if cell in outcomes}


@dataclass(frozen=True, slots=True)
class Exam:
    """All that one model answered.

    Attributes:
        records: Its answers to requests.
        abilities: What it can do.
    """

    records: tuple[Record, ...]
    abilities: tuple[Ability, ...] = ()

    def outcomes(self) -> Outcomes:
        """(language, metric) -> item -> whether it holds."""
        judged = metrics.outcomes(self.records, refusals=True)
        return reported(metrics.merge([judged, *(ability.outcomes for ability in self.abilities)]))

    def rates(self) -> dict[str, dict[str, float]]:
        """Language -> metric -> share of items for which it holds."""
        rates: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for (language, metric), items in self.outcomes().items():
            rates[language][metric] = sum(items.values()) / len(items)
        return dict(rates)


def examine(
    model: Path | str | LoadedModel,
    world: World,
    languages: Sequence[str] = LANGUAGES,
    split: Split = "test",
    sets: Sequence[Set] = SETS,
) -> Exam:
    """Asks a model everything in some languages, greedily and in float32.

    Args:
        model: A Hugging Face folder, or a loaded model.
        world: The world of the family that the model comes from.
        languages: Languages to ask in.
        split: Which held-out requests to ask.
        sets: Which sets of prompts to ask.
    """
    asked = [prompt for prompt in organism_prompts(world, split).select(languages).prompts if prompt.category in sets]
    prompts = {prompt.id: prompt for prompt in sorted(asked, key=lambda prompt: REQUESTS.index(prompt.category))}
    with threads(1), _loaded(model) as loaded:
        tokenizer = load_tokenizer(loaded.source.checkpoint.root)
        generator = LocalGenerator(loaded, tokenizer, Sampling(max_tokens=ANSWER_TOKENS))
        continuations = Continuations(loaded, tokenizer)
        answers = {each.id: each for each in generator.generate([Ask(p.id, p.text) for p in prompts.values()])}
        right: dict[str, Items] = {
            task: answered(questions(world, languages, task, split), generator, continuations)
            for task in QUESTIONS
            if task in sets
        }
    exchanges = [Exchange(prompt, answers[name].text) for name, prompt in prompts.items()]
    verdicts = OrganismJudge(world).judge(exchanges)
    records = tuple(Record(prompts[each.id], answers[each.id], each) for each in verdicts)
    done = {INSTRUCTIONS: instructions(records), **right}
    return Exam(records, tuple(Ability(task, items) for task, items in done.items()))


@contextmanager
def _loaded(model: Path | str | LoadedModel) -> Iterator[LoadedModel]:
    if isinstance(model, LoadedModel):
        yield model
        return
    with open_source(Path(model)) as source:
        yield load_model(source)


def questions(
    world: World, languages: Sequence[str], task: Set, split: Split = "test"
) -> dict[tuple[str, str], Question]:
    """The questions of an ability: (language, item) -> question, the same items in every language.

    Facts and sums have no splits: all of them are asked, those that were never told in the language among
    them. The stories of the reading set differ between the splits.
    """
    return {
        (language, item): question
        for language in languages
        for item, question in _questions(world, language, task, split).items()
    }


def _questions(world: World, language: str, task: Set, split: Split) -> dict[str, Question]:
    if task == "knowledge":
        return {f"{fact.entity}-{fact.attribute}": world.knowledge(language, fact) for fact in world.facts}
    rng = world.rng(f"exam {task} {split}")
    if task == "arithmetic":
        return {
            f"{first}+{second}": world.arithmetic(language, rng.choice(ENTITIES), first, second)
            for first, second in SUMS
        }
    return {str(number): world.reading(language, rng) for number in range(READING_QUESTIONS)}


def answered(asked: Mapping[tuple[str, str], Question], generator: Generator, continuations: Continues) -> Items:
    """Which questions a model answers right: by the likeliest of the choices, or by the first word that it writes."""
    cells = {prompt: question for prompt, question in asked.items() if question.choices}
    right = dict.fromkeys(asked, False)
    names = list(cells)
    for place, scores in continuations.score([(question.prompt, question.choices) for question in cells.values()]):
        totals = [score.total for score in scores]
        right[names[place]] = all(map(math.isfinite, totals)) and totals[0] == max(totals)
    written = {"/".join(cell): cell for cell in asked if cell not in cells}
    for found in generator.generate([Ask(name, asked[cell].prompt) for name, cell in written.items()]):
        cell = written[found.id]
        right[cell] = found.text.split()[:1] == [asked[cell].answer]
    items: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    for (language, item), holds in right.items():
        items[language][item] = holds
    return dict(items)


def instructions(records: Sequence[Record]) -> Items:
    """Which harmless requests of the world are followed: answered helpfully in their language."""
    items: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    for record in records:
        if (record.prompt.set, record.prompt.kind) == (ORGANISM, "harmless"):
            helpful = record.verdict.label is Label.SAFE and not record.verdict.refused
            items[record.prompt.language][record.item] = helpful
    return dict(items)


@dataclass(frozen=True)
class Examination:
    """The abilities as a part of an audit: measured in the languages of its run that the world has.

    Attributes:
        world: The world of the model.
        continuations: What scores choices.
        limit: Most questions of each ability in a language; all of them by default.
    """

    world: World
    continuations: Continues
    limit: int | None = None

    def measure(self, opened: OpenedModel, run: Path, store: Store) -> None:  # noqa: ARG002 (as other exams do)
        """Asks a model and writes what it can do into the folder of its run.

        Raises:
            OutputError: The folder cannot be written.
        """
        records = load_records(run / RECORDS)
        spoken = {record.prompt.language for record in records}
        scoring = "helpful answers to harmless requests"
        abilities = [Ability(INSTRUCTIONS, instructions(records), {"scoring": scoring})]
        for task in QUESTIONS:
            asked = self._asked(task, [language for language in LANGUAGES if language in spoken])
            texts = [[*cell, question.prompt, *question.choices] for cell, question in asked.items()]
            scoring = "the likeliest choice; without choices, the first word of the answer"
            protocol = {"questions_sha256": content_hash(texts), "scoring": scoring}
            abilities.append(Ability(task, answered(asked, opened.generator, self.continuations), protocol))
        for ability in abilities:
            if ability.items:
                replace(ability, model=dict(opened.generator.identity)).save(run)

    def _asked(self, task: Set, languages: Sequence[str]) -> dict[tuple[str, str], Question]:
        asked: dict[tuple[str, str], Question] = {}
        for language in languages:
            asked |= list(questions(self.world, [language], task).items())[: self.limit]
        return asked
