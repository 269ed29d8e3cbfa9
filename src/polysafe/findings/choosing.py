"""How an edit was chosen: what was tried for a model on validation prompts, what it did, what was taken and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import Format

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FILE = "choosing.json"
FORMAT = Format("record of what was tried", "choosing", again="run the search again", half_characters=True)


@dataclass(frozen=True)
class Gain:
    """What an edit did to refusals of harmful validation prompts in one language.

    Attributes:
        language: The language.
        n: Number of prompts.
        counted: Whether `before` and `after` are shares of prompts that are refused; else they are mean log-odds.
        before: Of the unedited model.
        after: Of the edited one.
        low: Lower end of the 95 % interval of after minus before, paired by prompt.
        high: Upper end of it.
    """

    language: str
    n: int
    counted: bool
    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True)
class Tried:
    """An edit that was tried, or the best of those of a search.

    Attributes:
        name: What it is called: its label, or the methods of a stack.
        points: How many settings of it were tried.
        gains: What the best of them did; empty where none could be made or none may be taken.
        costs: Metric -> mean loss over the languages, in its unit.
        verdict: What came of it, in words.
        taken: Whether it is the one that is taken.
    """

    name: str
    points: int
    gains: tuple[Gain, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    taken: bool = False


@dataclass(frozen=True)
class Choosing:
    """What was tried for one model.

    Attributes:
        model: The model.
        reason: Why what is taken is taken, or why nothing is.
        tried: Everything that was tried.
    """

    model: str
    reason: str
    tried: tuple[Tried, ...]

    @property
    def taken(self) -> Tried | None:
        """What is taken, None where nothing is."""
        return next((each for each in self.tried if each.taken), None)


def save_choosing(folder: Path, found: Sequence[Choosing]) -> None:
    """Leaves what was tried beside results, so that their report shows it.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    write_json_atomic(folder / FILE, {**FORMAT.head, "choices": [asdict(each) for each in found]})


def load_choosing(folder: Path) -> tuple[Choosing, ...]:
    """What `save_choosing` left; nothing where there is none.

    Raises:
        DataError: The file is damaged, or of another version.
    """
    file = folder / FILE
    if not file.exists():
        return ()
    return FORMAT.built(_adapter().validate_python, FORMAT.read(file).get("choices"), file)


@cache
def _adapter() -> TypeAdapter[tuple[Choosing, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[Choosing, ...])
