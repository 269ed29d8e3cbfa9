"""Runs a recipe: plan, write, publish. Interrupted runs resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from polysafe.card.first import first_card
from polysafe.card.store import load_card, update_card
from polysafe.checkpoint.digest import hashed_ahead
from polysafe.checkpoint.output import RECORDS, Workspace, lock
from polysafe.checkpoint.sidecar import SideFile
from polysafe.checkpoint.verify import read_manifest
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.engine.job import RecipeJob, resolve
from polysafe.engine.local import Engine, LocalEngine
from polysafe.engine.plan import Outline, Plan, make_plan
from polysafe.engine.write import RunResult, carry_out
from polysafe.errors import PolysafeError, RecipeError, VerificationError
from polysafe.evaluate.journal import Journal
from polysafe.files import memory
from polysafe.files.atomic import json_bytes
from polysafe.methods.scores import Movement, read_together
from polysafe.progress import Progress, counted, reporting, tell
from polysafe.recipe.recipe import Recipe

_TRIALS = "trials.jsonl"

Made = TypeVar("Made")


def run_recipe(
    recipe: Recipe,
    *,
    data: Path | None = None,
    progress: Progress = tell,
    engine: Engine | None = None,
    edit: Edit | None = None,
) -> RunResult:
    """Makes the checkpoint that a recipe describes.

    The plan and the edit are on disk before the first tensor is written. A run that was killed is resumed by running
    the same recipe again: decisions are not taken anew, candidates that were compared are not compared again, and the
    result is the same to the byte.

    Args:
        recipe: The recipe.
        data: Folder with a folder per set, instead of the recipe's; what is written does not tell.
        progress: Told what is being done.
        engine: Where the work is done, by default in this process.
        edit: What `make_plan` decided on this recipe, to be used instead of deciding again.

    Raises:
        PolysafeError: Something is wrong with recipe, inputs, output place or machine. Inputs are untouched and
            nothing appears at the output.
    """
    return _run(resolve(recipe, progress, data=data), recipe, progress, engine, edit)


def _run(
    job: RecipeJob, recipe: Recipe, progress: Progress, engine: Engine | None, edit: Edit | None = None
) -> RunResult:
    hands = engine or LocalEngine()
    with lock(job.target), reporting(progress), hashed_ahead(job.checkpoints.values()):
        with hands.probing():
            plan = _decide(job, saved_edit(job) or edit)
        result = carry_out(
            plan, lambda made: _card(plan, made, recipe), lambda made: _records(plan, made, recipe), hands
        )
    return _with_licence(result, recipe) if result.complete_before else result


def run_recipes(
    recipes: Sequence[Recipe], *, data: Path | None = None, progress: Progress = tell, engine: Engine | None = None
) -> Iterator[RunResult | PolysafeError]:
    """Makes the checkpoints of several recipes, one after the other; what they read to decide is read once.

    Args:
        recipes: The recipes.
        data: As for `run_recipe`.
        progress: As for `run_recipe`.
        engine: As for `run_recipe`.

    Yields:
        What came of every recipe, as soon as it is there: an error in place of a result leaves the others whole.

    Raises:
        RecipeError: Two of them write the same folder.
    """
    return _one_by_one(recipes, data, progress, lambda job, recipe: _run(job, recipe, progress, engine))


def plan_recipes(
    recipes: Sequence[Recipe], *, fit: bool = False, data: Path | None = None, progress: Progress = tell
) -> Iterator[Plan | Outline | PolysafeError]:
    """The plans of several recipes; what they read to decide is read once.

    Args:
        recipes: The recipes.
        fit: As for `plan_recipe`.
        data: As for `plan_recipe`.
        progress: As for `plan_recipe`.

    Yields:
        What came of every recipe, as for `run_recipes`.

    Raises:
        RecipeError: Two of them write the same folder.
    """
    return _one_by_one(recipes, data, progress, lambda job, _: _plan(job, progress, fit=fit))


def _one_by_one(
    recipes: Sequence[Recipe], data: Path | None, progress: Progress, carried_out: Callable[[RecipeJob, Recipe], Made]
) -> Iterator[Made | PolysafeError]:
    for place, times in Counter(recipe.output.path for recipe in recipes).items():
        if times > 1:
            raise RecipeError("is the output of several recipes", where=place, remedy="give each its own")
    notes: memory.Notes = {}
    with memory.noting(notes):
        jobs = [_tried(partial(resolve, recipe, progress, data=data)) for recipe in recipes]
        if len(jobs) > 1:
            _read_together([job for job in jobs if isinstance(job, RecipeJob)], progress)
    for job, recipe in zip(jobs, recipes, strict=True):
        with memory.noting(notes):
            made = job if isinstance(job, PolysafeError) else _tried(partial(carried_out, job, recipe))
        yield made


def _tried(work: Callable[[], Made]) -> Made | PolysafeError:
    try:
        return work()
    except PolysafeError as error:
        return error


def _read_together(jobs: Sequence[RecipeJob], progress: Progress) -> None:
    files = {header.file: header.size for job in jobs for each in job.checkpoints.values() for header in each.headers}
    moved: list[Movement | None] = []
    with ExitStack() as stack:
        stack.enter_context(reporting(progress))
        meter = counted("reading experts", sum(files.values()))
        for job in jobs:
            with suppress(PolysafeError):  # it is told when it is its turn
                if saved_edit(job) is None:
                    moved.append(job.recipe.edits[0].measures(stack.enter_context(job.sources(meter))))
        read_together(filter(None, moved))
        meter.finish()


def plan_recipe(
    recipe: Recipe, *, fit: bool = False, data: Path | None = None, progress: Progress = tell
) -> Plan | Outline:
    """The plan of a recipe, as far as it can be made without running a model; with `fit`, all of it.

    What took a model to decide is kept in the workspace beside the output, where `run_recipe` finds it, and so does
    this function the next time: nothing is decided twice. Of a decision that was interrupted the candidates that were
    compared are kept. Otherwise nothing is written.

    Args:
        recipe: The recipe.
        fit: Whether to run models where a method needs that.
        data: Folder with a folder per set, instead of the recipe's.
        progress: Told what is being done.

    Raises:
        PolysafeError: As for `make_plan`; the workspace cannot be written, or another process uses it.
    """
    return _plan(resolve(recipe, progress, data=data), progress, fit=fit)


def _plan(job: RecipeJob, progress: Progress, *, fit: bool) -> Plan | Outline:
    if (edit := saved_edit(job)) is not None:
        return make_plan(job, progress, edit=edit)
    plan = make_plan(job, progress, fit=False)
    if not fit or isinstance(plan, Plan):
        return plan
    with lock(job.target), reporting(progress):
        plan = _decide(job)
        job.space.prepare(job.identity)
        _keep(job.space, plan.edit)
    return plan


def _decide(job: RecipeJob, edit: Edit | None = None) -> Plan:
    """Lets methods decide. Where they compare candidates, each is kept in the workspace until the edit is there."""
    if job.recipe.validation is None or edit is not None:
        return make_plan(job, edit=edit)
    space = job.space
    space.prepare(job.identity)
    path = space.progress / _TRIALS
    with space.kept_if_used():
        try:
            with Journal(path) as journal:
                plan = make_plan(job, journal=journal)
        except VerificationError:  # that none may be taken is decided for good
            space.discard()
            raise
        _keep(space, plan.edit)
        path.unlink(missing_ok=True)
    return plan


def _keep(space: Workspace, edit: Edit) -> None:
    try:
        edit.save(space.content / RECORDS)
    except OSError as error:
        raise output_error(space.content, error) from error


def _with_licence(result: RunResult, recipe: Recipe) -> RunResult:
    """A licence that was named only after the model had been made goes into its card."""
    chosen = recipe.output
    if chosen.license is None:
        return result
    card = load_card(result.output)
    if (card.licence, card.licence_name) == (chosen.license, chosen.license_name):
        return result
    update_card(result.output, licence=chosen.license, licence_name=chosen.license_name)
    return replace(result, manifest=read_manifest(result.output))


def saved_edit(job: RecipeJob) -> Edit | None:
    """The edit that an interrupted run of the same job had decided on, None if there is none."""
    file = job.space.content / RECORDS / JSON_FILE
    return Edit.load(file) if job.space.holds(job.identity) and file.exists() else None


def _card(plan: Plan, edit: Edit, recipe: Recipe) -> tuple[SideFile, ...]:
    return first_card(edit, plan.job.checkpoints, plan.layout, plan.job.donor, recipe)


def _records(plan: Plan, edit: Edit, recipe: Recipe) -> dict[str, bytes]:
    return {
        "plan.json": json_bytes(plan.with_edit(edit).to_json()),
        "recipe.yaml": recipe.to_yaml(relative_to=plan.output).encode(),
    }
