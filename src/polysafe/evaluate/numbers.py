"""Numbers that are no yes or no, read of one model item by item: refusal log-odds, bits per character."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from polysafe.checkpoint.writer import output_error
from polysafe.errors import OutputError
from polysafe.evaluate.keys import differing
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import Format
from polysafe.stats.means import MeanChange, Values, mean_changes

Kind = Literal["refusal_odds", "bits_per_character"]
"""What is measured; also the stem of its file in the folder of a run."""
BITS = "bits_per_character"
"""Metric: how badly a model predicts a text; the lower the better."""


@dataclass(frozen=True)
class Numbers:
    """Numbers of one kind of one model.

    Attributes:
        kind: What they are.
        values: (language, metric) -> item -> number; items are named alike in every language.
        protocol: Everything that has to be equal before and after.
        model: Identity of the model.
        notes: What a reader should know: languages that were left out, items that have no number.
    """

    kind: Kind
    values: Values
    protocol: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def save(self, run: Path) -> None:
        """Writes them into the folder of a run, whole or not at all.

        Raises:
            OutputError: They cannot be written.
        """
        content = {
            **_format(self.kind).head,
            "model": dict(self.model),
            "protocol": dict(self.protocol),
            "notes": list(self.notes),
            "values": [[language, metric, dict(items)] for (language, metric), items in self.values.items()],
        }
        path = run / file_of(self.kind)
        try:
            write_json_atomic(path, content)
        except OSError as error:
            raise output_error(path, error) from error

    @classmethod
    def load(cls, run: Path, kind: Kind) -> Self | None:
        """Reads them from the folder of a run; None where they were not measured.

        Raises:
            DataError: The file is not such a file, or of another schema.
        """
        path = run / file_of(kind)
        if not path.is_file():
            return None
        form = _format(kind)

        def shaped(data: Mapping[str, Any]) -> tuple[Any, ...]:
            values = {(str(code), str(metric)): _finite(items) for code, metric, items in data["values"]}
            return values, dict(data["protocol"]), dict(data["model"]), tuple(map(str, data["notes"]))

        return cls(kind, *form.built(shaped, form.read(path), path))

    @classmethod
    def measured(cls, run: Path, kind: Kind, protocol: Mapping[str, Any], model: Mapping[str, Any]) -> Self | None:
        """What the folder of a run holds already, measured in this way; None where it holds nothing of the kind.

        Raises:
            OutputError: It was measured otherwise.
        """
        found = cls.load(run, kind)
        if found is not None and (names := [*differing(found.protocol, protocol), *differing(found.model, model)]):
            raise OutputError(
                f"was measured otherwise: {', '.join(names)} differ",
                where=run / file_of(kind),
                remedy="choose another output folder, or delete the file",
            )
        return found


def _format(kind: Kind) -> Format:
    return Format(f"{kind.replace('_', ' ')} of a model", kind, again="measure again")


def file_of(kind: Kind) -> str:
    """Name of the file in the folder of a run."""
    return f"{kind}.json"


def load_numbers(run: Path) -> tuple[Numbers, ...]:
    """All numbers in the folder of a run.

    Raises:
        DataError: A file is not what it has to be.
    """
    kinds: tuple[Kind, ...] = get_args(Kind)
    return tuple(found for kind in kinds if (found := Numbers.load(run, kind)) is not None)


def changed_numbers(
    label: str, before: tuple[Numbers, ...], after: tuple[Numbers, ...], clusters: Mapping[str, str] | None = None
) -> tuple[MeanChange, ...]:
    """What changed by an edit in numbers that both models have, measured alike.

    Args:
        label: The name that the changes carry.
        before: Numbers of the model that the edit starts from.
        after: Numbers of the edited model.
        clusters: Item -> its cluster, for items that occur twice.
    """
    new = {each.kind: each for each in after}
    return tuple(
        change
        for old in before
        if old.kind in new and not differing(old.protocol, new[old.kind].protocol)
        for change in mean_changes(label, old.values, new[old.kind].values, clusters)
    )


def _finite(items: Mapping[str, Any]) -> dict[str, float]:
    """JSON of a format holds no infinity; what is left are texts and truths that `float` would take for numbers."""
    for item, value in items.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{value!r:.80} of {item!r:.80} is no number")
    return {item: float(value) for item, value in items.items()}
