"""What a model can do: right and wrong answers of one task, item by item."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from polysafe.checkpoint.writer import output_error
from polysafe.errors import DataError
from polysafe.evaluate.metrics import CAPABILITY
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import Format
from polysafe.stats.compare import Outcomes

FORMAT = Format("ability of a model", "ability", again="measure again")
FOLDER = "abilities"

_NAME = re.compile(r"^[\w][\w.-]{0,63}$")


@dataclass(frozen=True)
class Ability:
    """A model's answers to one task.

    Attributes:
        task: Name of the task, for example `belebele`; results call it `capability.belebele`.
        items: Language -> item -> whether the answer was right. Items are named alike in every language.
        protocol: Everything that has to be equal before and after: prompts, template, shots, scoring.
        model: Identity of the model.
        notes: What a reader should know: languages that the task lacks, what was left out.
    """

    task: str
    items: Mapping[str, Mapping[str, bool]]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Name of the metric in rows."""
        return CAPABILITY + self.task

    @property
    def outcomes(self) -> Outcomes:
        """(language, metric) -> item -> whether the answer was right."""
        return {(language, self.metric): dict(items) for language, items in self.items.items()}

    def save(self, run: Path) -> None:
        """Writes it into the folder of a run, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        content = {
            **FORMAT.head,
            "task": self.task,
            "model": dict(self.model),
            "protocol": dict(self.protocol),
            "notes": list(self.notes),
            "items": {language: dict(items) for language, items in self.items.items()},
        }
        path = run / FOLDER / f"{self.task}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(path, content)
        except OSError as error:
            raise output_error(path, error) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            DataError: The file is not such a file, or of another schema.
        """
        data = FORMAT.read(path)
        _check(data, path)
        return cls(data["task"], data["items"], data["protocol"], data["model"], tuple(data["notes"]))


def load_abilities(run: Path) -> tuple[Ability, ...]:
    """All abilities in the folder of a run, by name of the task.

    Raises:
        DataError: One of them cannot be read.
    """
    return tuple(Ability.load(path) for path in sorted((run / FOLDER).glob("[!.]*.json")))


def _check(data: Mapping[str, Any], path: Path) -> None:
    wanted = {"task": str, "items": dict, "protocol": dict, "model": dict, "notes": list}
    wrong = [name for name, kind in wanted.items() if not isinstance(data.get(name), kind)]
    if wrong or not _NAME.match(data["task"]):
        raise DataError(f"{', '.join(wrong) or 'task'} is not what it has to be", where=path)
    for language, items in data["items"].items():
        if not isinstance(items, dict) or not all(isinstance(right, bool) for right in items.values()):
            raise DataError("an item is neither right nor wrong", where=f"{path}, {language}")
