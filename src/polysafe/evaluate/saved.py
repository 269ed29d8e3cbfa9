"""What `polysafe evaluate` leaves behind: everything that a report, a model card and a second run are made from.

before/, after/      the two runs
results.json         their comparison
recipe.yaml          the recipe with every default written out
edit/                the edit
evaluation.json      what belongs to what, with the hashes of all of these; written last
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from polysafe._version import __version__
from polysafe.checkpoint.digest import hash_file
from polysafe.checkpoint.output import RECORDS as MADE_RECORDS
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import JSON_FILE, TENSOR_FILE, Edit
from polysafe.edits.size import StartShapes
from polysafe.evaluate.compare import RESULTS, Comparison, compare_runs
from polysafe.evaluate.model_run import ATTACKS, RUN
from polysafe.files.atomic import write_bytes_atomic, write_json_atomic
from polysafe.files.json_file import Format
from polysafe.recipe.recipe import Recipe

FILE = "evaluation.json"
FORMAT = Format(
    "evaluation",
    "evaluation",
    absent="there is no evaluation here",
    find=f"name a folder of evaluate; it holds {FILE}",
    again="evaluate again; the cache makes it short",
)
RECIPE = "recipe.yaml"
EDIT = "edit"
BEFORE, AFTER, CONTROLS = "before", "after", "controls"
# The hash of its records is in every run already.
_HASHED = (RECIPE, RESULTS, f"{EDIT}/{JSON_FILE}", f"{EDIT}/{TENSOR_FILE}", f"{BEFORE}/{RUN}", f"{AFTER}/{RUN}")
_FURTHER = re.compile(rf"(({BEFORE}|{AFTER})/{ATTACKS}|{CONTROLS})/\w[\w.-]*/{re.escape(RUN)}")
"""Runs of attacks, and of controls."""


class About(BaseModel):
    """The content of `evaluation.json`.

    Attributes:
        polysafe_version: The polysafe that wrote it.
        method: Name of the method in results.
        pivot: Language that the others are compared with.
        before: Name of the model that the edits start from.
        after: Name of the edited model.
        edit_sha256: Hash of the edit.
        start: Sizes of the model that the edits start from.
        files: File -> its SHA-256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    polysafe_version: str
    method: str
    pivot: str
    before: str
    after: str
    edit_sha256: str
    start: StartShapes
    files: dict[str, str]
    controls: tuple[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], ...] = ()


@dataclass(frozen=True)
class SavedEvaluation:
    """A finished evaluation as it is on disk.

    Attributes:
        folder: Where it is.
        about: The content of `evaluation.json`.
        comparison: The model that the edits start from and the edited one, item by item.
        edit: The edit.
        controls: The model that the edits start from and each control, item by item.
    """

    folder: Path
    about: About
    comparison: Comparison
    edit: Edit
    controls: tuple[Comparison, ...] = ()

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads what `save_evaluation` wrote, and checks that nothing in it was changed since.

        Raises:
            DataError: There is no evaluation, it is of another schema, or a file is missing or was changed.
            EditError: The edit cannot be read.
        """
        root = Path(folder)
        about = _read(root / FILE)
        for name, expected in about.files.items():
            _check(root / name, expected)
        comparison = compare_runs(root / BEFORE, root / AFTER, about.method)
        controls = tuple(compare_runs(root / BEFORE, root / CONTROLS / name, name) for name in about.controls)
        return cls(root, about, comparison, Edit.load(root / EDIT), controls)


def save_evaluation(
    folder: Path,
    recipe: Recipe,
    comparison: Comparison,
    *,
    made: Path,
    start: Path,
    pivot: str,
    controls: Sequence[Comparison] = (),
) -> SavedEvaluation:
    """Writes recipe, edit and `evaluation.json` beside the runs and their results.

    Args:
        folder: The folder that holds `before/`, `after/` and `results.json`.
        recipe: The recipe.
        comparison: What was measured.
        made: Folder of the edited model.
        start: Folder of the model that the edits start from.
        pivot: Language that the others are compared with.
        controls: What each control changed; its run lies in `controls/`.

    Raises:
        OutputError: A file cannot be written.
        PolysafeError: The edit or the model that it starts from cannot be read.
    """
    edit = Edit.load(made / MADE_RECORDS)
    try:
        write_bytes_atomic(folder / RECIPE, recipe.to_yaml(relative_to=folder).encode())
        _copy_edit(made / MADE_RECORDS, folder / EDIT)
        content = {
            "polysafe_version": __version__,
            "method": comparison.method,
            "pivot": pivot,
            "before": comparison.before.name,
            "after": comparison.after.name,
            "edit_sha256": edit.sha256,
            "start": StartShapes.of(edit, open_checkpoint(start)).model_dump(mode="json"),
            "files": {
                name: hash_file(folder / name) for name in _hashed(comparison, controls) if (folder / name).exists()
            },
            **({"controls": [each.method for each in controls]} if controls else {}),
        }
        write_json_atomic(folder / FILE, {**FORMAT.head, **content})
    except OSError as error:
        raise output_error(folder, error) from error
    return SavedEvaluation(folder, About.model_validate(content), comparison, edit, tuple(controls))


def _hashed(comparison: Comparison, controls: Sequence[Comparison]) -> tuple[str, ...]:
    attacked = [
        f"{side}/{ATTACKS}/{name}/{RUN}"
        for side, run in ((BEFORE, comparison.before), (AFTER, comparison.after))
        for name in run.attacks
    ]
    return (*_HASHED, *attacked, *(f"{CONTROLS}/{each.method}/{RUN}" for each in controls))


def _copy_edit(source: Path, target: Path) -> None:
    """Byte for byte; the factors go first, so that `edit.json` never names factors that are not there."""
    target.mkdir(exist_ok=True)
    for name in (TENSOR_FILE, JSON_FILE):
        if (source / name).exists():
            write_bytes_atomic(target / name, (source / name).read_bytes())
        else:
            (target / name).unlink(missing_ok=True)


def _read(path: Path) -> About:
    about = FORMAT.built(About.model_validate, FORMAT.read(path), path)
    if strange := sorted(name for name in set(about.files) - set(_HASHED) if not _FURTHER.fullmatch(name)):
        FORMAT.refuse(f"names a file that is none of an evaluation: {strange[0]!r}", path)
    return about


def _check(path: Path, expected: str) -> None:
    if not path.is_file() or hash_file(path) != expected:
        FORMAT.refuse("is missing or differs from what was evaluated (SHA-256)", path)
