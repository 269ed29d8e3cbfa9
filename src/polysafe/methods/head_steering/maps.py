"""What the heads of a model are chosen by: effects on in-context tasks, drawn and measured per language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from polysafe.checkpoint.opened import Source
from polysafe.data.organism import organism_of
from polysafe.data.task_sources import tasks_for
from polysafe.data.tasks import Task, load_task
from polysafe.data.trials import Trials, draw_trials
from polysafe.errors import DataError
from polysafe.files.memory import cache_directory
from polysafe.methods.head_steering.choice import combined
from polysafe.probe.effects import HeadEffects, head_effects
from polysafe.probe.kept import measurements
from polysafe.probe.model import LoadedModel
from polysafe.probe.reliability import Reliability, split_half
from polysafe.progress import during

if TYPE_CHECKING:
    from polysafe.methods.head_steering.method import HeadSteering, TaskSources

SHOTS, ORGANISM_SHOTS = 10, 4
_DRAWN = {"tasks", "prompts", "shots", "corruption", "task_seed", "score", "batch_size"}
"""Options that decide what is measured; the others decide what becomes of it."""


@dataclass(frozen=True)
class Measured:
    """The effects in one language, and how far they can be trusted.

    Attributes:
        effects: The effects.
    """

    effects: HeadEffects

    @cached_property
    def halves(self) -> Reliability:
        """Agreement of two halves of the prompts."""
        return split_half(self.effects)


class HeadMaps:
    """Scores of all heads, by language and together.

    Attributes:
        by_language: What heads are ranked by, [layers, heads] each.
        scores: The same for all languages together.
        effect: Mean signed effect over languages; zero where nothing was measured.
        norms: Norm of τ in every head's columns.
        effects: What was measured, by language.
    """

    def __init__(self, method: HeadSteering, norms: torch.Tensor, measured: Mapping[str, Measured]) -> None:
        effects = {name: each.effects for name, each in measured.items()}
        self.norms, self.effects, self._measured = norms, effects, measured
        signed = {name: combined(each.per_task, method.combine) for name, each in effects.items()}
        self.effect = torch.stack(list(signed.values())).mean(0) if signed else torch.zeros_like(norms)
        if method.ranking == "absolute":
            signed = {name: scores.abs() for name, scores in signed.items()}
        self.by_language = signed
        self.scores = torch.stack(list(signed.values())).mean(0) if signed else norms

    @classmethod
    def measure(cls, method: HeadSteering, source: Source, loaded: LoadedModel | None, norms: torch.Tensor) -> HeadMaps:
        if not method.measured:
            return cls(method, norms, {})
        assert loaded is not None
        return cls(method, norms, {name: _effects(method, source, loaded, name) for name in method.languages})

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(text for each in self.effects.values() for text in each.warnings)

    @property
    def notes(self) -> Iterator[str]:
        for language, found in self._measured.items():
            each, half = found.effects, found.halves
            overlap = ", ".join(
                f"{value:.2f} at {share:.0%} (chance {half.chance[share]:.2f})" for share, value in half.overlap.items()
            )
            yield (
                f"{language}: {len(each.tasks)} tasks, {half.prompts} prompts; between halves of the prompts effects "
                f"correlate by {half.correlation:.2f}, sets of the highest heads overlap by {overlap}"
            )
            yield from (f"{language}: {note}" for note in each.notes)

    def plain(self) -> dict[str, Any]:
        """What was measured, in values that JSON can hold."""
        return {language: _plain(each.effects, each.halves) for language, each in self._measured.items()}


def _plain(effects: HeadEffects, half: Reliability) -> dict[str, Any]:
    return {
        "data": effects.record.data,
        "score": effects.record.score,
        "split_half_correlation": half.correlation,
        "overlap": {str(share): value for share, value in half.overlap.items()},
        "tasks": {
            name: {
                "prompts": len(task.effects),
                "before": float(task.before.mean()),
                "largest": float(task.effects.mean(0).abs().max()),
                "distinct_tokens": task.tokens.distinct,
                "modal_share": task.tokens.modal_share,
                "answer_share": task.tokens.answer_share,
                "still_correct": task.still_correct,
                "too_long": task.too_long,
            }
            for name, task in effects.tasks.items()
        },
    }


def _effects(method: HeadSteering, source: Source, loaded: LoadedModel, language: str) -> Measured:
    """The effects in a language; where many settings of one model are tried, prompts are drawn for the first alone."""
    known, options = measurements(loaded).effects, method.model_dump_json(include=_DRAWN)
    key = f"{loaded.sha256} {loaded.dtype} {source.checkpoint.root} {language} {method.effects} {options}"
    if key not in known:
        known[key] = Measured(_measured(method, source, loaded, language))
    found: Measured = known[key]
    return found


def _measured(method: HeadSteering, source: Source, loaded: LoadedModel, language: str) -> HeadEffects:
    from polysafe.probe.render import load_tokenizer

    trials, skipped = draw(method, source, language)
    with during(language):
        found = head_effects(
            loaded,
            load_tokenizer(source.checkpoint.root),
            trials,
            score=method.score,
            batch_size=method.batch_size,
            file=effects_file(method, language),
            folder=cache_directory() / "effects",
        )
    return replace(found, notes=(*found.notes, *skipped))


def effects_file(method: HeadSteering, language: str) -> Path | None:
    """Where the recipe keeps the effects of a language, None where that is left to the user's cache."""
    return None if method.effects is None else method.effects / f"{language}.{method.score}.safetensors"


def draw(method: HeadSteering, source: Source, language: str) -> tuple[tuple[Trials, ...], tuple[str, ...]]:
    """The prompts of all tasks of a language, and why tasks were left out."""
    if method.tasks == "organism":
        own, shots = organism_of(source.checkpoint), method.shots or ORGANISM_SHOTS
        return own.trials(language, count=method.prompts, shots=shots, seed=method.task_seed), ()
    drawn, skipped = [], []
    for task in _tasks(method.tasks, language):
        try:
            drawn.append(
                draw_trials(
                    task,
                    count=method.prompts,
                    shots=method.shots or SHOTS,
                    corruption=method.corruption,
                    seed=method.task_seed,
                )
            )
        except DataError as error:  # a task that is too small for its prompts is no reason to give up on the others
            skipped.append(f"the task {task.name!r} {error.problem}")
    if not drawn:
        raise DataError(
            "; ".join(skipped) or "there is no task",
            where=f"language {language!r}",
            remedy="name data sets or files under `tasks`; the page on tasks says what there is for a language",
        )
    return tuple(drawn), tuple(skipped)


def task_digests(method: HeadSteering) -> Iterator[str]:
    """Hashes of the tasks that prompts are drawn from."""
    if method.tasks != "organism":
        for language in method.languages:
            yield from (task.sha256 for task in _tasks(method.tasks, language))


def _tasks(sources: TaskSources, language: str) -> tuple[Task, ...]:
    files = [load_task(file.path, file.name, file.language) for file in sources.files]
    found = tasks_for(language, sib200=sources.sib200, tatoeba=sources.tatoeba, files=files)
    known = {task.name for task in found}
    if missing := [name for name in sources.names if name not in known]:
        raise DataError(
            f"there is no task {missing[0]!r}",
            where=f"language {language!r}",
            remedy=f"tasks: {', '.join(sorted(known)) or 'none'}",
        )
    return tuple(task for task in found if not sources.names or task.name in sources.names)
