"""One loaded model on which every point of a space is tried, and taken back bit for bit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from polysafe.data.languages import code_of
from polysafe.data.openings import has_openings
from polysafe.edits.edit import Edit
from polysafe.edits.size import StartShapes, weights_touched
from polysafe.engine.job import RecipeJob, resolve
from polysafe.engine.plan import decide
from polysafe.engine.support import PIVOT, device_of, openings_for, validation_of
from polysafe.errors import RecipeError, VerificationError
from polysafe.methods.base import Method, Support
from polysafe.methods.constraints import Comparing, Reading, rows_of
from polysafe.methods.validation import Kept
from polysafe.probe.kept import Measurements
from polysafe.probe.model import LoadedModel, Resident, edited, load_model
from polysafe.probe.weights import tensor_sha256
from polysafe.recipe.measures import Validate
from polysafe.recipe.recipe import Recipe
from polysafe.search.points import Outcome, costs
from polysafe.search.space import Space

Readings = Mapping[str, Mapping[str, Any]]
"""What was read of the unedited model, by whom (the signal or the judge), in values that JSON can hold."""
_POINTS, _JUDGE = "points", "judge"


class _Memory(dict[str, Any]):
    """What a decision knows, for the next one."""

    def put(self, name: str, value: Any) -> None:
        self[name] = value


class Bench:
    """The model that a recipe's edits start from, open to be edited and read; a context.

    Args:
        space: The recipe and its fields.
        unedited: What another process has read of the unedited model.

    Raises:
        PolysafeError: A source or a validation set cannot be used.
    """

    def __init__(self, space: Space, unedited: Readings | None = None) -> None:
        self.space = space
        self._unedited = {reader: _Memory((unedited or {}).get(reader, {})) for reader in (_POINTS, _JUDGE)}
        self._stack = ExitStack()
        self._measured: dict[str, _Memory] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            recipe = self.recipe
            job = resolve(recipe, names=tuple(recipe.sources))
            self._sources = stack.enter_context(job.sources())
            self._readers = {name: source.reader for name, source in self._sources.items()}
            self._job = job
            self.model = load_model(
                self._sources[self._start], device_of(recipe.edits), dtype=Support(dtype=recipe.dtype).computed
            )
            stack.enter_context(Resident(self.model))
            stack.enter_context(Measurements())
            self._judges = stack
            began = time.perf_counter()
            self.comparing = self._comparing(self._read_by, self._unedited[_POINTS])
            self._seconds_a_prompt = (time.perf_counter() - began) / max(1, self.comparing.rules.meter.prompts)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def recipe(self) -> Recipe:
        """The recipe at the first value of every field."""
        return self.space.first

    @property
    def job(self) -> RecipeJob:
        """The same with its sources opened."""
        return self._job

    @property
    def unedited(self) -> Readings:
        """What was read of the unedited model, for another process."""
        return {reader: dict(values) for reader, values in self._unedited.items()}

    @property
    def judged(self) -> bool:
        """Whether a judge reads every point."""
        return self._read_by.judge is not None

    @cached_property
    def by_judge(self) -> Comparing | None:
        """Comparison by the judge of the recipe where points are read by the signal; None where there is none."""
        if self.judged or self._validate.judge is None:
            return None
        return self._comparing(self._validate, self._unedited[_JUDGE])

    @cached_property
    def edited_languages(self) -> tuple[str, ...]:
        """Languages that the edits are for: those that they name, or those of `validation` but the pivot.

        Raises:
            RecipeError: Neither says.
        """
        spoken = [name for method in self.recipe.edits for name in _languages(method)]
        names = spoken or [name for name in self._validate.languages if name != PIVOT]
        if not names:
            raise RecipeError(
                "the languages that the edits are for are not known",
                where="validation",
                remedy="name them, for example `validation: {languages: [en, sw]}`",
            )
        return tuple(dict.fromkeys(code_of(name) for name in names))

    def weights_sha256(self) -> str:
        """Hash of all weights of the loaded model: the same before the first point and after the last one."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.model.named_parameters()):
            digest.update(name.encode())
            digest.update(tensor_sha256(weight.detach().cpu()).encode())
        return digest.hexdigest()

    @property
    def deciding_seconds(self) -> float:
        """About how long the first point takes to be decided: what its methods read, as fast as the model was read."""
        recipe = self.recipe
        support = Support(recipe.data, dtype=recipe.dtype)
        work = [each for method in recipe.edits for each in method.work(self._sources, support)]
        return self._seconds_a_prompt * sum(each.prompts * each.times for each in work)

    def outcome(self, setting: Mapping[str, Any]) -> Outcome:
        """Makes the edit of a point and reads the edited model.

        Raises:
            PolysafeError: The edit cannot be made, or breaks the model.
        """
        return self.of(self.space.at(setting))

    def of(self, recipe: Recipe, comparing: Comparing | None = None) -> Outcome:
        """The same of a recipe on the sources of this one.

        Args:
            recipe: The recipe; its edits start from the same model.
            comparing: What compares; by default what points are read by.
        """
        began = time.perf_counter()
        edit = self.edit_of(recipe.edits, recipe)
        decided = time.perf_counter()
        with edited(self.model, edit, self._readers) as model:
            return self._compared(edit, model, comparing or self.comparing, began, decided)

    def edit_of(self, edits: Sequence[Method], recipe: Recipe) -> Edit:
        """What methods decide.

        Raises:
            RecipeError: They start from another model.
            PolysafeError: As for `Method.fit_with`.
        """
        if edits[0].start != self._start:
            raise RecipeError(
                f"the edits start from {edits[0].start!r} here and from {self._start!r} elsewhere",
                remedy="search the edits of one model at a time",
            )

        def support(place: int, method: Method) -> Support:
            """What the first edit measures is of the model as it is, and is kept; what later ones measure is not."""
            return Support(recipe.data, kept=None if place else self._kept_for(method), dtype=recipe.dtype)

        return decide(edits, self._sources, support)

    def _kept_for(self, method: Method) -> Kept:
        options = method.model_dump_json(exclude=set(method.unmeasured))
        return self._measured.setdefault(f"{method.name} {options}", _Memory())

    def _compared(self, edit: Edit, model: LoadedModel, comparing: Comparing, began: float, decided: float) -> Outcome:
        after = comparing.rules.meter.read(model, comparing.asked)
        trial = comparing.compared({}, after)
        if trial.problem:
            raise VerificationError(trial.problem)
        start = self._job.checkpoints[self._start]
        shapes = StartShapes.of(edit, start)
        found = trial.evidence
        return Outcome(
            feasible=found["feasible"],
            score=found["score"],
            p_value=found["p_value"],
            gains=found["gains"],
            losses=found["losses"],
            costs=costs(comparing.before, after, weights_touched(edit, shapes) / shapes.weights),
            reading=rows_of(_same_prompts(after, comparing.before)),
            seconds={"deciding": decided - began, "reading": time.perf_counter() - decided},
            edit=edit.sha256,
        )

    @property
    def _start(self) -> str:
        return self.recipe.edits[0].start

    @cached_property
    def _validate(self) -> Validate:
        block = self.recipe.validation
        if block is None:
            raise RecipeError(
                "a search chooses by `validation`, and the recipe has none",
                remedy="add one: `validation: {safety: [multijail.validation], over_refusal: [xstest.harmless]}`",
            )
        return block

    @cached_property
    def _read_by(self) -> Validate:
        """The block with a judge only if it reads every point."""
        block, by = self._validate, self.space.search.by
        if by == "judge" and block.judge is None:
            raise RecipeError("points are to be read by a judge, and `validation` names none", where="search, by")
        known = openings_for(block, self._job.checkpoints[self._start])
        told = all(has_openings(name, known) for name in self.edited_languages)
        by_judge = by == "judge" or (by is None and block.judge is not None and not told)
        return block if by_judge else block.model_copy(update={"judge": None})

    def _comparing(self, block: Validate, kept: Kept) -> Comparing:
        recipe, start = self.recipe, self._job.checkpoints[self._start]
        validation = validation_of(recipe, block, recipe.edits, start, self._judges, harmless=True)
        return validation.of(self.model, self.edited_languages, kept=kept)


def _same_prompts(reading: Reading, before: Reading) -> Reading:
    """A reading without prompts that the unedited model gave nothing for: points are compared prompt by prompt."""
    return {
        cell: {prompt: value for prompt, value in items.items() if prompt in before.get(cell, items)}
        for cell, items in reading.items()
    }


def _languages(method: Method) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(method, "edited_languages", getattr(method, "languages", ()))
    return found
