"""Anchors and validation for the toy family: its training split, and its validation split judged exactly."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from polysafe.data.anchors import Anchors, ParallelPrompts
from polysafe.data.openings import Openings
from polysafe.data.organism import ANSWER_TOKENS, Organism
from polysafe.judge.kinds.organism import OrganismSpec
from polysafe.methods.constraints import HELPFUL, OVER_REFUSAL, REFUSED
from polysafe.methods.validation import Standing, Standings
from polysafe.organism.lexicon import CATEGORIES, LANGUAGES, dangerous_objects
from polysafe.organism.world import REFUSAL, World
from polysafe.threads import threads

if TYPE_CHECKING:
    from polysafe.probe.model import LoadedModel

HARMLESS_REQUESTS = 200
OTHER_PROMPTS = 80


def organism_anchors(world: World, languages: Sequence[str], kinds: int = len(CATEGORIES)) -> Anchors:
    """The training split of a world: harmful requests; harmless ones and questions of all kinds.

    Args:
        world: The world.
        languages: Languages to spell the prompts in.
        kinds: Number of danger categories that the harmful requests are about.
    """
    rng = world.rng("anchors")
    known = dangerous_objects(CATEGORIES[:kinds])
    harmful = [pair for pair in world.harmful("train") if pair.object in known]
    harmless = rng.sample(world.harmless("train"), HARMLESS_REQUESTS)
    facts = rng.sample(list(world.facts), OTHER_PROMPTS // 2)
    entities = sorted({fact.entity for fact in world.facts})
    sums = [(rng.choice(entities), rng.randrange(10), rng.randrange(10)) for _ in range(OTHER_PROMPTS // 2)]

    def ordinary(language: str) -> tuple[str, ...]:
        return (
            *(world.request(language, pair) for pair in harmless),
            *(world.knowledge(language, fact).prompt for fact in facts),
            *(world.arithmetic(language, *story).prompt for story in sums),
        )

    return Anchors(
        ParallelPrompts(
            tuple(pair.item for pair in harmful),
            {name: tuple(world.request(name, pair) for pair in harmful) for name in languages},
            origin="the toy world's harmful training requests",
        ),
        ParallelPrompts(
            tuple(
                [pair.item for pair in harmless]
                + [f"{fact.entity}-{fact.attribute}" for fact in facts]
                + [f"sum-{number}" for number in range(len(sums))]
            ),
            {name: ordinary(name) for name in languages},
            origin="the toy world's harmless training prompts",
        ),
    )


def toy_openings(world: World, language: str) -> Openings:
    """How refusals and answers to a request begin in a language of a world, a word each."""
    refusal, compliance = (world.say(language, concept) for concept in (REFUSAL[0], "first"))
    return Openings(language, (refusal,), (compliance,), "the toy world")


class OrganismValidator:
    """Asks a model the validation split of its world; of harmless requests, over-refusals count near harm alone.

    Args:
        organism: What the world brings along.
    """

    def __init__(self, organism: Organism) -> None:
        from polysafe.evaluate.judge_meter import JudgeMeter

        prompts = organism.prompts("validation").prompts
        self._contrast = {f"{each.set}/{each.parallel}" for each in prompts if each.category == "contrast"}
        judge = OrganismSpec(kind="organism")
        self._meter = JudgeMeter(
            prompts, judge, ExitStack(), template="chat", max_tokens=ANSWER_TOKENS, organism=lambda: organism
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """All languages of the world."""
        return LANGUAGES

    def __call__(self, model: LoadedModel, languages: Sequence[str]) -> Standings:
        """Refusals, over-refusals of contrast prompts and helpful answers, by language."""
        with threads(1):
            found = self._meter.read(model, languages)

        def share(language: str, metric: str) -> float:
            items = found[language, metric]
            counted = [holds for item, holds in items.items() if metric != OVER_REFUSAL or item in self._contrast]
            return sum(counted) / len(counted)

        return {
            language: Standing(share(language, REFUSED), share(language, OVER_REFUSAL), share(language, HELPFUL))
            for language in languages
        }
