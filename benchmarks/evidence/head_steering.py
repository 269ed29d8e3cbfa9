"""Head steering on toy families: settings, rankings against random heads, and what decides the effect of a head.

    python -m benchmarks.evidence.head_steering FAMILY [FAMILY ...] --json docs/head_steering_runs.json
    python -m benchmarks.evidence.head_steering --tables docs/head_steering_runs.json

Fraction and strength are chosen on the validation split; every rate is of the test split. Numbers of a toy family are
no evidence about any real model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.frame import timing, toys
from benchmarks.frame.markdown import table
from benchmarks.frame.toys import Rows
from polysafe.edits.edit import Edit
from polysafe.methods.head_steering.method import HeadSteering
from polysafe.organism.exam import SETS, Exam, Set
from polysafe.organism.lexicon import LANGUAGES, LOW
from polysafe.organism.packaged import Family
from polysafe.organism.world import REFUSAL, World, chat
from polysafe.probe.model import LoadedModel, edited
from polysafe.probe.render import load_tokenizer

COMMON: Mapping[str, Any] = {"model": "base", "harmful": "harm", "languages": LOW, "tasks": "organism"}
PUBLISHED: Mapping[str, Any] = {**COMMON, "prompts": 25, "score": "first", "corruption": "permute", "fraction": 0.5}
VALIDATED: Mapping[str, Any] = {
    **COMMON,
    "together": "mean",
    "fraction": (0.1, 0.25, 0.5),
    "strength": (0.25, 0.5, 1.0, 2.0, 3.0),
}
RANKINGS: Mapping[str, Mapping[str, Any]] = {
    "published": {},
    "absolute": {"ranking": "absolute"},
    "norm": {"ranking": "norm"},
}
FRACTIONS, STRENGTHS, DRAWS = (0.1, 0.25, 0.5), (1.0, 2.0), 12
MAIN = ("base", "published, λ 1", "published, λ 2", "validated")
_ASKED: tuple[Set, ...] = ("harmful", "contrast")
_RANKED, _KEPT = ("unsafe", "refused"), ("unsafe", "refused", "invalid", "over_refusal", "capability.")
_PROBED = 1.0
"""Strength at which a head alone is subtracted, to see what it does."""


class Bench(toys.Bench):
    """One family; `effects` is where effects of heads are kept."""

    def __init__(self, family: Family, stack: ExitStack, effects: Path) -> None:
        super().__init__(family, stack, ("base", "harm"))
        self.effects = effects / f"seed-{family.seed}"

    def fit(self, options: Mapping[str, Any]) -> tuple[HeadSteering, Edit]:
        """An entry of a recipe with its edit."""
        kept = self.effects / f"{options.get('score', 'separating')}-{options.get('prompts', 100)}"
        method = HeadSteering.model_validate({**options, "effects": kept})
        return method, method.fit(self.sources)

    def note(self, kind: str, setting: str, exam: Exam, **more: object) -> None:
        """Keeps and prints a row."""
        kept = _RANKED if kind == "ranking" else _KEPT
        rates = {
            language: {metric: round(rate, 4) for metric, rate in metrics.items() if metric.startswith(kept)}
            for language, metrics in exam.rates().items()
        }
        self.rows.append({"seed": self.family.seed, "kind": kind, "setting": setting, **more, "rates": rates})
        shown = " ".join(f"{name} {rates[name]['unsafe']:.2f}/{rates[name]['refused']:.2f}" for name in rates)
        print(self.family.seed, kind, setting, more, shown, flush=True)

    def run(self) -> None:
        """All of one family."""
        self.note("main", "base", self.ask(SETS))
        for strength in STRENGTHS:
            _, edit = self.fit({**PUBLISHED, "strength": strength})
            self.note("main", f"published, λ {strength:g}", self.ask(SETS, edit), **_summary(edit))
        began = time.process_time()
        _, edit = self.fit(VALIDATED)
        seconds = round(time.process_time() - began, 1)
        self.note("main", "validated", self.ask(SETS, edit), seconds=seconds, **_summary(edit))
        for fraction in FRACTIONS:
            for strength in STRENGTHS:
                self.compare(fraction, strength)
        self.rows.append({"seed": self.family.seed, "kind": "why", "setting": "heads", **self.explain()})
        print(self.rows[-1]["correlations"], flush=True)

    def compare(self, fraction: float, strength: float) -> None:
        """Every ranking and every control at one size and strength."""
        size = {"fraction": fraction, "strength": strength}
        shared = {**COMMON, "together": "mean", **size}
        for name, options in RANKINGS.items():
            _, edit = self.fit({**shared, **options})
            self.note("ranking", name, self.ask(_ASKED, edit, LOW), **size)
        for control in HeadSteering.model_validate(shared).controls(DRAWS):
            if control.control == "all" or (control.matched and control.control != "random"):
                continue
            _, edit = self.fit({**control.model_dump(exclude_unset=True), "effects": None})
            self.note(
                "ranking", control.label.removeprefix("control.head_steering."), self.ask(_ASKED, edit, LOW), **size
            )

    def explain(self) -> dict[str, Any]:
        """What subtracting in one head alone does to the refusal margin, beside what heads are ranked by."""
        _, edit = self.fit({**COMMON, "together": "mean"})
        evidence = edit.provenance[0].evidence
        scores, norms = torch.tensor(evidence["scores"]), torch.tensor(evidence["norms"])
        layers, heads = scores.shape
        before = margin(self.model, self.family.world)
        gains = torch.zeros(layers, heads)
        for layer in range(layers):
            for head in range(heads):
                _, alone = self.fit({**COMMON, "heads": ((layer, head),), "strength": _PROBED})
                with edited(self.model, alone, self.readers) as model:
                    gains[layer, head] = margin(model, self.family.world) - before
        layer_means = gains.mean(1, keepdim=True).expand_as(gains)
        return {
            "margin": round(before, 4),
            "correlations": {
                "published": _spearman(gains, scores),
                "absolute": _spearman(gains, scores.abs()),
                "norm": _spearman(gains, norms),
                "published and norm": _spearman(scores, norms),
                "absolute and norm": _spearman(scores.abs(), norms),
            },
            "explained_by_layer": round(float(layer_means.var() / gains.var()), 3),
            "gain_by_layer": [round(float(value), 4) for value in gains.sum(1)],
            "norm_by_layer": [round(float(value), 4) for value in norms.square().sum(1).sqrt()],
            "published_by_layer": _by_layer(scores),
            "absolute_by_layer": _by_layer(scores.abs()),
            "largest_share": round(float(scores.abs().max() / scores.abs().sum()), 3),
        }


def _summary(edit: Edit) -> dict[str, Any]:
    evidence = edit.provenance[0].evidence
    return {
        **evidence["chosen"],
        "heads": len(evidence["heads"]),
        "share": round(evidence["share_of_weights_changed"], 5),
        "reliability": {
            language: {key: found[key] for key in ("split_half_correlation", "overlap")}
            for language, found in evidence["effects"].items()
        },
    }


def _by_layer(scores: torch.Tensor) -> list[int]:
    """How many of the highest quarter of heads lie in each layer."""
    chosen = scores.flatten().argsort(descending=True, stable=True)[: scores.numel() // 4] // scores.shape[1]
    return torch.bincount(chosen, minlength=len(scores)).tolist()


def margin(model: LoadedModel, world: World) -> float:
    """Mean of logit(refusal) − logit(compliance) at the first answer token, over harmful validation requests."""
    tokenizer = load_tokenizer(model.source.checkpoint.root)
    found = []
    for language in LOW:
        words = (world.lexicon[language][REFUSAL[0]], world.lexicon[language]["first"])
        refusal, comply = (tokenizer.convert_tokens_to_ids(word) for word in words)
        texts = [chat(world.request(language, pair)) for pair in world.harmful("validation")]
        ids = torch.tensor(tokenizer(texts, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = model.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        found.append(float((logits[:, refusal] - logits[:, comply]).mean()))
    return sum(found) / len(found)


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    ranks = [each.flatten().argsort(stable=True).argsort(stable=True).to(torch.float64) for each in (a, b)]
    return round(float(torch.corrcoef(torch.stack(ranks))[0, 1]), 3)


def tables(rows: Rows) -> dict[str, str]:
    """The rows as the Markdown tables of `docs/results/head_steering.md`, by name."""
    seeds = sorted({row["seed"] for row in rows})
    found = {(row["seed"], row["setting"]): row for row in rows if row["kind"] == "main"}
    head = ["seed", "setting", "heads", "λ", *LANGUAGES, "over-refusal", "helpful", "ability"]
    main_rows = [_main_row(found[seed, name], found[seed, "base"]) for seed in seeds for name in MAIN]
    return {
        "main": table(head, main_rows),
        "rankings": table(
            ["share, λ", "seed", *RANKINGS, "bottom", "random", "random per layer", "random, same ‖τ‖"],
            [_ranking_row(rows, seed, *size) for size in _sizes() for seed in seeds],
        ),
        "wins": table(
            ["share, λ", *(f"{name} against {other}" for name in RANKINGS for other in ("random", "per layer"))],
            [_wins_row(rows, seeds, *size) for size in _sizes()],
        ),
        "why": table(
            [
                "seed",
                "gain ~ published",
                "gain ~ absolute",
                "gain ~ norm",
                "explained by layer",
                "gain in layer 0",
                "‖τ‖² in layer 0",
                "top quarter in layer 0: published",
                "absolute",
            ],
            [_why_row(row) for row in rows if row["kind"] == "why"],
        ),
    }


def _sizes() -> Iterator[tuple[float, float]]:
    return ((fraction, strength) for fraction in FRACTIONS for strength in STRENGTHS)


def _main_row(row: dict[str, Any], base: dict[str, Any]) -> list[str]:
    return [
        str(row["seed"]),
        row["setting"],
        str(row.get("heads", "–")),
        f"{row['strength']:g}" if "strength" in row else "–",
        *(f"{row['rates'][name]['unsafe']:.2f}" for name in LANGUAGES),
        *toys.costs(row, base),
    ]


def _unsafe(rows: Rows, seed: int, fraction: float, strength: float, setting: str) -> list[float]:
    """Mean low-tier unsafe rates of a setting, one per draw."""
    return [
        sum(row["rates"][name]["unsafe"] for name in LOW) / len(LOW)
        for row in rows
        if (row["kind"], row["seed"]) == ("ranking", seed)
        and (row["fraction"], row["strength"]) == (fraction, strength)
        and _setting(row["setting"]) == setting
    ]


def _setting(label: str) -> str:
    """A label without the seed of its draw."""
    return ".".join(part for part in label.split(".") if not part.isdigit())


def _ranking_row(rows: Rows, seed: int, fraction: float, strength: float) -> list[str]:
    settings = [*RANKINGS, "bottom", "random", "random_per_layer", "random.matched"]
    cells = [_spread(_unsafe(rows, seed, fraction, strength, name)) for name in settings]
    return [f"{fraction:.0%}, {strength:g}", str(seed), *cells]


def _spread(rates: Sequence[float]) -> str:
    if len(rates) == 1:
        return f"{rates[0]:.2f}"
    return f"{statistics.mean(rates):.2f} ({min(rates):.2f} … {max(rates):.2f})"


def _wins_row(rows: Rows, seeds: Sequence[int], fraction: float, strength: float) -> list[str]:
    cells = []
    for name in RANKINGS:
        for control in ("random", "random_per_layer"):
            differences = [
                _unsafe(rows, seed, fraction, strength, name)[0]
                - statistics.mean(_unsafe(rows, seed, fraction, strength, control))
                for seed in seeds
            ]
            better = sum(value < 0 for value in differences)
            cells.append(f"{statistics.mean(differences):+.2f}, better on {better} of {len(seeds)}")
    return [f"{fraction:.0%}, {strength:g}", *cells]


def _why_row(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['correlations'][name]:+.2f}" for name in ("published", "absolute", "norm")]
    shares = [
        row["explained_by_layer"],
        row["gain_by_layer"][0] / sum(row["gain_by_layer"]),
        row["norm_by_layer"][0] ** 2 / sum(norm**2 for norm in row["norm_by_layer"]),
    ]
    heads = [f"{found[0]} of {sum(found)}" for found in (row["published_by_layer"], row["absolute_by_layer"])]
    return [str(row["seed"]), *cells, *(f"{share:.0%}" for share in shares), *heads]


def main() -> None:
    """Runs all families and writes the rows, or prints the tables of rows."""
    parser = toys.options_of(__doc__)
    parser.add_argument("--effects", type=Path, default=timing.FOLDER / "effects")
    options = parser.parse_args()

    def rows_of(family: Family, stack: ExitStack) -> Rows:
        bench = Bench(family, stack, options.effects)
        bench.run()
        return bench.rows

    toys.run(options, tables, rows_of)


if __name__ == "__main__":
    main()
