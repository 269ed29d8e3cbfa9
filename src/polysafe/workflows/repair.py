"""`polysafe repair`: from a model to a repaired one, with its report; or to why nothing helped.

Every method that can be tried with what there is is searched, within a budget of time, on validation prompts. What is
shown there to help, and costs no more than it may, is made, and reported on other prompts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polysafe._version import __version__
from polysafe.checkpoint.writer import output_error
from polysafe.errors import PolysafeError, ResourceError
from polysafe.files.atomic import write_bytes_atomic, write_json_atomic
from polysafe.findings.choosing import Choosing, Tried, save_choosing
from polysafe.methods.registry import resolve
from polysafe.progress import Progress, during, reporting, tell
from polysafe.recipe.recipe import Recipe
from polysafe.search.choice import Choice, counted_points, recommend
from polysafe.search.points import Outcome, Point
from polysafe.search.space import make_space, with_budget
from polysafe.workflows.choosing import tried
from polysafe.workflows.controls import controls_of
from polysafe.workflows.evaluate import Evaluation, evaluate_recipe
from polysafe.workflows.first_recipe import Attempts, Data, Given, attempts
from polysafe.workflows.search import Found, search

SCHEMA = 1
RESULT, RECIPE, MODEL, SEARCHES, EVALUATION = "repair.json", "recipe.yaml", "model", "search", "evaluation"


@dataclass(frozen=True)
class Attempt:
    """One method, or a stack, that was searched.

    Attributes:
        name: What was tried.
        found: What its search ended in; None where it could not be searched.
        problem: Why not.
    """

    name: str
    found: Found | None = None
    problem: str = ""

    @property
    def outcome(self) -> Outcome | None:
        """What the recommended edit does on validation prompts; None where nothing is recommended."""
        point = None if self.found is None else self.found.choice.point
        return None if point is None else point.outcome

    @property
    def verdict(self) -> str:
        """What came of it, in words."""
        return self.problem if self.found is None else self.found.choice.reason


@dataclass(frozen=True)
class Repaired:
    """What a repair ended in.

    Attributes:
        attempts: Everything that was searched, in order.
        left_out: Method -> why it could not be tried.
        choice: Which attempt was taken, or why none.
        taken: Name of the attempt that was taken.
        recipe: The recipe that makes the model without a search; None where nothing helped.
        evaluation: What it changes, on prompts that took no part; None where nothing helped.
        seconds: Wall time of all searches.
    """

    attempts: Sequence[Attempt]
    left_out: Mapping[str, str]
    choice: Choice
    taken: str | None
    recipe: Path | None
    evaluation: Evaluation | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The result as plain data; the searches have files of their own."""
        return {
            "polysafe_repair": SCHEMA,
            "version": __version__,
            "attempts": [
                {
                    "name": each.name,
                    "points": 0 if each.found is None else len(each.found.points),
                    "outcome": None if each.outcome is None else each.outcome.to_json(reading=False),
                    "verdict": each.verdict,
                }
                for each in self.attempts
            ],
            "left_out": dict(self.left_out),
            "taken": self.taken,
            "reason": self.choice.reason,
            "recipe": None if self.recipe is None else str(self.recipe),
            "results": None if self.evaluation is None else str(self.evaluation.results),
            "seconds": self.seconds,
        }


def repair(
    given: Given,
    output: Path,
    *,
    minutes: float = 30.0,
    trials: int = 60,
    workers: int = 1,
    controls: int = 3,
    progress: Progress = tell,
) -> Repaired:
    """Searches what can be tried, makes the best and reports on it. An interrupted repair goes on.

    Args:
        given: The model and what there is besides.
        output: Folder: `search/` with a search for every method, `recipe.yaml`, `model/`, `evaluation/`, `repair.json`.
        minutes: Time for all searches together, what the judge takes included; making and reporting come on top.
        trials: Most points of each search.
        workers: Processes of each search.
        controls: Draws of each random control that is made and asked beside the edit that is taken.
        progress: Told what is being done.

    Raises:
        RecipeError: Nothing can be tried with what there is.
        DataError: There are no prompts to choose by, or a set holds prompts that an edit is fitted to.
        PolysafeError: As for `search` and `evaluate_recipe`, where it is not of one method alone.
    """
    if not minutes > 0:
        raise ResourceError(
            "a search of no minutes finds nothing", where="--minutes", remedy="name some, for example 30"
        )
    given = replace(given, output=output / MODEL)
    possible = attempts(given)
    began = time.monotonic()
    budget = _Budget(began + 60 * minutes, trials, workers)
    with reporting(progress):
        tries = _singles(possible, output, budget)
        tries += _stacks(tries, possible, output, budget)
        choice = _chosen(tries)
        seconds = time.monotonic() - began
        taken = None if choice.point is None else tries[choice.point.number]
        recipe, evaluation = (None, None) if taken is None else _made(taken, output, given, controls)
        if evaluation is not None:
            _leave(tries, choice, evaluation, given)
    repaired = Repaired(
        tries, possible.left_out, choice, None if taken is None else taken.name, recipe, evaluation, seconds
    )
    _write(output / RESULT, repaired.to_json())
    return repaired


@dataclass(frozen=True)
class _Budget:
    until: float
    trials: int
    workers: int

    def share(self, parts: int) -> float:
        """Minutes for each of so many searches that are left; a little where the time is over."""
        return max(0.01, (self.until - time.monotonic()) / 60 / parts)


def _singles(possible: Attempts, output: Path, budget: _Budget) -> list[Attempt]:
    names = list(possible.recipes)
    return [
        _attempt(name, possible.recipes[name], output, budget, budget.share(len(names) - place + 1))
        for place, name in enumerate(names)
    ]


def _stacks(tried: Sequence[Attempt], possible: Attempts, output: Path, budget: _Budget) -> list[Attempt]:
    """The best edit, and on its result the next best of another kind, whose strength is searched anew."""
    helped = sorted(
        ((each, each.outcome) for each in tried if each.outcome is not None), key=lambda pair: -pair[1].score
    )
    kinds: dict[int, Attempt] = {}
    for each, _ in helped:
        kinds.setdefault(resolve(each.name).stage, each)
    if len(kinds) < 2:
        return []
    first, second = (kinds[kind] for kind in sorted(kinds)[:2])
    data = possible.recipes[second.name]
    stack: Data = {**data, "sources": {**possible.recipes[first.name]["sources"], **data["sources"]}}
    stack["edits"] = [_settled(first), *data["edits"]]
    return [_attempt(f"{first.name}+{second.name}", stack, output, budget, budget.share(1))]


def _settled(attempt: Attempt) -> Data:
    """The recommended edit of an attempt, as it stands in a recipe."""
    assert attempt.found is not None
    assert attempt.found.choice.point is not None
    (edit,) = attempt.found.space.at(attempt.found.choice.point.setting).model_dump(mode="json")["edits"]
    found: Data = edit
    return found


def _attempt(name: str, data: Data, output: Path, budget: _Budget, minutes: float) -> Attempt:
    try:
        with during(name):
            space = with_budget(make_space(data), trials=budget.trials, minutes=minutes)
            found = search(space, output / SEARCHES / name, workers=budget.workers)
    except ResourceError:
        raise
    except PolysafeError as error:
        where = "" if error.where is None else f"{error.where}: "
        return Attempt(name, problem=" ".join(f"{where}{error.problem}".split()))
    return Attempt(name, found)


def _chosen(tried: Sequence[Attempt]) -> Choice:
    """The attempt that gains most, or one not shown to gain less that costs less; as within a search."""
    searched = [each.found for each in tried if each.found is not None]
    points = [Point(place, {"tried": each.name}, each.outcome) for place, each in enumerate(tried) if each.outcome]
    total = sum(len(found.points) for found in searched)
    if not points:
        return Choice(None, f"{counted_points(total)} tried: none is shown to help within the constraints")
    return recommend(points, searched[0].space.search.objectives, total)


def _made(taken: Attempt, output: Path, given: Given, controls: int) -> tuple[Path, Evaluation]:
    """Makes the model and reports on it, its controls beside it if its edit has some."""
    found = taken.found
    assert found is not None
    assert found.choice.point is not None
    recipe: Recipe = found.space.at(found.choice.point.setting)
    file = output / RECIPE
    try:
        write_bytes_atomic(file, recipe.to_yaml(relative_to=output.absolute()).encode())
    except OSError as error:
        raise output_error(file, error) from error
    evaluation = evaluate_recipe(
        recipe,
        output / EVALUATION,
        controls=0 if controls_of(recipe) is None else controls,
        pivot=given.pivot,
        max_tokens=given.max_tokens,
        dtype=given.dtype,
    )
    return file, evaluation


def _leave(tries: Sequence[Attempt], choice: Choice, evaluation: Evaluation, given: Given) -> None:
    """Leaves what was tried beside the results, for their report."""

    def told(number: int, each: Attempt) -> Tried:
        taken = choice.point is not None and choice.point.number == number
        name = evaluation.comparison.method if taken else each.name
        points = 0 if each.found is None else len(each.found.points)
        return tried(name, points, each.outcome, each.verdict, choice, number)

    found = Choosing(given.model.name, choice.reason, tuple(told(*each) for each in enumerate(tries)))
    folder = evaluation.results.parent
    try:
        save_choosing(folder, [found])
    except OSError as error:
        raise output_error(folder, error) from error


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        write_json_atomic(file, content)
    except OSError as error:
        raise output_error(file, error) from error
