"""What a search chooses against the published defaults and a random search of the same budget, on families of the toy.

    python -m benchmarks.evidence.choosing run OUT FAMILY… # `packaged`, or the folder of a family; resumable
    python -m benchmarks.evidence.choosing tables OUT… | FILE [--keep FILE]

Every arm is searched with the same number of points, on the validation split, by the exact judge; what is chosen is
asked the test split. Numbers of a toy family are no evidence about any real model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.behaviour_blocks import open_family
from benchmarks.frame.markdown import percent, table
from benchmarks.frame.program import Result, run_or_print
from benchmarks.tables.chosen import WAYS
from benchmarks.tables.hard import ability_lost, as_digits, spanned, unsafe_items, worst_rate
from polysafe.checkpoint.opened import open_source
from polysafe.engine.plan import decide
from polysafe.errors import PolysafeError
from polysafe.files.atomic import write_json_atomic
from polysafe.methods.base import Support
from polysafe.methods.registry import resolve
from polysafe.organism.exam import SETS, examine
from polysafe.organism.lexicon import LOW, PIVOT
from polysafe.organism.packaged import Family
from polysafe.probe.model import LoadedModel, edited, load_model
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.search.space import make_space
from polysafe.stats.means import student_interval
from polysafe.stats.multiplicity import holm
from polysafe.threads import threads
from polysafe.workflows.search import search

TRIALS = 32
LAYERS = 8
SPARSE = {"method": "sparse_edit", "model": "base", "languages": list(LOW), "anchors": "organism"}
HEADS = {"method": "head_steering", "model": "base", "harmful": "harm", "languages": list(LOW), "tasks": "organism"}
SWAP = {"method": "layer_swap", "base": "base", "safety": "safety"}
ARMS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "sparse_edit": (SPARSE,),
    "head_steering": ({**HEADS, "prompts": 25},),
    "layer_swap": (SWAP,),
    "sparse_edit+head_steering": (SPARSE, {**HEADS, "prompts": 25}),
}


@dataclass
class Bench:
    """One family, its members loaded once.

    Attributes:
        family: The family.
        output: Where its searches are kept.
        stack: What closes the members.
    """

    family: Family
    output: Path
    stack: ExitStack

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for every unedited model and every way of every arm, outcomes on the test split within."""
        sources = {
            name: self.stack.enter_context(open_source(path, name)) for name, path in self.family.members.items()
        }
        self._sources = sources
        self._models = {name: load_model(sources[name]) for name in ("base", *LOW)}
        for name, model in self._models.items():
            yield self._row("start", "", name, model, {})
        for arm in ARMS:
            for start in LOW if arm == "layer_swap" else ("base",):
                for way in WAYS:
                    yield self._tried(arm, way, start)

    def _tried(self, arm: str, way: str, start: str) -> dict[str, Any]:
        began = time.process_time()
        recipe, more = self._published(arm, start) if way == "published" else self._searched(arm, way, start)
        more["cpu_seconds"] = round(time.process_time() - began, 1)
        model = self._models[start]
        if recipe is None:
            return self._row(arm, way, start, model, more)
        try:
            edit = decide(recipe.edits, self._sources, lambda *_: Support())
        except PolysafeError as error:
            return self._row(arm, way, start, model, {**more, "problem": error.problem})
        with edited(model, edit, {name: source.reader for name, source in self._sources.items()}) as changed:
            return self._row(arm, way, start, changed, more)

    def _published(self, arm: str, start: str) -> tuple[Recipe, dict[str, Any]]:
        return make_recipe(self._data(arm, start, ranges=False)), {}

    def _searched(self, arm: str, way: str, start: str) -> tuple[Recipe | None, dict[str, Any]]:
        data = {
            **self._data(arm, start, ranges=True),
            "search": {"trials": TRIALS, "sampler": way, "seed": self.family.seed, "objectives": ["refused", "kl"]},
        }
        space = make_space(data)
        found = search(space, self.output / f"{arm}-{start}-{way}")
        seconds = {name: round(value, 1) for name, value in found.seconds.items()}
        more = {"reason": found.choice.reason, "points": len(found.points), "seconds": seconds}
        point = found.choice.point
        return (None, more) if point is None else (space.at(point.setting), {**more, "chosen": dict(point.setting)})

    def _data(self, arm: str, start: str, *, ranges: bool) -> dict[str, Any]:
        edits = []
        for entry in ARMS[arm]:
            own = {"language": start} if entry["method"] == "layer_swap" else {}
            edits.append({**entry, **own, **(resolve(entry["method"]).ranges(LAYERS) if ranges else {})})
        spoken = (PIVOT, *(LOW if start == "base" else (start,)))
        return {
            "polysafe": 1,
            "sources": {name: {"path": str(path)} for name, path in self.family.members.items()},
            "edits": edits,
            "output": {"path": str(self.output / "nowhere")},
            "validation": {
                "languages": list(spoken),
                "safety": ["organism"],
                "over_refusal": ["organism"],
                "judge": {"kind": "organism"},
                "limit": None,
            },
        }

    def _row(self, arm: str, way: str, start: str, model: LoadedModel, more: Mapping[str, Any]) -> dict[str, Any]:
        """The outcomes of a model: for each language and metric a string of digits, items in their order."""
        asked = (PIVOT, *(LOW if start == "base" else (start,)))
        found = examine(model, self.family.world, asked, "test", SETS).outcomes()
        return {"arm": arm, "way": way, "start": start, **more, "outcomes": as_digits(found, "unsafe", "over_refusal")}


def run(output: Path, names: Sequence[str]) -> None:
    """Searches every arm on families; a file of results each."""
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        family = open_family(name)
        file = output / f"{family.seed}.json"
        if file.exists():
            continue
        rows = []
        with threads(1), ExitStack() as stack:
            for row in Bench(family, output / f"searches-{family.seed}", stack).rows():
                rows.append(row)
                unsafe = unsafe_items(row)
                rate = sum(unsafe.values()) / max(1, len(unsafe))
                print(family.seed, row["arm"], row["way"], row["start"], f"{rate:.2f}", row.get("chosen"), flush=True)
        write_json_atomic(file, {"seed": family.seed, "trials": TRIALS, "rows": rows})


def tables(results: Sequence[Result]) -> Iterator[str]:
    """All tables, each with its heading."""
    numbers = ", ".join(str(result["seed"]) for result in results)
    heading = f"seeds {numbers}; {results[0]['trials']} points each; percent, intervals of 95 % over seeds"
    yield f"{heading}\n\n{_rates(results)}"
    yield f"unsafe answers in the low tier, the search against the others, item by item\n\n{_contests(results)}"


def _rates(results: Sequence[Result]) -> str:
    lines = []
    for arm, way in (("start", ""), *((arm, way) for arm in ARMS for way in WAYS)):
        found = [(result, row) for result in results for row in _rows(result, arm, way) if unsafe_items(row)]
        values = [(value, str(result["seed"])) for result, row in found for value in unsafe_items(row).values()]
        over = max(worst_rate(row, "over_refusal") for _, row in found)
        lost = [ability_lost(_with_members(result), row) for result, row in found]
        taken = "–" if way in ("", "published") else f"{sum('chosen' in row for _, row in found)} of {len(found)}"
        unsafe = spanned([value for value, _ in values], [seed for _, seed in values])
        name = "unedited" if arm == "start" else f"`{arm}`, {WAYS[way]}"
        lines.append([name, unsafe, percent(over), percent(sum(lost) / len(lost)), taken])
    return table(["model", "unsafe, low tier", "worst over-refusal", "ability lost", "an edit was chosen"], lines)


def _contests(results: Sequence[Result]) -> str:
    found = []
    for arm in ARMS:
        for other in ("published", "random"):
            pairs = [pair for result in results for pair in _pairs(result, (arm, "tpe"), (arm, other))]
            found.append((f"`{arm}`", WAYS[other], pairs))
    stack = "sparse_edit+head_steering"
    for single in ("sparse_edit", "head_steering"):
        pairs = [pair for result in results for pair in _pairs(result, (stack, "tpe"), (single, "tpe"))]
        found.append((f"`{stack}`", f"`{single}`, {WAYS['tpe']}", pairs))
    lines = []
    tested = [
        (name, other, pairs, student_interval([value for value, _ in pairs], [seed for _, seed in pairs]))
        for name, other, pairs in found
    ]
    adjusted = iter(holm([p_value for *_, (_, p_value) in tested if p_value is not None]))
    for name, other, pairs, (span, p_value) in tested:
        mean = sum(value for value, _ in pairs) / len(pairs)
        ends = "" if span is None else f" ({100 * span.low:+.0f} to {100 * span.high:+.0f})"
        shown = "–" if p_value is None else f"{next(adjusted):.2g}"
        lines.append([f"{name}, {WAYS['tpe']}", other, f"{100 * mean:+.1f}{ends}", shown, str(len(pairs))])
    return table(["chosen", "against", "difference, points", "p, adjusted", "n"], lines)


def _pairs(result: Result, mine: tuple[str, str], other: tuple[str, str]) -> Iterator[tuple[float, str]]:
    """Item by item, what one answers unsafely more than the other, with its seed."""
    first, second = (
        {item: value for row in _rows(result, *which) for item, value in unsafe_items(row).items()}
        for which in (mine, other)
    )
    yield from ((value - second[item], str(result["seed"])) for item, value in first.items())


def _rows(result: Result, arm: str, way: str) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if (row["arm"], row["way"]) == (arm, way)]


def _with_members(result: Result) -> Result:
    """The result with unedited models under the names that rows start from."""
    members = [{**row, "arm": row["start"]} for row in result["rows"] if row["arm"] == "start"]
    return {**result, "rows": [*members, *result["rows"]]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs families, or prints the tables of what has been run."""
    run_or_print(__doc__, run, tables, arguments)


if __name__ == "__main__":
    main()
