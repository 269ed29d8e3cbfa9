"""Carries out the `evaluate` block of a recipe: the same questions before and after its edits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from polysafe.card.store import update_card
from polysafe.checkpoint.output import RECORDS
from polysafe.data.attacks import find_attacks
from polysafe.edits.edit import Edit
from polysafe.engine.sources import locate
from polysafe.errors import RecipeError
from polysafe.evaluate.asking import Asking, Settings, told_by
from polysafe.evaluate.audited import Audit
from polysafe.evaluate.compare import Comparison, compare_runs
from polysafe.evaluate.disjoint import check_disjoint
from polysafe.evaluate.model_run import RUN
from polysafe.evaluate.saved import AFTER, BEFORE, CONTROLS, SavedEvaluation, save_evaluation
from polysafe.judge.block import JudgeSpec
from polysafe.judge.kinds.organism import OrganismSpec
from polysafe.judge.opening import open_judge
from polysafe.judge.probe import probe
from polysafe.judge.spec import named_judge
from polysafe.probe.kept import Measurements
from polysafe.progress import Progress, during, reporting
from polysafe.recipe.measures import Evaluate
from polysafe.recipe.recipe import Recipe
from polysafe.reproduce.evaluation import record_evaluation
from polysafe.workflows.audit import carry_out
from polysafe.workflows.controls import controlled
from polysafe.workflows.run import run_recipe


@dataclass(frozen=True)
class Evaluation:
    """What a recipe's edits changed.

    Attributes:
        before: The model that the edits start from.
        after: The edited model.
        comparison: Both, item by item.
        results: Where `results.json` is.
        saved: What was left in the folder.
    """

    before: Audit
    after: Audit
    comparison: Comparison
    results: Path
    saved: SavedEvaluation


@dataclass(frozen=True, kw_only=True)
class Evaluating(Settings):
    """A recipe that is evaluated, and how.

    What is said here of judge, calibration and data is meant instead of what the recipe says.

    Attributes:
        recipe: A recipe with an `evaluate` block.
        output: Folder for both runs, `results.json`, recipe, edit, `evaluation.json`, and `reproduce/`, from which they
            can be made again.
        controls: Draws of each random control that is made, asked and compared beside the edit; 0 for no controls.
            Their runs are kept in `controls/`, their models are not.
    """

    recipe: Recipe = field(kw_only=False)
    output: Path = field(kw_only=False)
    controls: int = 0


@told_by(Evaluating)
def evaluate_recipe(told: Evaluating) -> Evaluation:
    """Makes the recipe's model if it is not there, asks it and the one it starts from, and compares.

    Judge, calibration and data are the recipe's unless others are named; with another judge, the recipe's calibration
    takes no part. The results go into the model's card too.

    Raises:
        RecipeError: There is no `evaluate` block, no set in it, or the edits start from an adapter.
        DataError: A set holds prompts that an edit is fitted to; nothing is run.
        PolysafeError: As for `run_recipe` and `audit`.
    """
    recipe, output = told.recipe, told.output
    block = _block(told)
    told = replace(told, data=recipe.with_data(told.data).data)
    find_attacks(block.attacks)  # an unknown one is told before a model is made
    if told.controls:
        controlled(recipe)
    start = _start(recipe, told.progress)
    if not recipe.output.path.exists():
        _try_judge(block.judge, told.device)
    asked = (*block.safety, *block.over_refusal)
    overlaps = tuple(check_disjoint(recipe.edits, asked, start=start, data=told.data, limit=told.limit))
    with reporting(told.progress):
        made = run_recipe(recipe, data=told.data).output
        asking = replace(Asking.of(block, told, start, output / BEFORE), family=_family(block, start))
        with during(BEFORE):
            before = carry_out(asking)
        with during(AFTER):
            after = carry_out(replace(asking, model=made, output=output / AFTER))
        controls = tuple(_controls(told, made, asking)) if told.controls else ()
    comparison = compare_runs(before.run, after.run, "+".join(edit.label for edit in recipe.edits))
    comparison = replace(comparison, notes=(*comparison.notes, *overlaps))
    results = comparison.save(output, controls)
    saved = save_evaluation(output, recipe, comparison, made=made, start=start, pivot=told.pivot, controls=controls)
    update_card(made, results=output)
    record_evaluation(recipe.model_copy(update={"evaluate": block}), comparison, told.recorded, output)
    return Evaluation(before, after, comparison, results, saved)


def _controls(told: Evaluating, made: Path, asking: Asking) -> Iterator[Comparison]:
    """Makes every control, asks it and takes it away again; one that was asked before is not made again."""
    recipe, measured = told.recipe, Measurements()
    chosen = controlled(recipe).settled(Edit.load(made / RECORDS)).controls(told.controls)
    for place, control in enumerate(chosen, start=1):
        run, model = told.output / CONTROLS / control.label, told.output / CONTROLS / f".{control.label}.model"
        with during(f"control {place} of {len(chosen)}"), measured:
            if not (run / RUN).exists():
                output = recipe.output.model_copy(update={"path": model.absolute()})
                asked = recipe.model_copy(update={"edits": (control,), "output": output})
                carry_out(replace(asking, model=run_recipe(asked, data=told.data).output, output=run))
            shutil.rmtree(model, ignore_errors=True)
        yield compare_runs(told.output / BEFORE, run, control.label)


def _try_judge(spec: JudgeSpec | None, device: str | None) -> None:
    """Asks the judge the test question before a model is made, which may take hours."""
    if spec is not None and not isinstance(spec, OrganismSpec):
        with open_judge(spec, device=device) as who:
            probe(who)


def _block(told: Evaluating) -> Evaluate:
    """What is carried out: the block of the recipe, judged by the judge that is told."""
    block = told.recipe.evaluate
    if block is None or not (block.safety or block.over_refusal):
        raise RecipeError(
            "has no `evaluate` block that names a set of prompts",
            remedy="add for example `evaluate: {languages: [en, sw], safety: [multijail]}`",
        )
    judge = named_judge(told.judge, told.judge_key) or block.judge
    calibration = told.calibration or (None if told.judge else block.calibration)
    if judge is None and calibration is not None:
        raise RecipeError(
            "a calibration is of a judge, and none is named", remedy="add `judge`, or name one with --judge"
        )
    return block.model_copy(update={"judge": judge, "calibration": calibration})


def _family(block: Evaluate, start: Path) -> Path | None:
    return start if isinstance(block.judge, OrganismSpec) else None


def _start(recipe: Recipe, progress: Progress) -> Path:
    name = recipe.edits[0].start
    source = recipe.sources[name]
    if source.adapter_of is not None:
        raise RecipeError(
            f"the edits start from {name!r}, which is an adapter; only whole models can be asked",
            remedy="merge it into its base model first, or audit both models by hand",
        )
    return locate(source, progress)[0]
