"""Finds benchmarks of ability by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from polysafe.data.languages import language
from polysafe.data.questions import Question, QuestionSet
from polysafe.data.sets.base import Benchmark, Request, benchmarks
from polysafe.errors import DataError
from polysafe.registry import Registry

GROUP = "polysafe.exams"
_EXAMS: Registry[Benchmark[Question]] = benchmarks("benchmark of ability", GROUP, "polysafe.data.exams")


def exam_names() -> tuple[str, ...]:
    """Names of all benchmarks of ability."""
    return _EXAMS.names()


def exam(name: str) -> Benchmark[Question]:
    """The benchmark of ability called `name`.

    Raises:
        DataError: There is none.
    """
    return _EXAMS.get(name)


def load_questions(
    name: str,
    *,
    data: Path | None = None,
    revision: str | None = None,
    languages: Collection[str] | None = None,
    limit: int | None = None,
) -> QuestionSet:
    """Reads a benchmark of ability, from a folder or from the hub.

    A language that it lacks is left out; what there is, `languages` of the result tells.

    Args:
        name: Its name, and the split where it is not `test`: `xcopa.validation`.
        data: Folder with a folder per set, in the layout of the source or of the hub; without it the hub is asked.
        revision: Commit on the hub.
        languages: Languages that are wanted, in any spelling; all that there are by default.
        limit: Number of parallel rows to keep.

    Raises:
        DataError: There is no such set, split or folder, none of the languages is there, or the files are not what they
            have to be.
    """
    bare, *words = name.split(".")
    found = exam(bare)
    parts = {**found.defaults, **found.parts_of(words)}
    folder, origin = found.folder(data, revision)
    codes = None if languages is None else frozenset(language(each).code for each in languages)
    questions = tuple(found.read(Request(folder, parts, codes)))
    if not questions:
        raise DataError(
            "holds no question" if codes is None else f"has no question in {', '.join(sorted(codes))}",
            where=origin,
            remedy=f"get {found.source}, or name other languages",
        )
    return QuestionSet(found.full_name(parts), questions, found.licence, origin).select(codes, limit)
