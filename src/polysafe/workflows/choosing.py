"""Which of several edits of one model to take: all are read on one loaded model, the judge decides among the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from polysafe.findings.choosing import Choosing, Gain, Tried
from polysafe.recipe.measures import Search
from polysafe.recipe.recipe import Recipe
from polysafe.search.bench import Bench
from polysafe.search.choice import Choice, front, recommend
from polysafe.search.points import Outcome, Point
from polysafe.search.points import tried as attempted
from polysafe.search.space import Space

JUDGED = 3
"""Edits of the front that a judge is asked about, where a signal reads them all."""


def choose(recipes: Mapping[str, Recipe], model: str) -> Choosing:
    """Reads what recipes make of one model on validation prompts, and takes one of them or none.

    As in a search (`search.choice.recommend`), with every recipe as a point.

    Args:
        recipes: Name of an edit -> its recipe; all start from the same model, and the first brings `validation`.
        model: What the model is called.

    Raises:
        RecipeError: The first has no `validation`, or they start from different models.
        PolysafeError: A source or a validation set cannot be used.
    """
    names, listed = list(recipes), list(recipes.values())
    space = Space(listed[0].model_dump(mode="json"), "", (), Search())
    with Bench(space) as bench:
        points = [
            attempted(place, {"edit": name}, lambda setting: bench.of(recipes[setting["edit"]]))
            for place, name in enumerate(names)
        ]
        best = front(points, space.search.objectives)[:JUDGED]
        judged: list[Point] = []
        if (by_judge := bench.by_judge) is not None:
            judged = [
                replace(point, outcome=bench.of(listed[point.number], by_judge)) for point in best if point.outcome
            ]
        choice = recommend(judged or points, space.search.objectives, len(points))
    heard = {point.number: point for point in judged}
    told = [
        tried(names[point.number], 1, heard.get(point.number, point).outcome, point.problem, choice, point.number)
        for point in points
    ]
    return Choosing(model, choice.reason, tuple(told))


def tried(name: str, points: int, outcome: Outcome | None, verdict: str, choice: Choice, number: int) -> Tried:
    """What a report says of an edit that was tried.

    Args:
        name: What it is called.
        points: How many settings of it were tried.
        outcome: What the best of them does; None where there is none.
        verdict: What came of it; by default which constraints it does not keep.
        choice: What is taken of all.
        number: Its number among them.
    """
    taken = choice.point is not None and choice.point.number == number
    if outcome is None:
        return Tried(name, points, verdict=verdict, taken=taken)
    gains = tuple(
        Gain(**{key: gain[key] for key in ("language", "n", "counted", "before", "after", "low", "high")})
        for gain in outcome.gains
    )
    return Tried(name, points, gains, dict(outcome.costs), verdict or _excess(outcome), taken)


def _excess(outcome: Outcome) -> str:
    over = [loss for loss in outcome.losses if not loss["within"]]
    return "costs more than the constraints allow: " + ", ".join(map(_over, over)) if over else ""


def _over(loss: Mapping[str, object]) -> str:
    metric = str(loss["metric"]).replace("_", " ")
    return f"{metric} in {loss['language']} {loss['difference']:+.3f}, limit {loss['limit']:+.3g}"
