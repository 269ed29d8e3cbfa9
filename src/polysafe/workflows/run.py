"""Runs a recipe: plan, write, publish. Interrupted runs resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from polysafe._version import __version__
from polysafe.card.first import first_card
from polysafe.card.store import load_card, update_card
from polysafe.checkpoint.output import RECORDS, Workspace, check_target, lock
from polysafe.checkpoint.source import Checkpoint
from polysafe.checkpoint.verify import read_manifest
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.engine.local import Engine, LocalEngine
from polysafe.engine.plan import Outline, Plan, make_plan, open_sources
from polysafe.engine.support import job_parts
from polysafe.engine.write import RunResult, existing_result, identity, with_digests, write_output
from polysafe.errors import VerificationError
from polysafe.evaluate.journal import Journal
from polysafe.files.atomic import json_bytes
from polysafe.progress import Progress, reporting, tell
from polysafe.recipe.recipe import Recipe

_TRIALS = "trials.jsonl"


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
    target = recipe.output.path
    checkpoints = open_sources(recipe, progress)
    check_target(target, [folder for checkpoint in checkpoints.values() for folder in checkpoint.folders])
    with lock(target), reporting(progress):
        space = Workspace(target)
        meant = recipe.with_data(data)
        job = _job(meant, checkpoints)
        plan = _decide(meant, space, job, checkpoints, saved_edit(space, job) or edit)
        result = _carry_out(replace(plan, recipe=recipe), space, job, engine or LocalEngine())
    return _with_licence(result, recipe) if result.complete_before else result


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
    recipe = recipe.with_data(data)
    target = recipe.output.path
    checkpoints = open_sources(recipe)
    check_target(target, [folder for checkpoint in checkpoints.values() for folder in checkpoint.folders])
    space, job = Workspace(target), _job(recipe, checkpoints)
    if (edit := saved_edit(space, job)) is not None:
        return make_plan(recipe, progress, edit=edit, checkpoints=checkpoints)
    plan = make_plan(recipe, progress, checkpoints=checkpoints, fit=False)
    if not fit or isinstance(plan, Plan):
        return plan
    with lock(target), reporting(progress):
        plan = _decide(recipe, space, job, checkpoints)
        space.prepare(job)
        _keep(space, plan.edit)
    return plan


def _decide(
    recipe: Recipe, space: Workspace, job: str, checkpoints: Mapping[str, Checkpoint], edit: Edit | None = None
) -> Plan:
    """Lets methods decide. Where they compare candidates, each is kept in the workspace until the edit is there."""
    if recipe.validation is None or edit is not None:
        return make_plan(recipe, edit=edit, checkpoints=checkpoints)
    space.prepare(job)
    path = space.progress / _TRIALS
    with space.kept_if_used():
        try:
            with Journal(path) as journal:
                plan = make_plan(recipe, checkpoints=checkpoints, journal=journal)
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


def _job(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> str:
    return identity(checkpoints, __version__, recipe.to_yaml(), *job_parts(recipe, checkpoints))


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


def saved_edit(space: Workspace, job: str) -> Edit | None:
    """The edit that an interrupted run of the same job had decided on, None if there is none."""
    file = space.content / RECORDS / JSON_FILE
    return Edit.load(file) if space.holds(job) and file.exists() else None


def _carry_out(plan: Plan, space: Workspace, job: str, engine: Engine) -> RunResult:
    known = all(record.files for record in plan.edit.sources.values())
    edit = plan.edit if known else with_digests(plan.edit, plan.checkpoints)
    done = existing_result(space.target, edit)
    if done is not None:
        if space.holds(job):
            space.discard()
        return done
    plan.cost.check(space.target, already_written=space.size())
    resumed = space.prepare(job)
    records = {
        "plan.json": json_bytes(plan.with_edit(edit).to_json()),
        "recipe.yaml": plan.recipe.to_yaml(relative_to=space.target).encode(),
    }
    card = first_card(edit, plan.checkpoints, plan.layout, plan.donor, plan.recipe)
    side = (*plan.side, *card)
    return write_output(space, edit, plan.checkpoints, plan.layout, side, records, engine, resumed)
