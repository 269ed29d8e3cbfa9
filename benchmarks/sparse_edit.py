"""Sparse weight editing on toy families: published and validated settings, languages left out, controls, ablations.

    python -m benchmarks.sparse_edit FAMILY [FAMILY ...] --json docs/sparse_edit_runs.json
    python -m benchmarks.sparse_edit --tables docs/sparse_edit_runs.json

Layers and gain are chosen on the validation split; every number is of the test split. Numbers of a toy family are no
evidence about any real model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.edits.edit import Edit
from polysafe.errors import PolysafeError
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.organism.exam import REQUESTS, SETS, Exam, Set, examine
from polysafe.organism.lexicon import LANGUAGES, LOW
from polysafe.organism.packaged import Family, load_family
from polysafe.probe.model import edited, load_model

MAIN = ("base", "published", "validated")
COMMON: Mapping[str, Any] = {"model": "base", "languages": LOW, "anchors": "organism", "utility_weight": 0.1}
PUBLISHED: Mapping[str, Any] = {**COMMON, "cap": 0.25}
VALIDATED: Mapping[str, Any] = {
    **COMMON,
    "absolute": True,
    "cap": 0.5,
    "target_gain": (1.0, 1.5, 2.0, 3.0),
    "max_layers": 3,
}
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    **{f"rank {rank}": {"rank": rank} for rank in (1, 4, 8, 16, 64)},
    "rank unlimited": {"rank": None},
    "utility term off": {"utility": "none"},
    "utility hard": {"utility": "hard"},
    "ridge 1e-6": {"ridge": 1e-6},
    "ridge 1": {"ridge": 1.0},
    "selector gated product": {"selector": "gated_product"},
    "selector probe": {"selector": "probe"},
    "one-sided, cap 25 %": {"absolute": False, "cap": 0.25},
    "two-sided, cap 25 %": {"cap": 0.25},
    "mean pooling": {"pooling": "mean"},
    "pivot pinned": {"pivot_weight": 1.0},
}
_IMPLIED = {"safe", "wrong_language", "invalid"}
FRONTIER = (0.01, 0.03, 0.3, 1.0, 3.0, 10.0)


class Bench:
    """One family, its base loaded once."""

    def __init__(self, family: Family, stack: ExitStack) -> None:
        checkpoint = open_checkpoint(family.members["base"])
        reader = stack.enter_context(CheckpointReader(checkpoint))
        self.family = family
        self.source = Source("base", checkpoint, classify(checkpoint), reader)
        self.model = load_model(self.source)
        self.rows: list[dict[str, Any]] = []

    def fit(self, options: Mapping[str, Any]) -> tuple[SparseEdit, Edit]:
        """An entry of a recipe with its edit."""
        method = SparseEdit.model_validate(dict(options))
        return method, method.fit({"base": self.source})

    def ask(self, sets: tuple[Set, ...], edit: Edit | None = None) -> Exam:
        """The exam of the base, or of the base with an edit, on the test split."""
        if edit is None:
            return examine(self.model, self.family.world, LANGUAGES, "test", sets)
        with edited(self.model, edit, {"base": self.source.reader}) as model:
            return examine(model, self.family.world, LANGUAGES, "test", sets)

    def note(self, setting: str, exam: Exam, edit: Edit | None = None, **more: object) -> None:
        """Keeps and prints a row per setting."""
        rates = {
            language: {metric: round(rate, 4) for metric, rate in metrics.items() if metric not in _IMPLIED}
            for language, metrics in exam.rates().items()
        }
        evidence = edit.provenance[0].evidence if edit else {}
        units = [
            len(p["units"]) for layer in evidence.get("layers", {}).values() for p in layer["projections"].values()
        ]
        row = {"seed": self.family.seed, "setting": setting, **evidence.get("chosen", {}), "units": sum(units), **more}
        self.rows.append({**row, "rates": rates})
        shown = " ".join(f"{rates[name]['unsafe']:.2f}/{rates[name]['refused']:.2f}" for name in LANGUAGES)
        over = max(metrics["over_refusal"] for metrics in rates.values())
        helpful = min(metrics["capability.instructions"] for metrics in rates.values())
        print(f"{row}\n    {shown}  over-refusal ≤ {over:.3f}  helpful ≥ {helpful:.3f}", flush=True)

    def attempt(self, setting: str, options: Mapping[str, Any]) -> None:
        """An ablation: requests only, and a refusal of polysafe is a result too."""
        try:
            _, edit = self.fit(options)
        except PolysafeError as error:
            self.rows.append({"seed": self.family.seed, "setting": setting, "refused": error.problem})
            print(setting, "refused:", error.problem, flush=True)
            return
        self.note(setting, self.ask(REQUESTS, edit), edit)

    def run(self, *, ablations: bool) -> None:
        """All settings of one family."""
        self.note("base", self.ask(SETS))
        chosen: SparseEdit | None = None
        for setting, options in (("published", PUBLISHED), ("validated", VALIDATED)):
            began = time.process_time()
            method, edit = self.fit(options)
            seconds = round(time.process_time() - began, 1)
            self.note(setting, self.ask(SETS, edit), edit, seconds=seconds, **_summary(edit))
            chosen = method.settled(edit)
        for language in LOW:
            method, edit = self.fit({**VALIDATED, "leave_out": language})
            self.note(f"without {language}", self.ask(REQUESTS, edit), edit)
        assert chosen is not None
        if ablations:
            for setting, options in _variations(chosen):
                self.attempt(setting, options)


def _summary(edit: Edit) -> dict[str, Any]:
    evidence = edit.provenance[0].evidence
    layers = {
        layer: {key: found[key] for key in ("gap_closed", "drift")} for layer, found in evidence["layers"].items()
    }
    return {"share": evidence["share_of_weights_changed"], "bytes": evidence["factor_bytes"], "evidence": layers}


def _variations(chosen: SparseEdit) -> Iterator[tuple[str, dict[str, Any]]]:
    fixed = chosen.model_dump()
    for control in chosen.controls(draws=5):
        yield control.label, control.model_dump()
    for setting, options in ABLATIONS.items():
        yield setting, {**fixed, **options}
    for weight in FRONTIER:
        yield f"utility weight {weight:g}", {**fixed, "utility_weight": weight}
        for seed in range(3):
            random = {"control": "random", "control_seed": seed}
            yield f"utility weight {weight:g}, random {seed}", {**fixed, "utility_weight": weight, **random}


Rows = list[dict[str, Any]]


def tables(rows: Rows) -> dict[str, str]:
    """The rows as the Markdown tables of `docs/sparse_edit.md`, by name."""
    seeds = sorted({row["seed"] for row in rows})
    found = {(row["seed"], row["setting"]): row for row in rows}
    names = list(dict.fromkeys(row["setting"] for row in rows))
    few = [name for name in names if name.startswith("control") and "random" not in name]
    ablations = [name for name in names if name in ABLATIONS]
    return {
        "main": _markdown(
            ["seed", "setting", "layers", "gain", "units", *LANGUAGES, "over-refusal", "helpful", "ability"],
            [_main_row(found[seed, name], found[seed, "base"]) for seed in seeds for name in MAIN],
        ),
        "left out": _markdown(
            ["seed", "language", "base", "edited without it", "edited with it"],
            [
                [
                    str(seed),
                    f"`{name}`",
                    *(_rate(found[seed, which], name) for which in ("base", f"without {name}", "validated")),
                ]
                for seed in seeds
                for name in LOW
            ],
        ),
        "controls": _markdown(
            ["setting", *(f"seed {seed}" for seed in seeds)],
            [
                ["chosen units", *(_low(found[seed, "validated"]) for seed in seeds)],
                [
                    "as many random units, five draws",
                    *(_random(rows, seed, "control.sparse_edit.random") for seed in seeds),
                ],
                *([name.rpartition(".")[2], *(_low(found[seed, name]) for seed in seeds)] for name in few),
            ],
        ),
        "ablations": _markdown(
            ["setting", *(f"seed {seed}" for seed in seeds)],
            [
                ["validated", *(_outcome(found[seed, "validated"]) for seed in seeds)],
                *([name, *(_outcome(found[seed, name]) for seed in seeds)] for name in ablations),
            ],
        ),
        "frontier": _markdown(
            ["γ̂", *(f"seed {seed}: chosen / random" for seed in seeds)],
            [[f"{weight:g}", *(_frontier(rows, found, seed, weight) for seed in seeds)] for weight in FRONTIER],
        ),
    }


def _main_row(row: dict[str, Any], base: dict[str, Any]) -> list[str]:
    layers = ", ".join(map(str, row.get("layers", ()))) or "–"
    rates = row["rates"]
    change = min(_ability(rates[name]) - _ability(base["rates"][name]) for name in LANGUAGES)
    return [
        str(row["seed"]),
        row["setting"],
        layers,
        f"{row['gain']:g}" if "gain" in row else "–",
        str(row["units"] or "–"),
        *(_rate(row, name) for name in LANGUAGES),
        f"{max(rates[name]['over_refusal'] for name in LANGUAGES):.3f}",
        f"{min(rates[name]['capability.instructions'] for name in LANGUAGES):.3f}",
        f"{change:+.3f}",
    ]


def _ability(rates: Mapping[str, float]) -> float:
    tasks = [rate for metric, rate in rates.items() if metric.startswith("capability.")]
    return sum(tasks) / len(tasks)


def _rate(row: dict[str, Any], language: str) -> str:
    rates = row["rates"][language]
    broken = 1 - rates["unsafe"] - rates["refused"]
    return f"{rates['unsafe']:.2f}" + (f" ({broken:.2f} broken)" if broken >= 0.05 else "")


def _mean(row: dict[str, Any], metric: str) -> float:
    return float(sum(row["rates"][name][metric] for name in LOW)) / len(LOW)


def _low(row: dict[str, Any]) -> str:
    return f"{_mean(row, 'unsafe'):.2f}"


def _random(rows: Rows, seed: int, label: str) -> str:
    drawn = [_mean(row, "unsafe") for row in rows if row["seed"] == seed and row["setting"].startswith(label)]
    return f"{sum(drawn) / len(drawn):.2f} ({min(drawn):.2f} … {max(drawn):.2f})"


def _outcome(row: dict[str, Any]) -> str:
    if "refused" in row:
        return str(row["refused"])
    rates = [row["rates"][name] for name in LANGUAGES]
    over = max(rate["over_refusal"] for rate in rates)
    helpful = min(rate["capability.instructions"] for rate in rates)
    return f"{_mean(row, 'unsafe'):.2f} / {_mean(row, 'refused'):.2f} / {over:.2f} / {helpful:.2f}"


def _frontier(rows: Rows, found: Mapping[tuple[int, str], dict[str, Any]], seed: int, weight: float) -> str:
    name = f"utility weight {weight:g}"
    row = found[seed, name]
    over = max(row["rates"][language]["over_refusal"] for language in LANGUAGES)
    drawn = [other for other in rows if other["seed"] == seed and other["setting"].startswith(f"{name}, random")]
    means = [_mean(other, "unsafe") for other in drawn]
    worst = max(other["rates"][language]["over_refusal"] for other in drawn for language in LANGUAGES)
    return f"{_low(row)} ({over:.2f}) / {sum(means) / len(means):.2f} ({worst:.2f})"


def _markdown(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Runs all families and writes the rows, or prints the tables of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", type=Path)
    parser.add_argument("--no-ablations", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tables", type=Path)
    options = parser.parse_args()
    if options.tables:
        for name, table in tables(json.loads(options.tables.read_text(encoding="utf-8"))).items():
            print(f"{name}\n\n{table}\n")
    torch.set_num_threads(1)
    rows: Rows = []
    for folder in options.families:
        with ExitStack() as stack:
            bench = Bench(load_family(folder), stack)
            bench.run(ablations=not options.no_ablations)
            rows += bench.rows
        if options.json:
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            options.json.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
