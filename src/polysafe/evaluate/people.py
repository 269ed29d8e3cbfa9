"""How far people agree who labelled answers of a run; kept in its folder, for whoever reads the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from polysafe.checkpoint.writer import output_error
from polysafe.errors import OutputError
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import Format
from polysafe.stats.agreement import Agreement

FILE = "agreement.json"
FORMAT = Format("agreement of raters", "agreement", again="import the sheets again")


@dataclass(frozen=True)
class People:
    """People's labels of answers, in numbers.

    Attributes:
        labelled: Language -> answers that have a label.
        agreements: How far raters agree.
    """

    labelled: Mapping[str, int]
    agreements: tuple[Agreement, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {**FORMAT.head, "labelled": dict(self.labelled), "agreements": list(map(asdict, self.agreements))}

    def keep(self, folder: Path) -> None:
        """Puts it into the folder of a finished run.

        Raises:
            OutputError: Other people's is there, or it cannot be written.
        """
        path = folder / FILE
        if path.exists():
            if load_people(folder) != self:
                raise OutputError("holds what other people said", where=path, remedy="take it away first")
            return
        try:
            write_json_atomic(path, self.as_json())
        except OSError as error:
            raise output_error(path, error) from error


def load_people(folder: Path) -> People | None:
    """What is kept in the folder of a run, None where nobody labelled.

    Raises:
        DataError: It cannot be read, or is of another schema.
    """
    path = folder / FILE
    if not path.exists():
        return None
    return FORMAT.built(TypeAdapter(People).validate_python, FORMAT.read(path), path)
