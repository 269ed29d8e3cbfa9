"""What every model of the family in real languages answered, prompt by prompt, over its training seeds, in one file.

The file has no text: the names of prompts, and for every model a digit for each. So tables and tests can be made again
without the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polysafe.evaluate.metrics import CAPABILITY
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.numbers import BITS

SCHEMA = 1
BOUNDARY = "XSTest refused"
_BOUNDARY_SET = "xstest"
ALIGNED = "aligned"
EXPERTS = ("bn", "vi")
_RATES = ("unsafe", "refused", "over_refusal")

Cell = tuple[str, str]
"""Language and metric."""
Values = Mapping[Cell, Mapping[str, float]]
"""Cell -> item -> its value: 0 or 1, or bits per character."""


@dataclass(frozen=True)
class Outcomes:
    """What was measured of a family.

    Attributes:
        seeds: For each training seed: name of a model -> its values.
        names: The training seeds.
        repeated: Item -> the first one with the same text, for items that are not the first themselves.
    """

    seeds: Sequence[Mapping[str, Values]]
    names: Sequence[int]
    repeated: Mapping[str, str]

    @property
    def models(self) -> tuple[str, ...]:
        """All models, in the order of the first seed; an edit that validation did not take is missing in some."""
        return tuple(dict.fromkeys(name for seed in self.seeds for name in seed))


def start_of(model: str) -> str:
    """The member that a model was made from: the language of an expert stands last in its name."""
    ending = model.rpartition(".")[2]
    return ending if ending in EXPERTS else ALIGNED


def read_runs(folders: Sequence[Path]) -> Outcomes:
    """The outcomes of `polysafe quickstart --family gemma`, a folder for each seed."""
    return gathered(folders, [_seed(folder) for folder in folders])


def gathered(folders: Sequence[Path], names: Sequence[int]) -> Outcomes:
    """The outcomes of the runs in folders, one for each of the training seeds."""
    seeds, repeated = [], {}
    for folder in folders:
        runs = [ModelRun.load(file.parent) for file in sorted((folder / "runs").glob("*/run.json"))]
        seeds.append({run.folder.name: dict(_values(run)) for run in runs})
        for run in runs:
            repeated.update(run.repeated)
    return Outcomes(seeds, names, repeated)


def _seed(folder: Path) -> int:
    return int(json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))["meta"]["Family"]["seed"])


def _values(run: ModelRun) -> Iterator[tuple[Cell, dict[str, float]]]:
    for (language, metric), items in run.outcomes.items():
        if metric == "over_refusal":
            near = {item for item in items if item.startswith(_BOUNDARY_SET)}
            for name, chosen in ((metric, items.keys() - near), (BOUNDARY, near)):
                if chosen:
                    yield (language, name), {item: float(items[item]) for item in items if item in chosen}
        elif metric in _RATES or metric.startswith(CAPABILITY):
            yield (language, metric.removeprefix(CAPABILITY)), {item: float(flag) for item, flag in items.items()}
    for numbers in run.numbers:
        for (language, metric), values in numbers.values.items():
            if metric == BITS:
                yield (language, metric), {item: round(value, 5) for item, value in values.items()}


def save(outcomes: Outcomes, file: Path, **more: Any) -> None:
    """Writes outcomes: a string of digits for every model, in the order of the items of its cell; and what is added."""
    seen: dict[str, dict[str, None]] = {}
    for seed in outcomes.seeds:
        for values in seed.values():
            for cell, found in values.items():
                seen.setdefault("/".join(cell), {}).update(dict.fromkeys(found))
    items = {name: list(each) for name, each in seen.items()}
    content = {
        "schema": SCHEMA,
        **more,
        "items": items,
        "repeated": outcomes.repeated,
        "seeds": [
            {
                "seed": name,
                "models": {
                    model: {"/".join(cell): _packed(items["/".join(cell)], found) for cell, found in values.items()}
                    for model, values in seed.items()
                },
            }
            for name, seed in zip(outcomes.names, outcomes.seeds, strict=True)
        ],
    }
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _packed(items: Sequence[str], found: Mapping[str, float]) -> str | list[float | None]:
    if set(found.values()) <= {0.0, 1.0}:
        return "".join("-" if item not in found else str(int(found[item])) for item in items)
    return [found.get(item) for item in items]


def read(file: Path) -> Outcomes:
    """The outcomes in a file."""
    content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if content["schema"] != SCHEMA:
        raise SystemExit(f"{file} has schema {content['schema']}, wanted is {SCHEMA}")
    seeds = [
        {
            model: {_cell(name): _unpacked(content["items"][name], packed) for name, packed in cells.items()}
            for model, cells in seed["models"].items()
        }
        for seed in content["seeds"]
    ]
    return Outcomes(seeds, [seed["seed"] for seed in content["seeds"]], content["repeated"])


def _cell(name: str) -> Cell:
    language, _, metric = name.partition("/")
    return language, metric


def _unpacked(items: Sequence[str], packed: Sequence[Any]) -> dict[str, float]:
    pairs = zip(items, packed, strict=True)
    return {item: float(value) for item, value in pairs if value not in ("-", None)}
