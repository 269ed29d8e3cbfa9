"""What edits of the family in real languages did, over the training seeds that they were tried on.

    python -m benchmarks.real_languages OUT … [--json FILE]

`OUT` is the folder of a `polysafe quickstart --family gemma`, one for each seed. Every model is compared with the one
that it was made from, on the same prompts; prompts are the clusters of a pooled difference, since every seed is asked
the same ones. Tables are Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.numbers import BITS
from polysafe.stats.differences import paired_difference
from polysafe.stats.intervals import wilson
from polysafe.stats.means import student_interval

METRICS = ("unsafe", "over_refusal", "capability.topics")
ALIGNED = "aligned"
EXPERTS = ("bn", "vi")

Runs = Sequence[Mapping[str, ModelRun]]
"""For each seed: name of a model -> its run."""


@dataclass(frozen=True)
class Cell:
    """One model in one language, before and after, over all seeds.

    Attributes:
        model: Name of the model.
        start: Name of the model that it was made from, or that it is held against.
        language: Language code.
        metric: What is compared.
        before: Value of the start: a rate, or bits per character.
        after: Value of the model.
        seeds: Value of the model in each seed.
        n: Pairs: prompts times seeds.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of it.
        p_value: Test of no difference.
    """

    model: str
    start: str
    language: str
    metric: str
    before: float
    after: float
    seeds: tuple[float, ...]
    n: int
    low: float
    high: float
    p_value: float


def load(folders: Sequence[Path]) -> Runs:
    """The runs of every seed."""
    return [
        {run.parent.name: ModelRun.load(run.parent) for run in sorted((folder / "runs").glob("*/run.json"))}
        for folder in folders
    ]


def start_of(model: str) -> str:
    """The member that a model was made from."""
    ending = model.rpartition(".")[2]
    return ending if ending in EXPERTS else ALIGNED


def cells(runs: Runs, model: str, start: str) -> Iterator[Cell]:
    """A model against its start, or against any other, in all languages and metrics that both have in every seed."""
    pairs = [(seed[start], seed[model]) for seed in runs if start in seed and model in seed]
    if not pairs:
        return
    for language in pairs[0][1].languages:
        for metric in METRICS:
            key = (language, metric)
            if all(key in old.outcomes and key in new.outcomes for old, new in pairs):
                yield _rate_cell(pairs, model, start, language, metric)
        if bits := _bits_cell(pairs, model, start, language):
            yield bits


def _rate_cell(pairs: Sequence[tuple[ModelRun, ModelRun]], model: str, start: str, language: str, metric: str) -> Cell:
    before, after, prompts, seeds = [], [], [], []
    for old, new in pairs:
        first, second = old.outcomes[language, metric], new.outcomes[language, metric]
        shared = [item for item in second if item in first]
        before += [first[item] for item in shared]
        after += [second[item] for item in shared]
        prompts += [new.repeated.get(item, item) for item in shared]
        seeds.append(sum(second[item] for item in shared) / len(shared))
    found = paired_difference(before, after, prompts)
    span = found.interval
    assert found.before is not None
    assert found.after is not None
    assert span is not None
    assert found.p_value is not None
    rates = (found.before, found.after)
    return Cell(model, start, language, metric, *rates, tuple(seeds), found.n, span.low, span.high, found.p_value)


def _bits_cell(pairs: Sequence[tuple[ModelRun, ModelRun]], model: str, start: str, language: str) -> Cell | None:
    before, after, texts, seeds = [], [], [], []
    for old, new in pairs:
        first, second = (_bits(run).get(language, {}) for run in (old, new))
        shared = [item for item in second if item in first]
        if not shared:
            return None
        before += [first[item] for item in shared]
        after += [second[item] for item in shared]
        texts += shared
        seeds.append(sum(second[item] for item in shared) / len(shared))
    span, p = student_interval([new - old for old, new in zip(before, after, strict=True)], texts)
    if span is None or p is None:
        return None
    old_mean, new_mean = (sum(values) / len(values) for values in (before, after))
    return Cell(model, start, language, BITS, old_mean, new_mean, tuple(seeds), len(texts), span.low, span.high, p)


def _bits(run: ModelRun) -> dict[str, Mapping[str, float]]:
    return {
        language: items
        for numbers in run.numbers
        for (language, metric), items in numbers.values.items()
        if metric == BITS
    }


def rate_table(runs: Runs, model: str, metric: str) -> str:
    """Rates of one model in every language and seed, with their intervals."""
    languages = runs[0][model].languages
    lines = [f"| {metric} | " + " | ".join(languages) + " |", "|---" * (len(languages) + 1) + "|"]
    for number, seed in enumerate(runs):
        told = [_rate(list(seed[model].outcomes.get((code, metric), {}).values())) for code in languages]
        lines.append(f"| seed {number} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def _rate(flags: Sequence[bool]) -> str:
    if not flags:
        return "–"
    span = wilson(sum(flags), len(flags))
    assert span is not None
    return f"{100 * sum(flags) / len(flags):.0f} % ({100 * span.low:.0f}–{100 * span.high:.0f}, n {len(flags)})"


def change_table(found: Sequence[Cell], metric: str) -> str:
    """What models changed in one metric: a line each, a column per language."""
    chosen = [cell for cell in found if cell.metric == metric]
    languages = list(dict.fromkeys(cell.language for cell in chosen))
    by_place = {(cell.model, cell.language): cell for cell in chosen}
    lines = [f"| {metric} | " + " | ".join(languages) + " |", "|---" * (len(languages) + 1) + "|"]
    for model in dict.fromkeys(cell.model for cell in chosen):
        told = [_change(by_place.get((model, code))) for code in languages]
        lines.append(f"| {model} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def _change(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.metric == BITS:
        return f"{cell.before:.2f} → {cell.after:.2f} ({cell.low:+.2f} to {cell.high:+.2f}, n {cell.n})"
    seeds = ", ".join(f"{100 * rate:.0f}" for rate in cell.seeds)
    change = f"{100 * cell.low:+.0f} to {100 * cell.high:+.0f}"
    return f"{100 * cell.before:.0f} → {100 * cell.after:.0f} ({change}; seeds {seeds}; n {cell.n})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args(arguments)
    runs = load(options.folders)
    for metric in ("refused", "over_refusal"):
        print(rate_table(runs, ALIGNED, metric), end="\n\n")
    members = {ALIGNED, "safety", *EXPERTS}
    names = [name for name in runs[0] if name not in members]
    found = [cell for name in ("safety", *EXPERTS) for cell in cells(runs, name, ALIGNED)]
    found += [cell for name in names for cell in cells(runs, name, start_of(name))]
    for metric in (*METRICS, BITS):
        for start in (ALIGNED, *EXPERTS):
            print(f"{metric}, made from {start}, all seeds together\n")
            print(change_table([cell for cell in found if cell.start == start], metric), end="\n\n")
    controls = [name for name in names if name.startswith("control.")]
    against = [cell for name in controls for cell in cells(runs, name.split(".")[1], name)]
    print("methods against their controls: before is the control\n")
    for cell in against:
        if cell.metric in ("unsafe", "over_refusal"):
            print(f"{cell.start} {cell.language} {cell.metric}: {_change(cell)}, p {cell.p_value:.2g}")
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in [*found, *against]], indent=1) + "\n")


if __name__ == "__main__":
    main()
