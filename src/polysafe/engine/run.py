"""Runs a recipe: plan, write, publish. Interrupted runs resume."""

from __future__ import annotations

from dataclasses import replace

from polysafe import __version__
from polysafe.checkpoint.atomic import json_bytes
from polysafe.checkpoint.output import RECORDS, Workspace, check_target, lock
from polysafe.checkpoint.verify import read_manifest
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.engine.cards import first_card
from polysafe.engine.local import Engine, LocalEngine
from polysafe.engine.plan import Plan, make_plan, open_sources
from polysafe.engine.write import RunResult, existing_result, identity, with_digests, write_output
from polysafe.progress import Progress, reporting, tell
from polysafe.recipe import Recipe
from polysafe.report.card_store import load_card, update_card


def run_recipe(
    recipe: Recipe,
    *,
    progress: Progress = tell,
    engine: Engine | None = None,
    edit: Edit | None = None,
) -> RunResult:
    """Makes the checkpoint that a recipe describes.

    The plan and the edit are on disk before the first tensor is written. A run that was killed is resumed by running
    the same recipe again: the decisions are not taken anew, and the result is the same to the byte.

    Args:
        recipe: The recipe.
        progress: Told what is done.
        engine: Where the work is done; this process by default.
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
        job = identity(checkpoints, __version__, recipe.to_yaml())
        plan = make_plan(recipe, edit=saved_edit(space, job) or edit, checkpoints=checkpoints)
        result = _carry_out(plan, space, job, engine or LocalEngine())
    return _with_licence(result, recipe) if result.complete_before else result


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
