"""What edits of the family in real languages did, over the training seeds that they were tried on.

    python -m benchmarks.evidence.real_languages OUT … [--keep FILE]
    python -m benchmarks.evidence.real_languages FILE

`OUT` is the folder of a `polysafe quickstart --family gemma`, one for each seed; `FILE` is what `--keep` wrote. Every
model is compared with the one that it was made from, on the same prompts. Prompts are the clusters of a difference,
since every seed is asked the same ones: intervals are about other prompts, and the values of the seeds stand beside
them. Tables are Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evidence.real_outcomes import ALIGNED, BOUNDARY, EXPERTS, Outcomes, read, read_runs, save, start_of
from benchmarks.frame.markdown import percent, table
from polysafe.evaluate.numbers import BITS
from polysafe.methods.base import CONTROL
from polysafe.stats.differences import paired_difference
from polysafe.stats.intervals import wilson
from polysafe.stats.means import student_interval
from polysafe.stats.multiplicity import holm

METRICS = ("unsafe", "over_refusal", BOUNDARY, "topics", "xcopa", BITS)
PROVED = ("unsafe", "over_refusal")
"""Metrics in which a method is held against its controls."""
MEMBERS = (ALIGNED, "safety", *EXPERTS)


@dataclass(frozen=True)
class Change:
    """One model in one language, before and after, over all seeds.

    Attributes:
        model: Name of the model.
        start: Name of the model that it was made from, or that it is held against.
        language: Language code.
        metric: What is compared.
        before: Mean of the start: a rate, or bits per character.
        after: Mean of the model.
        seeds: Mean of the model in each seed.
        n: Pairs: items times seeds.
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


def changes(outcomes: Outcomes, model: str, start: str) -> Iterator[Change]:
    """A model against its start, or against any other, in all languages and metrics that both have in every seed."""
    pairs = [(seed[start], seed[model]) for seed in outcomes.seeds if start in seed and model in seed]
    if not pairs:
        return
    for language, metric in pairs[0][1]:
        key = (language, metric)
        if metric in METRICS and all(key in old and key in new for old, new in pairs):
            cells = [(old[key], new[key]) for old, new in pairs]
            if found := _change(cells, outcomes.repeated, (model, start, *key)):
                yield found


def _change(
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    repeated: Mapping[str, str],
    names: tuple[str, str, str, str],
) -> Change | None:
    before, after, clusters, seeds = [], [], [], []
    for old, new in pairs:
        shared = [item for item in new if item in old]
        if not shared:
            return None
        before += [old[item] for item in shared]
        after += [new[item] for item in shared]
        clusters += [repeated.get(item, item) for item in shared]
        seeds.append(sum(new[item] for item in shared) / len(shared))
    if names[-1] == BITS:
        differences = [new - old for old, new in zip(before, after, strict=True)]
        span, p_value = student_interval(differences, clusters)
    else:
        found = paired_difference([value == 1 for value in before], [value == 1 for value in after], clusters)
        span, p_value = found.interval, found.p_value
    if span is None or p_value is None:
        return None
    means = (sum(before) / len(before), sum(after) / len(after))
    return Change(*names, *means, tuple(seeds), len(after), span.low, span.high, p_value)


def rate_table(outcomes: Outcomes, model: str, metric: str) -> str:
    """Rates of one model in every language and seed, with their intervals."""
    languages = [language for language, name in outcomes.seeds[0][model] if name == metric]
    seeds = zip(outcomes.names, outcomes.seeds, strict=True)
    return table(
        [metric, *languages],
        [
            [f"seed {name}", *(_rate(list(seed[model][code, metric].values())) for code in languages)]
            for name, seed in seeds
        ],
    )


def _rate(flags: Sequence[float]) -> str:
    span = wilson(int(sum(flags)), len(flags))
    assert span is not None
    return f"{percent(sum(flags) / len(flags))} ({percent(span.low)}–{percent(span.high)}, n {len(flags)})"


def change_table(found: Sequence[Change], metric: str) -> str:
    """What models changed in one metric: a line each, a column per language."""
    chosen = [each for each in found if each.metric == metric]
    languages = list(dict.fromkeys(each.language for each in chosen))
    by_place = {(each.model, each.language): each for each in chosen}
    sizes = {code: max(each.n for each in chosen if each.language == code) for code in languages}
    models = dict.fromkeys(each.model for each in chosen)
    return table(
        [metric, *(f"{code}, n {sizes[code]}" for code in languages)],
        [[f"`{name}`", *(_told(by_place.get((name, code)), sizes[code]) for code in languages)] for name in models],
    )


def _told(change: Change | None, usual: int | None = None) -> str:
    """A change, with its number of pairs where that is not the usual one: no edit was made in some seeds."""
    if change is None:
        return "–"
    size = "" if change.n == usual else f"; n {change.n}"
    if change.metric == BITS:
        return f"{change.before:.2f} → {change.after:.2f} ({change.low:+.2f} to {change.high:+.2f}{size})"
    seeds = ", ".join(percent(rate) for rate in change.seeds)
    span = f"{100 * change.low:+.0f} to {100 * change.high:+.0f}"
    return f"{percent(change.before)} → {percent(change.after)} ({span}; {seeds}{size})"


def against_controls(outcomes: Outcomes) -> list[tuple[Change, float]]:
    """Every method against each of its controls, with p-values adjusted over all of them (Holm)."""
    found = [
        each
        for name in outcomes.models
        if name.startswith(CONTROL)
        for each in changes(outcomes, _of_control(name, outcomes.models), name)
        if each.metric in PROVED
    ]
    return list(zip(found, holm([each.p_value for each in found]), strict=True))


def _of_control(control: str, models: Sequence[str]) -> str:
    """The method that a control is one of: its name stands in the control's, before the language that both are for."""
    start = start_of(control)
    ending = f".{start}" if start in EXPERTS else ""
    named = [name.removesuffix(ending) for name in models if name.endswith(ending)]
    return max((name for name in named if control.startswith(CONTROL + name)), key=len) + ending


def proof_table(found: Sequence[tuple[Change, float]]) -> str:
    """Methods against their controls."""
    return table(
        ["method", "control", "language", "metric", "control → method", "p, adjusted"],
        [
            [f"`{each.model}`", f"`{each.start}`", each.language, each.metric, _told(each), f"{p_value:.2g}"]
            for each, p_value in found
        ],
    )


def page(outcomes: Outcomes) -> Iterator[str]:
    """All tables, each with its heading."""
    for model in MEMBERS:
        for metric in ("refused", "over_refusal", BOUNDARY):
            if any(name == metric for _, name in outcomes.seeds[0][model]):
                yield f"`{model}`, rates by seed in percent\n\n{rate_table(outcomes, model, metric)}"
    edited = [name for name in outcomes.models if name not in MEMBERS]
    found = [each for name in ("safety", *EXPERTS) for each in changes(outcomes, name, ALIGNED)]
    found += [each for name in edited for each in changes(outcomes, name, start_of(name))]
    for metric in METRICS:
        for start in (ALIGNED, *EXPERTS):
            chosen = [each for each in found if (each.start, each.metric) == (start, metric)]
            if chosen:
                yield f"{metric}, made from `{start}`, all seeds\n\n{change_table(chosen, metric)}"
    yield f"methods against their controls, all seeds\n\n{proof_table(against_controls(outcomes))}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sources", nargs="+", type=Path, help="folders of quickstarts, or one file of outcomes")
    parser.add_argument("--keep", type=Path, help="file to write the outcomes to")
    options = parser.parse_args(arguments)
    outcomes = read(options.sources[0]) if options.sources[0].is_file() else read_runs(options.sources)
    if options.keep:
        save(outcomes, options.keep)
    print("\n\n".join(page(outcomes)))


if __name__ == "__main__":
    main()
