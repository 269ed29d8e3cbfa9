"""Methods, baselines and random controls on the harder toy family, each with the same candidates to choose from.

    python -m benchmarks.evidence.hard_family run OUT --seeds 10 11 … # builds what is missing; resumable
    python -m benchmarks.evidence.hard_family tables OUT … | FILE [--keep FILE]

What is compared and how is fixed in `endpoints/hard_family.yaml`. Numbers of a toy family are no evidence about any
real model.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from benchmarks.frame.program import Result, options_of, print_tables
from benchmarks.tables.hard import as_digits, tables
from polysafe.checkpoint.opened import open_source
from polysafe.edits.edit import Edit
from polysafe.errors import PolysafeError
from polysafe.files.atomic import write_json_atomic
from polysafe.methods.base import CONTROL, Method
from polysafe.methods.registry import resolve
from polysafe.organism.exam import SETS, Set, examine
from polysafe.organism.family import HARD, build_family
from polysafe.organism.lexicon import LOW, PIVOT
from polysafe.organism.packaged import Family
from polysafe.organism.planted import Planted, recovery
from polysafe.organism.steering import refusal_margins
from polysafe.organism.tokenizer import vocabulary
from polysafe.probe.kept import Measurements
from polysafe.probe.model import LoadedModel, edited, load_model
from polysafe.threads import threads

ENDPOINTS = Path(__file__).parent / "endpoints" / "hard_family.yaml"
ABILITIES: tuple[Set, ...] = ("knowledge", "arithmetic", "reading")
ORACLE = "planted"
ASKED = (PIVOT, *LOW)


@dataclass(frozen=True)
class Glance:
    """How a model does on the validation split, in one language: by the first word of its answers.

    Attributes:
        unsafe: Share of harmful requests that it begins to answer.
        over_refusal: Share of harmless requests that it begins to refuse.
        ability: Share of questions that it answers rightly; nan where they were not asked.
    """

    unsafe: float
    over_refusal: float
    ability: float = nan


class Bench:
    """One family, its members loaded once."""

    def __init__(self, family: Family, plan: Mapping[str, Any], stack: ExitStack) -> None:
        self.family, self.plan, self.world = family, plan, family.world
        self.words = vocabulary(self.world)
        self.sources = {name: stack.enter_context(open_source(path, name)) for name, path in family.members.items()}
        self.models = {name: load_model(self.sources[name]) for name in ("base", *LOW)}
        self.planted = HARD.planting.draw(HARD.network, family.seed) if HARD.planting else Planted((), ())
        self.starts = {
            name: {
                language: replace(self._begins(model, language), ability=self._ability(model, language))
                for language in _asked(name)
            }
            for name, model in self.models.items()
        }
        self.members = {name: self._row(name, name, model, {}) for name, model in self.models.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for every model that was chosen, its outcomes on the test split within."""
        yield from self.members.values()
        donor = load_model(self.sources["safety"])
        yield self._row("safety", "safety", donor, {})
        for start in LOW:
            with _moved(self.models[start], donor, self.planted.layers) as model:
                yield self._row(ORACLE, start, model, {})
        for arm, entry in self.plan["swaps"].items():
            for start in LOW:
                yield from self._arm(arm, _for(start, entry), start)
        for arm, entry in self.plan["edits"].items():
            yield from self._arm(arm, entry, "base")

    def _arm(self, arm: str, entry: Mapping[str, Any], start: str) -> Iterator[dict[str, Any]]:
        """What was chosen for a method, and for every draw of its controls."""
        yield self._chosen(arm, entry, start, {})
        for kind in entry.get("controls", ()):
            for draw in range(self.plan["draws"]):
                control = {"control": kind, "control_seed": draw}
                yield self._chosen(f"control.{arm}.{kind}.{draw}", entry, start, control)

    def _chosen(self, arm: str, entry: Mapping[str, Any], start: str, control: Mapping[str, Any]) -> dict[str, Any]:
        """Of all candidates the one that validation prefers, asked the test split; the start where it prefers none."""
        best, found = _mean(self.starts[start], start), None
        for setting in _settings(entry["choose"], self.plan["candidates"]):
            edit = self._fit({**entry["entry"], **setting, **control})
            if edit is None:
                continue
            with edited(self.models[start], edit, self._readers()) as model:
                unsafe = self._allowed(model, start, best)
            if unsafe is not None:
                best, found = unsafe, (setting, edit)
        if found is None:
            return {**self.members[start], "arm": arm, "chosen": None}
        setting, edit = found
        with edited(self.models[start], edit, self._readers()) as model:
            return self._row(arm, start, model, {"chosen": dict(setting), "found": self._recovered(edit)})

    def _fit(self, options: Mapping[str, Any]) -> Edit | None:
        """The edit of a candidate; None where polysafe refuses to make it."""
        method: Method = resolve(options["method"]).model_validate(
            {name: value for name, value in options.items() if name != "method"}
        )
        try:
            return method.fit(self.sources)
        except PolysafeError as error:
            print(f"    {options['method']}: {error.problem}", flush=True)
            return None

    def _readers(self) -> dict[str, Any]:
        return {name: source.reader for name, source in self.sources.items()}

    def _allowed(self, model: LoadedModel, start: str, best: float) -> float | None:
        """Mean unsafe rate of a candidate; None where it is no better than the best, or costs more than it may.

        Abilities are most of the work: they are asked only of what passes everything else.
        """
        before, bounds = self.starts[start], self.plan["bounds"]
        begins = {language: self._begins(model, language) for language in before}
        refused = fmean(begins[language].over_refusal - each.over_refusal for language, each in before.items())
        worse = begins[PIVOT].unsafe - before[PIVOT].unsafe
        if _mean(begins, start) >= best or refused > bounds["over_refusal"] or worse > bounds["pivot_unsafe"]:
            return None
        lost = fmean(each.ability - self._ability(model, language) for language, each in before.items())
        return None if lost > bounds["ability_loss"] else _mean(begins, start)

    def _begins(self, loaded: LoadedModel, language: str) -> Glance:
        harmful, harmless = (
            refusal_margins(loaded.model, self.world, self.words, language, pairs)  # type: ignore[arg-type]  # a Llama of the family
            for pairs in (self.world.harmful("validation"), self.world.harmless("validation"))
        )
        return Glance(float((harmful <= 0).float().mean()), float((harmless > 0).float().mean()))

    def _ability(self, loaded: LoadedModel, language: str) -> float:
        asked = examine(loaded, self.world, (language,), "validation", ABILITIES)
        return fmean(flag for items in asked.outcomes().values() for flag in items.values())

    def _row(self, arm: str, start: str, model: LoadedModel, more: Mapping[str, Any]) -> dict[str, Any]:
        """The outcomes of a model: for each language and metric a string of digits, items in their order."""
        found = examine(model, self.world, _asked(start), "test", SETS).outcomes()
        outcomes = as_digits(found, "unsafe", "over_refusal", "refused")
        return {"arm": arm, "start": start, **more, "outcomes": outcomes}

    def _recovered(self, edit: Edit) -> dict[str, tuple[float, float, float]]:
        """Precision, recall and chance for what an edit chose of layers, units or heads."""
        network, evidence = HARD.network, edit.provenance[-1].evidence
        if "heads" in evidence:
            heads = [(layer, head) for layer, head in evidence["heads"]]
            return {"heads": recovery(heads, self.planted.heads, network.layers * network.heads)}
        if "layers" in evidence:
            layers = evidence["layers"].items()
            units = {
                (int(layer), unit)
                for layer, each in layers
                for projection in each["projections"].values()
                for unit in projection["units"]
            }
            return {"units": recovery(units, self.planted.units, network.layers * network.intermediate)}
        given = {
            each.layer for each in edit.provenance[-1].decisions if each.layer is not None and each.safety_weight > 0.5
        }
        return {"layers": recovery(given, self.planted.layers, network.layers)} if given else {}


def _asked(start: str) -> tuple[str, ...]:
    """The languages that a model is asked in: an expert in its own and the pivot."""
    return (PIVOT, start) if start in LOW else ASKED


def _mean(glances: Mapping[str, Glance], start: str) -> float:
    """Mean unsafe rate of the languages that an edit is for."""
    names = [name for name in _asked(start) if name != PIVOT]
    return fmean(glances[name].unsafe for name in names)


def _settings(choose: Mapping[str, Sequence[Any]], candidates: int) -> list[dict[str, Any]]:
    found = [dict(zip(choose, values, strict=True)) for values in itertools.product(*choose.values())]
    if len(found) != candidates:
        raise SystemExit(f"{len(found)} candidates of {', '.join(choose)}; every arm has {candidates}")
    return found


def _for(expert: str, value: Any) -> Any:
    """An entry for one language expert."""
    if isinstance(value, Mapping):
        return {_for(expert, key): _for(expert, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_for(expert, each) for each in value]
    return expert if value == "EXPERT" else value


@contextmanager
def _moved(model: LoadedModel, donor: LoadedModel, layers: Sequence[int]) -> Iterator[LoadedModel]:
    """A model with some layers of another, for as long as the context lasts."""
    given = dict(donor.model.named_parameters())
    names = tuple(f"model.layers.{layer}." for layer in layers)
    weights = [(weight, given[name]) for name, weight in model.model.named_parameters() if name.startswith(names)]
    before = [weight.detach().clone() for weight, _ in weights]
    with torch.no_grad():
        for weight, other in weights:
            weight.copy_(other)
        try:
            yield model
        finally:
            for (weight, _), old in zip(weights, before, strict=True):
                weight.copy_(old)


def run(output: Path, seeds: Sequence[int]) -> None:
    """Builds and examines the families of some seeds; one file of results each."""
    plan = yaml.safe_load(ENDPOINTS.read_text(encoding="utf-8"))
    output.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        file = output / f"{seed}.json"
        if file.exists():
            continue
        began = time.process_time()
        family = build_family(seed, output / f"family-{seed}", recipe=HARD)
        built = time.process_time() - began
        rows = []
        with threads(1), ExitStack() as stack, Measurements():
            for row in Bench(family, plan, stack).rows():
                rows.append(row)
                print(seed, row["arm"], row["start"], row.get("chosen"), _brief(row), flush=True)
        seconds = {"building": round(built), "all": round(time.process_time() - began)}
        write_json_atomic(file, {"seed": seed, "cpu_seconds": seconds, "rows": rows})


def kept(results: Iterable[Result]) -> list[Result]:
    """What the tables are made of: of controls the unsafe answers alone."""
    return [{**result, "rows": [_kept(row) for row in result["rows"]]} for result in results]


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    if not row["arm"].startswith(CONTROL):
        return dict(row)
    unsafe = {name: digits for name, digits in row["outcomes"].items() if name.endswith("/unsafe")}
    return {"arm": row["arm"], "start": row["start"], "chosen": row["chosen"], "outcomes": unsafe}


def _brief(row: Mapping[str, Any]) -> str:
    found = {name: digits for name, digits in row["outcomes"].items() if name.endswith("/unsafe")}
    return " ".join(f"{name.partition('/')[0]} {digits.count('1') / len(digits):.2f}" for name, digits in found.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs seeds, or prints the tables of what has been run."""
    parser = options_of(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int)
    options = parser.parse_args(arguments)
    if options.what == "run":
        run(Path(options.places[0]), options.seeds or yaml.safe_load(ENDPOINTS.read_text(encoding="utf-8"))["seeds"])
    else:
        print_tables(options, tables, kept)


if __name__ == "__main__":
    main()
