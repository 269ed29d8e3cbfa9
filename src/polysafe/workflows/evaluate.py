"""Carries out the `evaluate` block of a recipe: the same questions before and after its edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polysafe.card.store import update_card
from polysafe.data.attacks import find_attacks
from polysafe.engine.sources import locate
from polysafe.errors import RecipeError
from polysafe.evaluate.audited import Audit
from polysafe.evaluate.compare import Comparison, compare_runs
from polysafe.evaluate.disjoint import check_disjoint
from polysafe.evaluate.opening import open_judge
from polysafe.evaluate.saved import SavedEvaluation, save_evaluation
from polysafe.judge.probe import probe
from polysafe.judge.spec import JudgeSpec, OrganismSpec, parse_judge
from polysafe.progress import Progress, during, reporting, tell
from polysafe.recipe.measures import Evaluate
from polysafe.recipe.recipe import Recipe
from polysafe.reproduce.evaluation import record_evaluation
from polysafe.workflows.audit import audit
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


def evaluate_recipe(
    recipe: Recipe,
    output: Path,
    *,
    judge: JudgeSpec | str | Sequence[str] | None = None,
    calibration: Path | None = None,
    data: Path | None = None,
    limit: int | None = None,
    pivot: str = "en",
    max_tokens: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache: Path | None = None,
    progress: Progress = tell,
) -> Evaluation:
    """Makes the recipe's model if it is not there, asks it and the one it starts from, and compares.

    The results go into the model's card too.

    Args:
        recipe: A recipe with an `evaluate` block.
        output: Folder for both runs, `results.json`, recipe, edit, `evaluation.json`, and `reproduce/`, from which they
            can be made again.
        judge: Judge instead of the recipe's, as for `audit`; the recipe's calibration then takes no part.
        calibration: Measured error of the judge instead of the recipe's.
        data: Folder with a folder per set, instead of the recipe's.
        limit: Number of parallel rows of every set.
        pivot: Language that the others are compared with.
        max_tokens: As for `audit`.
        device: Where models run.
        dtype: As for `audit`.
        cache: As for `audit`.
        progress: Called as `progress(what, done, total)`.

    Raises:
        RecipeError: There is no `evaluate` block, no set in it, or the edits start from an adapter.
        DataError: A set holds prompts that an edit is fitted to; nothing is run.
        PolysafeError: As for `run_recipe` and `audit`.
    """
    data = recipe.with_data(data).data
    block = _block(recipe)
    who = parse_judge(judge) if judge else block.judge
    error = calibration or (None if judge else block.calibration)
    if who is None and error is not None:
        raise RecipeError(
            "a calibration is of a judge, and none is named", remedy="add `judge`, or name one with --judge"
        )
    find_attacks(block.attacks)  # an unknown one is told before a model is made
    start = _start(recipe, progress)
    asked = (*block.safety, *block.over_refusal)
    if not recipe.output.path.exists():
        _try_judge(who, device)
    overlaps = tuple(check_disjoint(recipe.edits, asked, start=start, data=data, limit=limit))
    with reporting(progress):
        made = run_recipe(recipe, data=data).output

    def ask(model: Path, name: str) -> Audit:
        return audit(
            model,
            safety=block.safety,
            over_refusal=block.over_refusal,
            capability=block.capability,
            attacks=block.attacks,
            languages=block.languages,
            template=block.template,
            judge=who,
            calibration=error,
            output=output / name,
            data=data,
            limit=limit,
            pivot=pivot,
            max_tokens=max_tokens,
            family=start if isinstance(who, OrganismSpec) else None,
            device=device,
            dtype=dtype,
            cache=cache,
        )

    with reporting(progress), during("before"):
        before = ask(start, "before")
    with reporting(progress), during("after"):
        after = ask(made, "after")
    comparison = compare_runs(before.run, after.run, "+".join(edit.label for edit in recipe.edits))
    comparison = replace(comparison, notes=(*comparison.notes, *overlaps))
    results = comparison.save(output)
    saved = save_evaluation(output, recipe, comparison, made=made, start=start, pivot=pivot)
    update_card(made, results=output)
    settings = {"limit": limit, "pivot": pivot, "max_tokens": max_tokens, "device": device, "dtype": dtype}
    carried_out = block.model_copy(update={"judge": who, "calibration": error})
    record_evaluation(recipe.model_copy(update={"evaluate": carried_out}), comparison, settings, output)
    return Evaluation(before, after, comparison, results, saved)


def _try_judge(spec: JudgeSpec | None, device: str | None) -> None:
    """Asks the judge the test question before a model is made, which may take hours."""
    if spec is not None and not isinstance(spec, OrganismSpec):
        with open_judge(spec, device=device) as who:
            probe(who)


def _block(recipe: Recipe) -> Evaluate:
    block = recipe.evaluate
    if block is None or not (block.safety or block.over_refusal):
        raise RecipeError(
            "has no `evaluate` block that names a set of prompts",
            remedy="add for example `evaluate: {languages: [en, sw], safety: [multijail]}`",
        )
    return block


def _start(recipe: Recipe, progress: Progress) -> Path:
    name = recipe.edits[0].start
    source = recipe.sources[name]
    if source.adapter_of is not None:
        raise RecipeError(
            f"the edits start from {name!r}, which is an adapter; only whole models can be asked",
            remedy="merge it into its base model first, or audit both models by hand",
        )
    return locate(source, progress)[0]
