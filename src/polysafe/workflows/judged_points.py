"""What the judge says of the best points of a search, asked by several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from polysafe.errors import DataError, PolysafeError
from polysafe.evaluate.journal import Journal
from polysafe.evaluate.keys import Key
from polysafe.methods.constraints import Comparing
from polysafe.methods.validation import PROMPTS
from polysafe.processes import Crew
from polysafe.progress import Parts
from polysafe.search.bench import Bench, Readings
from polysafe.search.choice import contenders, spread
from polysafe.search.points import Outcome, Point
from polysafe.search.space import Space

JUDGED = "judged.jsonl"


@dataclass(frozen=True)
class Others:
    """Processes that share the work of this one, each with a model of its own.

    Attributes:
        crew: Carries functions out in them.
        count: How many they are.
    """

    crew: Crew
    count: int


def judged_points(
    bench: Bench, owner: str, output: Path, points: Sequence[Point], most: int, others: Others | None = None
) -> list[Point]:
    """The best points and some besides as the judge reads them; none where it has read all points.

    Args:
        bench: The model.
        owner: Identity of the search. What is kept of another one is not taken.
        output: Folder of the search, in which readings are kept.
        points: All points.
        most: Most points of the front, and most of those besides.
        others: Processes that judge some of them.

    Raises:
        DataError: A reading that was kept was damaged.
        PolysafeError: The judge cannot be used.
    """
    comparing = bench.by_judge
    if comparing is None:
        return []
    chosen = _chosen(bench, points, most)
    parts = Parts("judging points", PROMPTS, comparing.rules.meter.prompts, len(chosen))
    with Journal(output / JUDGED) as journal:
        keys = {point.number: Key("trial", owner, f"judged {point.number}") for point in chosen}
        known = {number: journal.get(key) for number, key in keys.items()}
        own, tasks = _shared(bench, [point for point in chosen if known[point.number] is None], others)
        for point in chosen:
            with parts.part(known=point not in own):
                if point in own:
                    known[point.number] = _judged(bench, point, comparing)
                    journal.put(keys[point.number], known[point.number])
        for number, found in (pair for task in tasks for pair in task()):
            known[number] = found
            journal.put(keys[number], found)
    return [_kept(point, known[point.number], output / JUDGED) for point in chosen]


def _chosen(bench: Bench, points: Sequence[Point], most: int) -> list[Point]:
    chosen = contenders(points, bench.space.search.objectives, most)
    taken = {point.number for point in chosen}
    published = bench.space.defaults()
    chosen += [each for each in points[:1] if each.setting == published and each.number not in taken]
    return chosen + spread(points, chosen, most)


def _shared(
    bench: Bench, waiting: Sequence[Point], others: Others | None
) -> tuple[Sequence[Point], list[Callable[[], list[tuple[int, Any]]]]]:
    """This process' share, and those of others: each is to be called, and waits until it is done."""
    if others is None:
        return waiting, []
    hands, unedited = 1 + others.count, bench.unedited
    shares = [waiting[hand::hands] for hand in range(1, hands) if waiting[hand::hands]]
    tasks = [others.crew.submit(_elsewhere, bench.space, share, unedited) for share in shares]
    return waiting[::hands], [partial(others.crew.result, task) for task in tasks]


def _elsewhere(space: Space, points: Sequence[Point], unedited: Readings) -> list[tuple[int, Any]]:
    """The same in another process, which does not have the unedited model judged again."""
    with Bench(space, unedited) as bench:
        assert bench.by_judge is not None
        return [(point.number, _judged(bench, point, bench.by_judge)) for point in points]


def _judged(bench: Bench, point: Point, comparing: Comparing) -> dict[str, Any]:
    try:
        return {"outcome": bench.of(bench.space.at(point.setting), comparing).to_json(), "problem": ""}
    except PolysafeError as error:
        return {"outcome": None, "problem": error.problem}


def _kept(point: Point, known: Any, where: Path) -> Point:
    """A point with what was kept of the judge's reading of it."""
    told: Mapping[str, Any] = known if isinstance(known, dict) else {}
    outcome, problem = told.get("outcome"), str(told.get("problem", ""))
    try:
        return replace(point, outcome=None if problem else Outcome.from_json(outcome), problem=problem)
    except DataError as error:
        raise DataError(
            f"what it holds of point {point.number} was damaged: {error.problem}",
            where=where,
            remedy="delete it, and these points are judged again",
        ) from error
