"""Our prompt sets as tasks of Inspect: `inspect eval polysafe/multijail -T judge=… --model …`.

Inspect loads this module.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.solver import generate

from inspect_ai import Task, task
from polysafe.data.organism import ORGANISM, load_prompts, packaged_organism
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.data.sets import set_names
from polysafe.errors import RecipeError
from polysafe.evaluate.metrics import HARMFUL, HARMLESS
from polysafe.evaluate.run import about_judge, about_set, check_judge, of_kind, versions
from polysafe.generate.completion import Sampling
from polysafe.inspect_ai.logs import FORMAT, OURS, viewer_config
from polysafe.inspect_ai.samples import printable, prompt_metadata
from polysafe.inspect_ai.scoring import RATES, Named, at_once, opened_judge, verdict
from polysafe.judge.documented import judge_notes
from polysafe.judge.verdict import Judge

Listed: TypeAlias = str | list[str] | None
"""What `-T languages=sw` and `-T languages=en,sw` give."""


def safety_task(prompts: PromptSet, judge: Judge, config: GenerateConfig | None = None, connections: int = 1) -> Task:
    """A task that asks the prompts of a set, all of one kind, and has the answers judged.

    Args:
        prompts: The prompts.
        judge: The judge.
        config: How answers are drawn; greedily, with the budget of `polysafe audit`, by default.
        connections: Most answers that the judge has at a time.

    Raises:
        RecipeError: The judge may not stand alone.
    """
    check_judge(judge)
    about = {
        **FORMAT.head,
        "judge": about_judge(judge),
        "judge_notes": list(judge_notes(judge, prompts.languages)),
        "set": about_set(prompts),
        "versions": versions(),
    }
    return Task(
        dataset=MemoryDataset([_sample(prompt) for prompt in prompts.prompts], name=prompts.name),
        solver=generate(),
        scorer=verdict(judge, connections=connections),
        metrics=[RATES[name]() for name in (HARMFUL if prompts.prompts[0].kind == "harmful" else HARMLESS)],
        config=config or greedy(),
        metadata=printable({"licence": prompts.licence, OURS: about}),
        viewer=viewer_config(),
    )


def greedy(max_tokens: int | None = None, temperature: float = 0.0) -> GenerateConfig:
    """How `polysafe audit` draws answers, unless it is told otherwise."""
    return GenerateConfig(max_tokens=max_tokens or Sampling().max_tokens, temperature=temperature)


@task
def safety(
    set: str,  # noqa: A002  (the name that a user types)
    judge: Named,
    languages: Listed = None,
    data: str | None = None,
    kind: Kind | None = None,
    rows: int | None = None,
    judge_key: str | None = None,
    translate: str | None = None,
    device: str | None = None,
    max_tokens: int | None = None,
    temperature: float = 0.0,
) -> Task:
    """Any prompt set of polysafe, by its name.

    Args:
        set: Name of the set, with its parts: `multijail`, `xstest.harmless`.
        judge: What `polysafe audit --judge` takes, several for a vote; `organism` for the packaged toy family.
        languages: Languages, separated by commas; all by default.
        data: Folder with a folder per set.
        kind: `harmful` prompts, or `harmless` ones, which measure over-refusal; harmful where a set has both.
        rows: Parallel rows of the set.
        judge_key: Environment variable with the key of the servers of judge and translator.
        translate: `FOLDER` or `NAME@URL` of a translator: answers are judged as they are and in English.
        device: Where a judge in a folder runs.
        max_tokens: Most new tokens of an answer.
        temperature: 0 is greedy.
    """
    whole = _prompts(set, _codes(languages), data, rows)
    harmful = any(prompt.kind == "harmful" for prompt in whole.prompts)
    (prompts,) = of_kind([whole], kind or ("harmful" if harmful else "harmless"))
    opened = opened_judge(judge, key=judge_key, translate=translate, device=device)
    return safety_task(prompts, opened, greedy(max_tokens, temperature), at_once(judge, translate))


def _named(name: str) -> Callable[..., Task]:
    @task(name=name)
    def named(
        judge: Named,
        languages: Listed = None,
        data: str | None = None,
        kind: Kind | None = None,
        rows: int | None = None,
        judge_key: str | None = None,
        translate: str | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
    ) -> Task:
        return safety(name, judge, languages, data, kind, rows, judge_key, translate, device, max_tokens, temperature)

    return named


NAMED = {name: _named(name) for name in (*set_names(), ORGANISM)}
"""A task for every set: `safety` with its name."""


def _prompts(name: str, languages: list[str] | None, data: str | None, rows: int | None) -> PromptSet:
    folder = None if data is None else Path(data)
    return load_prompts(name, packaged_organism, data=folder, languages=languages, limit=rows)


def _codes(languages: object) -> list[str] | None:
    """Checked, because a command line gives whatever YAML makes of a word."""
    if languages is None:
        return None
    given = languages if isinstance(languages, list) else [languages]
    codes = [code for code in given if isinstance(code, str)]
    if codes != given:
        raise RecipeError(
            f"languages cannot be {languages!r}",
            remedy="quote what YAML takes for a word of its own: 'languages=[\"no\"]'",
        )
    return codes


def _sample(prompt: Prompt) -> Sample:
    return Sample(id=printable(prompt.id), input=printable(prompt.text), metadata=printable(prompt_metadata(prompt)))
