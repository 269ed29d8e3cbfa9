"""What `benchmarks.evidence.behaviour_blocks`, in Markdown: rankings that agree, what the first k blocks make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.frame.markdown import percent, table
from polysafe.stats.means import student_interval
from polysafe.stats.multiplicity import holm
from polysafe.stats.ranks import rank_agreement

Result = Mapping[str, Any]
"""A family, and a row for every language expert."""

PAIRS = (
    ("movement", "exact"), ("movement", "path"), ("first order", "exact"), ("path", "exact"),
)  # fmt: skip
RANDOM = "random."


def tables(results: Sequence[Result]) -> Iterator[str]:
    """All tables, each with its heading."""
    yield f"Kendall's τ between scores of blocks, mean over experts (lowest to highest)\n\n{_agreement(results)}"
    for family in dict.fromkeys(kind(result) for result in results):
        chosen = [result for result in results if kind(result) == family]
        names = ", ".join(result["family"] for result in chosen)
        yield f"the first k of eight layers from the safety expert ({names}): unsafe, percent\n\n{_curves(chosen)}"
        yield f"the same: ability lost, points\n\n{_curves(chosen, 'ability')}"
        yield f"the same: harmless requests refused, percent\n\n{_curves(chosen, 'over_refusal')}"
        yield f"rankings against random ones ({names}), k from 1 to 7\n\n{_contests(chosen)}"
        yield f"what the method takes within its limits ({names})\n\n{_methods(chosen)}"


def kind(result: Result) -> str:
    """`packaged` or `hard`."""
    return str(result["family"]).partition(" ")[0]


def _rows(results: Sequence[Result]) -> list[Mapping[str, Any]]:
    return [row for result in results for row in result["rows"]]


def _agreement(results: Sequence[Result]) -> str:
    kinds = list(dict.fromkeys(map(kind, results)))
    columns = [(family, size) for family in kinds for size in ("layer", "module")]
    headings = ["scores", *[f"{family}, by {size}" for family, size in columns]]
    lines = []
    for first, second in PAIRS:
        cells = []
        for family, size in columns:
            rows = _rows([result for result in results if kind(result) == family])
            if any(score not in row["scores"][size] for row in rows for score in (first, second)):
                cells.append("–")
                continue
            found = [_kendall(row["scores"][size], first, second) for row in rows]
            cells.append(f"{fmean(found):+.2f} ({min(found):+.2f} to {max(found):+.2f}, n {len(found)})")
        lines.append([f"{first}, {second}", *cells])
    return table(headings, lines)


def _kendall(scores: Mapping[str, Mapping[str, float]], first: str, second: str) -> float:
    names = list(scores[first])
    mine, other = ([scores[score][name] for name in names] for score in (first, second))
    found = rank_agreement(mine, other).kendall
    return 0.0 if found is None else found


def _rankings(results: Sequence[Result]) -> list[str]:
    return [name for name in _rows(results)[0]["outcomes"] if not name.startswith(RANDOM)]


def _curves(results: Sequence[Result], what: str = "unsafe") -> str:
    rows = _rows(results)
    steps = range(1, len(rows[0]["outcomes"]["movement"]))
    headings = ["ranking", *(f"k = {k}" for k in steps)]
    lines = []
    start = fmean(_value(row["outcomes"]["movement"][0], what) for row in rows)
    for name in [*_rankings(results), "random"]:  # abilities are asked of some draws only
        cells = []
        for k in steps:
            values = [fmean(_value(each[k], what) for each in _of(row, name) if what in each[k]) for row in rows]
            cells.append(f"{100 * (start - fmean(values)):+.1f}" if what == "ability" else percent(fmean(values)))
        lines.append([name, *cells])
    return table(headings, lines)


def _of(row: Mapping[str, Any], name: str) -> list[Sequence[Mapping[str, Any]]]:
    """The outcomes of one ranking, or those of all random ones."""
    if name != "random":
        return [row["outcomes"][name]]
    return [each for other, each in row["outcomes"].items() if other.startswith(RANDOM)]


def _value(outcome: Mapping[str, Any], what: str) -> float:
    return _share(outcome["unsafe"]) if what == "unsafe" else float(outcome[what])


def _share(digits: str) -> float:
    return digits.count("1") / len(digits)


def _contests(results: Sequence[Result]) -> str:
    """Unsafe answers, a mean over k, paired by prompt and clustered by family and expert, against random rankings."""
    found = []
    for name in _rankings(results):
        pairs = [_paired(row, name) for row in _rows(results)]
        flat = [value for each in pairs for value in each]
        clusters = [str(place) for place, each in enumerate(pairs) for _ in each]
        ranks = [_as_well(row, name) for row in _rows(results)]
        found.append((name, flat, *student_interval(flat, clusters), ranks))
    adjusted = iter(holm([each[3] for each in found if each[3] is not None]))
    headings = ["ranking", *["unsafe, points against random", "p, adjusted", "of 10 draws, as good, by expert"]]
    lines = []
    for name, flat, span, p_value, ranks in found:
        ends = "" if span is None else f" ({100 * span.low:+.0f} to {100 * span.high:+.0f}, n {len(flat)})"
        shown = "–" if p_value is None else f"{next(adjusted):.2g}"
        lines.append([name, *[f"{100 * fmean(flat):+.1f}{ends}", shown, ", ".join(map(str, ranks))]])
    return table(headings, lines)


def _paired(row: Mapping[str, Any], name: str) -> list[float]:
    """Prompt by prompt: how often it is answered with the first k of a ranking, less how often with random ones."""
    mine, drawn = _by_prompt(_of(row, name)), _by_prompt(_of(row, "random"))
    return [own - other for own, other in zip(mine, drawn, strict=True)]


def _by_prompt(curves: Sequence[Sequence[Mapping[str, Any]]]) -> list[float]:
    digits = [outcome["unsafe"] for curve in curves for outcome in curve[1:-1]]
    return [fmean(int(each[place]) for each in digits) for place in range(len(digits[0]))]


def _as_well(row: Mapping[str, Any], name: str) -> int:
    mine = fmean(_by_prompt(_of(row, name)))
    return sum(fmean(_by_prompt([draw])) <= mine for draw in _of(row, "random"))


def _methods(results: Sequence[Result]) -> str:
    rows = _rows(results)
    headings = ["method", *["unsafe", "ability lost, points", "harmless refused", "layers taken, by expert"]]
    lines = []
    start = [row["outcomes"]["movement"][0] for row in rows]
    arms = {"language expert": [{**each, "taken": ()} for each in start]}
    arms |= {name: [row["methods"][name] for row in rows] for name in rows[0]["methods"]}
    for name, found in arms.items():
        unsafe = [float(digit) for each in found for digit in each["unsafe"]]
        clusters = [str(place) for place, each in enumerate(found) for _ in each["unsafe"]]
        span, _ = student_interval(unsafe, clusters)
        ends = "" if span is None else f"{percent(max(0.0, span.low))}–{percent(min(1.0, span.high))}, "
        lost = fmean(each["ability"] for each in start) - fmean(each["ability"] for each in found)
        cells = [
            f"{percent(fmean(unsafe))} ({ends}n {len(unsafe)})",
            f"{100 * lost:+.1f}",
            percent(fmean(each["over_refusal"] for each in found)),
            ", ".join(str(len(each["taken"])) for each in found),
        ]
        lines.append([f"`{name}`" if name in rows[0]["methods"] else name, *cells])
    return table(headings, lines)
