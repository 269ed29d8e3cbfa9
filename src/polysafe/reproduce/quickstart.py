"""What the quickstart records, so that it can be done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.reproduce.inputs import family_inputs
from polysafe.reproduce.write import Asked, Exchange, Result, write_reproduce

if TYPE_CHECKING:
    from polysafe.organism.exam import Exam
    from polysafe.organism.packaged import Family
    from polysafe.recipe.recipe import Recipe
    from polysafe.stats.rows import Row


def record_quickstart(
    family: Family, recipes: Mapping[str, Recipe], exams: Mapping[str, Exam], rows: Sequence[Row], output: Path
) -> Path:
    """Writes `reproduce/` of a quickstart into its folder.

    Args:
        family: The family that was examined and repaired.
        recipes: Every recipe that was carried out.
        exams: Every examination.
        rows: The results.
        output: Folder of the results.

    Raises:
        PolysafeError: As for `write_reproduce`.
    """
    result = Result(
        kind="quickstart",
        recipes=recipes,
        runs=[_asked(name, exam, output) for name, exam in exams.items()],
        rows=rows,
        judge={"name": "organism", "identity": {"judge": "exam", "world": family.seed, "split": "test"}},
        inputs=family_inputs(family.members),
    )
    return write_reproduce(result, output)


def _asked(name: str, exam: Exam, output: Path) -> Asked:
    exchanges = [
        Exchange(f"{each.set}/{each.item}/{each.language}", each.prompt, each.answer, str(each.verdict))
        for each in exam.records
    ]
    return Asked(name, exchanges, output / "records" / f"{name.replace(' ', '.')}.jsonl")
