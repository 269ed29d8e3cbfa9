"""`polysafe search`: chooses the fields of a recipe by what the edited model does on validation prompts.

Every point is read by a cheap signal, or by the judge where that is cheap enough; the judge of the recipe decides
among the best. What was chosen by is not reported on: `polysafe evaluate` does that, on other prompts.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from polysafe._version import __version__
from polysafe.checkpoint.output import lock
from polysafe.checkpoint.writer import output_error
from polysafe.errors import PolysafeError, VerificationError
from polysafe.files.atomic import json_bytes, write_bytes_atomic, write_json_atomic
from polysafe.methods.constraints import ALPHA, MEANS, REFUSED, Comparing
from polysafe.methods.validation import PROMPTS
from polysafe.processes import Crew, Workers
from polysafe.progress import Parts, Progress, reporting, tell
from polysafe.recipe.recipe import Recipe
from polysafe.search.bench import Bench, Readings
from polysafe.search.choice import (
    Agreement,
    Choice,
    Optimism,
    agreement,
    front,
    optimism,
    paired_p,
    plain_objectives,
    recommend,
)
from polysafe.search.points import Outcome, Point
from polysafe.search.space import Space
from polysafe.search.study import Study
from polysafe.stats.multiplicity import holm
from polysafe.threads import share, threads
from polysafe.workflows.controls import controls_of
from polysafe.workflows.judged_points import Others, judged_points

SCHEMA = 1
_LITTLE = 60.0
"""Seconds that a point may take in any case."""
RESULT, RECIPE = "search.json", "recipe.yaml"


@dataclass(frozen=True)
class Beside:
    """Another edit, read on the same prompts as the one that is recommended.

    Attributes:
        label: A control, or some of the edits of a stack.
        outcome: What it does.
        p_value: Two-sided test that it refuses equally, paired by prompt.
        p_adjusted: The same for all that stand beside (Holm).
    """

    label: str
    outcome: Outcome
    p_value: float
    p_adjusted: float

    def beaten_by(self, chosen: Outcome) -> bool:
        """Whether the recommended edit is shown to gain more."""
        return self.p_adjusted <= ALPHA and chosen.mean_gain > self.outcome.mean_gain


@dataclass(frozen=True)
class Unedited:
    """What was read of the unedited model in one language.

    Attributes:
        language: The language.
        metric: What was read.
        unit: `share` of prompts, `log-odds`, or `nats` per token.
        n: Number of prompts.
        mean: Their mean.
    """

    language: str
    metric: str
    unit: str
    n: int
    mean: float


def _unedited(language: str, metric: str, items: Mapping[str, float | bool]) -> Unedited:
    unit = "nats" if metric in MEANS else "log-odds"
    if all(isinstance(value, bool) for value in items.values()):
        unit = "share"
    return Unedited(language, metric, unit, len(items), sum(map(float, items.values())) / len(items))


@dataclass(frozen=True)
class Found:
    """What a search ended in.

    Attributes:
        output: Its folder.
        space: What was searched.
        points: All points, in their order.
        front: Those within the constraints that none is better than in everything.
        judged: Points that the judge was asked about, with what it says.
        choice: The recommended point, or none, and why; as the judge reads it where it was asked.
        optimism: What to expect of it elsewhere.
        agreement: Whether the signal orders points as the judge does.
        controls: Its controls.
        parts: Of a stack, some of its edits without the others.
        unedited: What was read of the unedited model.
        recipe: The recipe that makes the recommended edit without a search; None where there is none.
        seconds: Wall time, of deciding and of reading all points.
        weights: Hash of the loaded model's weights, the same before and after.
        notes: What validation does not measure.
    """

    output: Path
    space: Space
    points: Sequence[Point]
    front: Sequence[Point]
    judged: Sequence[Point]
    choice: Choice
    optimism: Optimism | None
    agreement: Sequence[Agreement]
    controls: Sequence[Beside]
    parts: Sequence[Beside]
    unedited: Sequence[Unedited]
    recipe: Path | None
    seconds: Mapping[str, float]
    weights: str
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Everything but the prompts' own values, as plain data."""
        chosen = self.choice.point
        return {
            "polysafe_search": SCHEMA,
            "version": __version__,
            "parameters": {each.name: each.domain.model_dump(mode="json") for each in self.space.parameters},
            "search": self.space.search.model_dump(mode="json"),
            "objectives": plain_objectives(self.space.search.objectives),
            "unedited": [asdict(each) for each in self.unedited],
            "points": [point.to_json() for point in self.points],
            "front": [point.number for point in self.front],
            "judged": [point.to_json() for point in self.judged],
            "recommended": None if chosen is None else {"number": chosen.number, "setting": dict(chosen.setting)},
            "reason": self.choice.reason,
            "optimism": None if self.optimism is None else asdict(self.optimism),
            "agreement": [asdict(each) for each in self.agreement],
            "controls": [_beside(each) for each in self.controls],
            "parts": [_beside(each) for each in self.parts],
            "seconds": dict(self.seconds),
            "weights_sha256": self.weights,
            "notes": list(self.notes),
        }


def _beside(each: Beside) -> dict[str, Any]:
    return {**asdict(replace(each, outcome=None)), "outcome": each.outcome.to_json(reading=False)}  # type: ignore[arg-type]


def search(
    space: Space,
    output: Path,
    *,
    workers: int = 1,
    controls: int = 0,
    crew: Callable[[int], Crew] | None = None,
    progress: Progress = tell,
) -> Found:
    """Searches a recipe's fields. Nothing but the study and what is found is written: no checkpoint.

    A search that was killed is gone on with by the same call; what is finished is not asked again. With one worker it
    tries the same points as if it had not been killed.

    Args:
        space: The recipe and its fields (`search.space.load_space`).
        output: Folder of the study, `search.json` and, where something is recommended, `recipe.yaml`.
        workers: Processes; each holds the model.
        crew: Gives hands to so many others, of a cluster; processes of this machine where there is none. These share
            its threads with this process.
        controls: Draws of each random control that the recommended edit is compared with; 0 for no controls.
        progress: Told how many points were tried.

    Raises:
        RecipeError: The recipe has no `validation`, or does not say which languages it is for.
        DataError: Validation has no prompts in a language, or they are anchors or reported on.
        OutputError: The folder holds another search, or cannot be written.
        VerificationError: None of the first points can be made, or there is not the time for one; or the model was
            not put back as it was.
        PolysafeError: A source cannot be used.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(output, error) from error
    own = share(workers if crew is None else 1)
    hire = partial(Workers, threads=own) if crew is None else crew
    with reporting(progress), lock(output), threads(own), Bench(space) as bench:
        study = Study(output, space, _identity(bench))
        weights = bench.weights_sha256()
        study.begin()
        seconds, judged = _shared(bench)
        if not study.points():
            _require_time(bench, seconds)
        with hire(max(2, workers - 1)) if workers > 1 else nullcontext() as hands:
            others = None if hands is None else Others(hands, workers - 1)
            _tried(space, output, study, bench, others, seconds)
            found = _ended(bench, output, study.points(), controls, judged, others)
        if bench.weights_sha256() != weights:
            raise VerificationError("the model was not put back as it was", where="search")
        found = replace(found, weights=weights)
        _write(found)
    return found


def _shared(bench: Bench) -> tuple[float, int]:
    """Seconds for trying points, and how many of the front are judged after: where time is limited, in half of it.

    What a judge takes for a point is told by what it takes for the unedited model.
    """
    minutes, judged = bench.space.search.minutes, bench.space.search.judged
    if minutes is None:
        return math.inf, judged
    began = time.monotonic()
    if bench.by_judge is None:
        return 60 * minutes, judged
    each = 2 * (time.monotonic() - began)  # one of the front, and one of those besides
    judged = max(1, min(judged, int(30 * minutes / each)))
    return 60 * minutes - each / 2 - judged * each, judged


def _require_time(bench: Bench, seconds: float) -> None:
    """A point that has begun is finished, so that none is begun which takes far longer than there is time."""
    if seconds == math.inf:
        return
    if (first := bench.deciding_seconds) > 2 * max(seconds, 0.0) + _LITTLE:
        raise VerificationError(
            f"the first point alone takes about {first / 60:.0f} minutes to decide, more than there is time for",
            where="search",
            remedy="give it more minutes, or fewer prompts to be fitted to",
        )


def _identity(bench: Bench) -> str:
    space, comparing = bench.space, bench.comparing
    domains = {each.name: each.domain.model_dump(mode="json") for each in space.parameters}
    settings = space.search.model_dump(mode="json", exclude={"trials", "minutes"})
    prompts = [[*cell, sorted(items)] for cell, items in comparing.before.items()]
    parts = [bench.job.identity, domains, settings, prompts, dict(comparing.rules.limits)]
    return hashlib.sha256(json_bytes(parts)).hexdigest()


def _tried(space: Space, output: Path, study: Study, bench: Bench, others: Others | None, seconds: float) -> None:
    """Tries all points, some of them in processes of their own; at least one."""
    trials = space.search.trials
    if space.size is not None:
        trials = min(trials, space.size)
    seconds = max(seconds, 0.01)
    until = time.monotonic() + seconds
    tasks = [] if others is None else _begun(space, output, bench, others, trials, seconds)
    study.run(bench.outcome, trials, until=until)
    for task in tasks:
        task()


def _begun(
    space: Space, output: Path, bench: Bench, others: Others, trials: int, seconds: float
) -> list[Callable[[], None]]:
    """Others that try points from now on; each is to be called and waits until it is done."""
    unedited, crew = bench.unedited, others.crew
    numbers = range(1, 1 + others.count)
    tasks = [crew.submit(_work, space, output, trials, seconds, number, unedited) for number in numbers]
    return [partial(crew.result, task) for task in tasks]


def _work(space: Space, output: Path, trials: int, seconds: float, worker: int, unedited: Readings) -> None:
    """One of several processes; it does not read the unedited model again."""
    until = time.monotonic() + seconds
    with Bench(space, unedited) as bench:
        Study(output, space, _identity(bench)).run(bench.outcome, trials, until=until, worker=worker)


def _ended(
    bench: Bench, output: Path, points: Sequence[Point], controls: int, most: int, others: Others | None
) -> Found:
    objectives = bench.space.search.objectives
    best = front(points, objectives)
    judged = judged_points(bench, _identity(bench), output, points, most, others)
    final = judged or points
    choice = recommend(final, objectives, len(points))
    comparing = (bench.by_judge if judged else None) or bench.comparing
    signal = {point.number: point.outcome for point in points}
    both = [(signal[each.number], each.outcome) for each in judged]
    pairs = [(cheap, dear) for cheap, dear in both if cheap is not None and dear is not None]
    before = {language: comparing.before[language, REFUSED] for language in comparing.edited}
    read = [point.outcome for point in points if point.outcome is not None]
    return Found(
        output=output,
        space=bench.space,
        points=points,
        front=best,
        judged=judged,
        choice=choice,
        optimism=None if choice.point is None else optimism(final, before),
        agreement=agreement([cheap for cheap, _ in pairs], [dear for _, dear in pairs]) if pairs else (),
        controls=_controls(bench, choice, comparing, controls),
        parts=_parts(bench, choice, comparing),
        unedited=[_unedited(*cell, items) for cell, items in comparing.before.items() if items],
        recipe=None if choice.point is None else output / RECIPE,
        seconds={part: sum(outcome.seconds[part] for outcome in read) for part in ("deciding", "reading")},
        weights="",
        notes=comparing.rules.meter.notes,
    )


def _controls(bench: Bench, choice: Choice, comparing: Comparing, draws: int) -> list[Beside]:
    """What the recommended edit has to beat, if it is of one method that has controls."""
    if choice.point is None or choice.point.outcome is None or not draws:
        return []
    recipe = bench.space.at(choice.point.setting)
    method = controls_of(recipe)
    if method is None:
        return []
    settled = method.settled(bench.edit_of(recipe.edits, recipe))
    named = [(each.label, recipe.model_copy(update={"edits": (each,)})) for each in settled.controls(draws)]
    return _compared(bench, choice.point.outcome, comparing, named, "comparing controls")


def _parts(bench: Bench, choice: Choice, comparing: Comparing) -> list[Beside]:
    """Of a stack, each edit alone and every combination of some: whether one undoes what another does."""
    if choice.point is None or choice.point.outcome is None:
        return []
    recipe = bench.space.at(choice.point.setting)
    subsets = [each for count in range(1, len(recipe.edits)) for each in combinations(recipe.edits, count)]
    named = [("+".join(method.label for method in each), recipe.model_copy(update={"edits": each})) for each in subsets]
    return _compared(bench, choice.point.outcome, comparing, named, "comparing parts")


def _compared(
    bench: Bench, chosen: Outcome, comparing: Comparing, named: Sequence[tuple[str, Recipe]], stage: str
) -> list[Beside]:
    parts = Parts(stage, PROMPTS, comparing.rules.meter.prompts, len(named))
    read = list(_read(bench, comparing, named, parts))
    p_values = [paired_p(outcome, chosen) for _, outcome in read]
    return [
        Beside(label, outcome, p_value, adjusted)
        for (label, outcome), p_value, adjusted in zip(read, p_values, holm(p_values), strict=True)
    ]


def _read(
    bench: Bench, comparing: Comparing, named: Sequence[tuple[str, Recipe]], parts: Parts
) -> Iterator[tuple[str, Outcome]]:
    for label, recipe in named:
        with parts.part():
            try:
                yield label, bench.of(recipe, comparing)
            except PolysafeError:  # a control that cannot be made is none to beat
                continue


def _write(found: Found) -> None:
    try:
        if found.recipe is not None and found.choice.point is not None:
            recipe = found.space.at(found.choice.point.setting)
            write_bytes_atomic(found.recipe, recipe.to_yaml(relative_to=found.output).encode())
        else:
            (found.output / RECIPE).unlink(missing_ok=True)
        write_json_atomic(found.output / RESULT, found.to_json())
    except OSError as error:
        raise output_error(found.output, error) from error
