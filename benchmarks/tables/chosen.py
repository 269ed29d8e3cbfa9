"""Tables of what searches chose on the family in real languages, beside published defaults and random searches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.real_outcomes import BOUNDARY, Outcomes, Values, gathered, read, save, start_of
from benchmarks.frame.markdown import percent, table
from polysafe.stats.differences import paired_difference
from polysafe.stats.intervals import wilson
from polysafe.stats.multiplicity import holm

WAYS = {"published": "published defaults", "tpe": "searched", "random": "random search"}
_STACK = "+"


@dataclass(frozen=True)
class Chosen:
    """What was measured, and what was chosen.

    Attributes:
        outcomes: The values of every model that was asked.
        choices: For each seed: name of what was tried -> what is told of it.
    """

    outcomes: Outcomes
    choices: Sequence[Mapping[str, Mapping[str, Any]]]

    @property
    def arms(self) -> list[str]:
        """What was searched, in order."""
        names = [name for seed in self.choices for name in seed]
        return list(dict.fromkeys(name.partition(".")[2] for name in names if name.partition(".")[0] in WAYS))

    def values(self, seed: int, name: str) -> Values | None:
        """Values of a model, of an edit that was not taken those of the model as it is; None if it was not tried."""
        if name not in self.choices[seed]:
            return None
        found = self.outcomes.seeds[seed]
        return found[name] if name in found else found[start_of(name)]


def read_folders(output: Path) -> Chosen:
    """What `choosing_real run` wrote, a folder for each seed."""
    folders = sorted((file.parent for file in output.glob("*/choices.json")), key=lambda folder: int(folder.name))
    rows = [json.loads((folder / "choices.json").read_text(encoding="utf-8")) for folder in folders]
    return Chosen(gathered(folders, [int(folder.name) for folder in folders]), _by_name(rows))


def read_file(file: Path) -> Chosen:
    """What `--keep` wrote."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return Chosen(read(file), _by_name(content["choices"]))


def joined(known: Chosen, new: Chosen) -> Chosen:
    """Both: of a seed that is in both, all that was tried; where both have it, what is new."""
    seeds: dict[int, dict[str, Values]] = {}
    choices: dict[int, dict[str, Mapping[str, Any]]] = {}
    for found in (known, new):
        for name, values, rows in zip(found.outcomes.names, found.outcomes.seeds, found.choices, strict=True):
            seeds.setdefault(name, {}).update(values)
            choices.setdefault(name, {}).update(rows)
    names = sorted(seeds)
    repeated = {**known.outcomes.repeated, **new.outcomes.repeated}
    return Chosen(Outcomes([seeds[name] for name in names], names, repeated), [choices[name] for name in names])


def _by_name(seeds: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Mapping[str, Any]]]:
    return [{row["name"]: row for row in rows} for rows in seeds]


def print_tables(source: Path, keep: Path | None = None) -> None:
    """Prints all tables; where a file is named, together with what it holds, and keeps all that they are made of."""
    found = read_file(source) if source.is_file() else read_folders(source)
    if keep:
        found = joined(read_file(keep), found) if keep.exists() else found
        save(found.outcomes, keep, choices=[list(seed.values()) for seed in found.choices])
    print("\n\n".join(tables(found)))


def tables(found: Chosen) -> Iterator[str]:
    """All tables, each with its heading."""
    seeds = ", ".join(map(str, found.outcomes.names))
    yield f"seeds {seeds}; percent of all seeds together, in brackets each seed\n\n{_rates(found)}"
    yield f"unsafe answers, what was searched against the others, item by item\n\n{_contests(found)}"


def _rates(found: Chosen) -> str:
    lines = []
    for arm in found.arms:
        languages = _languages(arm)
        for name in (start_of(arm), *(f"{way}.{arm}" for way in WAYS)):
            seeds = [values for seed in range(len(found.choices)) if (values := found.values(seed, name))]
            if seeds:
                lines.append([*_named(name, arm), *_cells(seeds, languages), _taken(found, name)])
    columns = ["edit", "of", *("unsafe zh", "unsafe bn"), "refused harmless, worst", BOUNDARY, "topics", "taken"]
    return table(columns, lines)


def _languages(arm: str) -> tuple[str, ...]:
    return ("bn",) if start_of(arm) == "bn" else ("zh", "bn")


def _named(name: str, arm: str) -> tuple[str, str]:
    way = name.partition(".")[0]
    return (f"`{arm}`, {WAYS[way]}", start_of(arm)) if way in WAYS else ("as it is", name)


def _cells(seeds: Sequence[Values], languages: Sequence[str]) -> Iterator[str]:
    for code in ("zh", "bn"):
        yield _rate([seed.get((code, "unsafe"), {}) for seed in seeds]) if code in languages else "–"
    worst = [max(_mean(items) for (_, metric), items in seed.items() if metric == "over_refusal") for seed in seeds]
    yield ", ".join(map(percent, worst))
    yield _rate([seed.get(("en", BOUNDARY), {}) for seed in seeds])
    topics = [[_mean(items) for (code, metric), items in seed.items() if metric == "topics"] for seed in seeds]
    yield ", ".join(percent(sum(each) / len(each)) if each else "–" for each in topics)


def _rate(seeds: Sequence[Mapping[str, float]]) -> str:
    flags = [value for items in seeds for value in items.values()]
    span = wilson(int(sum(flags)), len(flags))
    if span is None:
        return "–"
    each = ", ".join(percent(_mean(items)) for items in seeds)
    return f"{percent(sum(flags) / len(flags))} ({each}; {percent(span.low)}–{percent(span.high)}, n {len(flags)})"


def _mean(items: Mapping[str, float]) -> float:
    return sum(items.values()) / len(items)


def _taken(found: Chosen, name: str) -> str:
    rows = [seed[name] for seed in found.choices if name in seed]
    told = [row["chosen"] is not None for row in rows if "chosen" in row]
    return f"{sum(told)} of {len(told)}" if told else "–"


def _contests(found: Chosen) -> str:
    pairs = [(f"tpe.{arm}", f"{other}.{arm}") for arm in found.arms for other in ("published", "random")]
    for arm in found.arms:
        if _STACK in arm:
            pairs += [(f"tpe.{arm}", f"tpe.{single}") for single in arm.split(_STACK)]
    told = [(mine, other, *paired) for mine, other in pairs if (paired := _paired(found, mine, other))]
    adjusted = holm([difference.p_value or 1.0 for *_, difference, _ in told])
    lines = [
        [
            f"`{mine.partition('.')[2]}`",
            f"`{other.partition('.')[2]}`, {WAYS[other.partition('.')[0]]}",
            f"{100 * change:+.1f} ({100 * difference.interval.low:+.0f} to {100 * difference.interval.high:+.0f})",
            f"{p_value:.2g}",
            str(n),
        ]
        for (mine, other, change, difference, n), p_value in zip(told, adjusted, strict=True)
        if difference.interval is not None
    ]
    return table(["searched", "against", "difference, points", "p, adjusted", "n"], lines)


def _paired(found: Chosen, mine: str, other: str) -> tuple[float, Any, int] | None:
    """Mean difference, its test clustered by prompt, and the number of pairs; in all edited languages and seeds."""
    before, after, clusters = list[bool](), list[bool](), list[str]()
    for seed in range(len(found.choices)):
        ours, theirs = found.values(seed, mine), found.values(seed, other)
        if ours is None or theirs is None:
            continue
        for code in _languages(mine):
            for item, value in ours[code, "unsafe"].items():
                before.append(theirs[code, "unsafe"][item] == 1)
                after.append(value == 1)
                clusters.append(found.outcomes.repeated.get(item, item))
    if not after:
        return None
    difference = paired_difference(before, after, clusters)
    return (sum(after) - sum(before)) / len(after), difference, len(after)
