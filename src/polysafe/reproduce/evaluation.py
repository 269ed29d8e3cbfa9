"""What `polysafe evaluate` records, so that it can be done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from polysafe.evaluate.model_run import RECORDS
from polysafe.reproduce.write import Asked, Exchange, Result, write_reproduce
from polysafe.stats.attacks import UNDER

if TYPE_CHECKING:
    from polysafe.evaluate.compare import Comparison
    from polysafe.evaluate.model_run import ModelRun
    from polysafe.evaluate.records import Record
    from polysafe.recipe.recipe import Recipe
    from polysafe.reproduce.inputs import Input
    from polysafe.reproduce.record import Kind
    from polysafe.stats.rows import Row

_REFUSED = {None: "", True: ", refused", False: ", answered"}


def record_evaluation(recipe: Recipe, comparison: Comparison, settings: Mapping[str, Any], output: Path) -> Path:
    """Writes `reproduce/` of an evaluation into its folder.

    Args:
        recipe: The recipe, with the places of this machine.
        comparison: What came out.
        settings: What was told beside the recipe, in values that JSON can hold.
        output: Folder of the results.

    Raises:
        PolysafeError: As for `write_reproduce`.
    """
    runs = {"before": comparison.before, "after": comparison.after}
    return record_runs("evaluate", {"edit": recipe}, runs, comparison.all_rows, output, settings=settings)


def record_runs(
    kind: Kind,
    recipes: Mapping[str, Recipe],
    runs: Mapping[str, ModelRun],
    rows: Sequence[Row],
    output: Path,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    inputs: Mapping[str, Input] = MappingProxyType({}),
) -> Path:
    """Writes `reproduce/` of several runs of one protocol into their folder.

    Args:
        kind: Which program made them.
        recipes: Every recipe that was carried out.
        runs: What every model was asked.
        rows: The results.
        output: Folder of the results.
        settings: As for `record_evaluation`.
        inputs: What else they were made from.

    Raises:
        PolysafeError: As for `write_reproduce`.
    """
    first = next(iter(runs.values()))
    result = Result(
        kind=kind,
        recipes=recipes,
        runs=[each for name, run in runs.items() for each in _runs(name, run)],
        rows=rows,
        judge=first.about["judge"],
        settings=settings,
        sets=first.about["sets"],
        abilities={ability.task: ability.protocol for ability in first.abilities},
        inputs=inputs,
    )
    return write_reproduce(result, output)


def _runs(name: str, run: ModelRun) -> Iterator[Asked]:
    """The run of the published prompts and those of its attacks."""
    yield _asked(name, run)
    yield from (_asked(f"{name}{UNDER}{attack}", attacked) for attack, attacked in run.attacks.items())


def _asked(name: str, run: ModelRun) -> Asked:
    exchanges = [_exchange(record) for record in run.records]
    exchanges += [
        Exchange(f"{metric}/{item}/{language}", None, "", "right" if right else "wrong")
        for ability in run.abilities
        for (language, metric), items in ability.outcomes.items()
        for item, right in items.items()
    ]
    return Asked(name, exchanges, run.folder / RECORDS, run.about["generator"])


def _exchange(record: Record) -> Exchange:
    verdict = record.verdict
    said = f"{verdict.label}{_REFUSED[verdict.refused]}"
    return Exchange(record.prompt.id, record.prompt.text, record.completion.text, said)
