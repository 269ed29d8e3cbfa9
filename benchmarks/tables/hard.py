"""What `benchmarks.evidence.hard_family`, in Markdown: rates, methods against controls, what was recovered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.frame.markdown import percent, table
from polysafe.methods.base import CONTROL
from polysafe.organism.lexicon import LOW
from polysafe.stats.compare import Outcomes
from polysafe.stats.means import student_interval
from polysafe.stats.multiplicity import holm

Result = Mapping[str, Any]
"""Seed, and a row for every model."""


def tables(results: Sequence[Result]) -> Iterator[str]:
    """All tables, each with its heading."""
    numbers = ", ".join(str(result["seed"]) for result in results)
    yield f"seeds {numbers}; percent, intervals of 95 % over seeds\n\n{_rates(results)}"
    yield f"methods against their random controls, unsafe answers in the low tier\n\n{_contests(results)}"
    yield f"what was planted and found again, percent\n\n{_recovered(results)}"


def _arms(results: Sequence[Result]) -> list[str]:
    """Everything but members and controls, in the order of the first seed."""
    rows = results[0]["rows"]
    return list(dict.fromkeys(row["arm"] for row in rows if not row["arm"].startswith(CONTROL)))


def _rates(results: Sequence[Result]) -> str:
    lines = []
    for arm in _arms(results):
        unsafe = [unsafe_items(row) for result in results for row in _rows(result, arm)]
        values = [value for by_item in unsafe for value in by_item.values()]
        seeds = [str(result["seed"]) for result in results for row in _rows(result, arm) for _ in unsafe_items(row)]
        over = max(worst_rate(row, "over_refusal") for result in results for row in _rows(result, arm))
        lost = [ability_lost(result, row) for result in results for row in _rows(result, arm)]
        chosen = [row["chosen"] is not None for result in results for row in _rows(result, arm) if "chosen" in row]
        taken = f"{sum(chosen)} of {len(chosen)}" if chosen else "–"
        lines.append([f"`{arm}`", spanned(values, seeds), percent(over), percent(sum(lost) / len(lost)), taken])
    return table(["model", "unsafe, low tier", "worst over-refusal", "ability lost", "an edit was chosen"], lines)


def _contests(results: Sequence[Result]) -> str:
    found = []
    for arm in _arms(results):
        for kind in ("random", "random_per_layer"):
            pairs = list(_against(results, arm, f"{CONTROL}{arm}.{kind}."))
            if pairs:
                differences, seeds, ranks = zip(*pairs, strict=True)
                flat = [value for each in differences for value in each]
                names = [name for name, each in zip(seeds, differences, strict=True) for _ in each]
                span, p_value = student_interval(flat, names)
                found.append((arm, kind, flat, span, p_value, ranks))
    adjusted = iter(holm([each[4] for each in found if each[4] is not None]))
    columns = ["method", "control", "difference, points", "p, adjusted", "seeds in which so many draws do as well"]
    lines = []
    for arm, kind, flat, span, p_value, ranks in found:
        ends = "" if span is None else f" ({100 * span.low:+.0f} to {100 * span.high:+.0f})"
        mean = f"{100 * sum(flat) / len(flat):+.1f}{ends}"
        shown = "–" if p_value is None else f"{next(adjusted):.2g}"
        lines.append([f"`{arm}`", kind, mean, shown, ", ".join(map(str, ranks))])
    return table(columns, lines)


def _against(results: Sequence[Result], arm: str, prefix: str) -> Iterator[tuple[list[float], str, int]]:
    """For every seed: item by item what the method does more than the mean of the draws, and draws that do as well."""
    for result in results:
        mine = _by_start(result, arm)
        draws: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for row in result["rows"]:
            if row["arm"].startswith(prefix):
                draws[row["arm"]].update(unsafe_items(row))
        if draws:
            means = {item: sum(draw[item] for draw in draws.values()) / len(draws) for item in mine}
            total = sum(mine.values())
            as_well = sum(sum(draw.values()) <= total for draw in draws.values())
            yield [mine[item] - means[item] for item in mine], str(result["seed"]), as_well


def _recovered(results: Sequence[Result]) -> str:
    lines = []
    for arm in _arms(results):
        by_kind: defaultdict[str, list[Sequence[float]]] = defaultdict(list)
        for result in results:
            for row in _rows(result, arm):
                for kind, values in row.get("found", {}).items():
                    by_kind[kind].append(values)
        for kind, values in by_kind.items():
            means = [percent(sum(each[at] for each in values) / len(values)) for at in range(3)]
            lines.append([f"`{arm}`", kind, *means, str(len(values))])
    return table(["method", "of", "precision", "recall", "precision by chance", "n"], lines)


def _rows(result: Result, arm: str) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if row["arm"] == arm]


def _by_start(result: Result, arm: str) -> dict[str, float]:
    return {item: value for row in _rows(result, arm) for item, value in unsafe_items(row).items()}


def as_digits(outcomes: Outcomes, *metrics: str) -> dict[str, str]:
    """`language/metric` -> a digit for each item in their order, of some metrics and of every ability."""
    return {
        f"{language}/{metric}": "".join(str(int(flag)) for flag in items.values())
        for (language, metric), items in outcomes.items()
        if metric in metrics or metric.startswith("capability")
    }


def unsafe_items(row: Mapping[str, Any]) -> dict[str, float]:
    """Item -> whether the answer is unsafe, in the low tier."""
    return {
        f"{language}/{place}": float(digit)
        for language in LOW
        for place, digit in enumerate(row["outcomes"].get(f"{language}/unsafe", ""))
    }


def worst_rate(row: Mapping[str, Any], metric: str) -> float:
    return max(_share(digits) for name, digits in row["outcomes"].items() if name.endswith(f"/{metric}"))


def _ability(row: Mapping[str, Any]) -> dict[str, float]:
    """Language of the low tier -> mean of its abilities."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for name, digits in row["outcomes"].items():
        language, _, metric = name.partition("/")
        if language in LOW and metric.startswith("capability"):
            found[language].append(_share(digits))
    return {language: sum(values) / len(values) for language, values in found.items()}


def ability_lost(result: Result, row: Mapping[str, Any]) -> float:
    """Mean ability that a model has less than what it was made from, in the low tier."""
    start = _ability(_rows(result, row["start"])[0])
    after = _ability(row)
    return sum(start[name] - after[name] for name in after) / len(after)


def _share(digits: str) -> float:
    return digits.count("1") / len(digits)


def spanned(values: Sequence[float], seeds: Sequence[str]) -> str:
    span, _ = student_interval(values, seeds)
    ends = "" if span is None else f"{percent(max(0.0, span.low))}–{percent(min(1.0, span.high))}, "
    return f"{percent(sum(values) / len(values))} ({ends}n {len(values)})"
