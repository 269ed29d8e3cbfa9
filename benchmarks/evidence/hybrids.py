"""Stacks of edits against each edit alone, and one language's edit in all other languages, on families of the toy.

    python -m benchmarks.evidence.hybrids run OUT FAMILY… # `packaged`, or the folder of a family; resumable
    python -m benchmarks.evidence.hybrids tables OUT… | FILE [--keep FILE]

Stacks start from a language expert: a swap, a sparse edit of its result, head steering of that, and every combination,
with published settings and with those of the quickstart. Edits of one language start from the base, beside the edit for
all of them. Everything is asked the test split. Numbers of a toy family are no evidence about any real model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.evidence.behaviour_blocks import open_family
from benchmarks.frame.markdown import percent, table
from benchmarks.frame.program import Result, run_or_print
from benchmarks.tables.hard import as_digits, unsafe_items, worst_rate
from polysafe.checkpoint.opened import open_source
from polysafe.engine.plan import decide
from polysafe.errors import PolysafeError
from polysafe.files.atomic import write_json_atomic
from polysafe.methods.base import Method, Support
from polysafe.methods.registry import resolve
from polysafe.organism.exam import SETS, examine
from polysafe.organism.lexicon import LANGUAGES, LOW, PIVOT
from polysafe.organism.packaged import Family
from polysafe.probe.model import LoadedModel, edited, load_model
from polysafe.stats.clusters import wilson_clustered
from polysafe.stats.differences import paired_difference
from polysafe.stats.multiplicity import holm
from polysafe.threads import threads

Entry = Mapping[str, Any]
SWAP: Entry = {"method": "layer_swap", "base": "base", "safety": "safety"}
SPARSE: Entry = {"method": "sparse_edit", "anchors": "organism", "utility_weight": 0.1}
HEADS: Entry = {"method": "head_steering", "harmful": "harm", "harm_base": "base", "tasks": "organism", "prompts": 25}
SETTINGS: Mapping[str, Sequence[Entry]] = {
    "published": (SWAP, {**SPARSE, "cap": 0.25}, {**HEADS, "score": "first", "corruption": "permute", "strength": 0.5}),
    "quickstart": (
        {**SWAP, "granularity": "module"},
        {**SPARSE, "absolute": True, "cap": 0.5, "layers": [4], "target_gain": 1.5},
        {**HEADS, "together": "mean", "fraction": 0.5, "strength": 1.0},
    ),
}
"""Name -> swap, sparse edit and head steering, in the order in which they are stacked."""


class Bench:
    """One family, its members loaded once.

    Args:
        family: The family.
        stack: What closes its members.
    """

    def __init__(self, family: Family, stack: ExitStack) -> None:
        self.family = family
        self.sources = {name: stack.enter_context(open_source(path, name)) for name, path in family.members.items()}
        self.models = {name: load_model(self.sources[name]) for name in ("base", *LOW)}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for every model, with what it answers on the test split."""
        for name, model in self.models.items():
            yield self._row("unedited", "", name, model)
        for kind, entries in SETTINGS.items():
            for expert in LOW:
                methods = [_method(entry, expert, (expert,)) for entry in entries]
                for count in range(1, len(methods) + 1):
                    for some in combinations(methods, count):
                        yield self._edited(kind, "+".join(each.name for each in some), expert, some)
        for entry in SETTINGS["quickstart"][1:]:
            for languages in (*((each,) for each in LOW), LOW):
                method = _method(entry, "base", languages)
                yield self._edited("languages", f"{method.name} for {', '.join(languages)}", "base", [method])

    def _edited(self, kind: str, name: str, start: str, methods: Sequence[Method]) -> dict[str, Any]:
        model = self.models[start]
        try:
            edit = decide(methods, self.sources, lambda *_: Support())
        except PolysafeError as error:
            return {**self._row(kind, name, start, model), "problem": error.problem}
        with edited(model, edit, {name: source.reader for name, source in self.sources.items()}) as changed:
            return self._row(kind, name, start, changed)

    def _row(self, kind: str, name: str, start: str, model: LoadedModel) -> dict[str, Any]:
        asked = LANGUAGES if start == "base" else (PIVOT, start)
        found = examine(model, self.family.world, asked, "test", SETS).outcomes()
        return {
            "kind": kind,
            "arm": name,
            "start": start,
            "outcomes": as_digits(found, "unsafe", "over_refusal", "invalid"),
        }


def _method(entry: Entry, start: str, languages: Sequence[str]) -> Method:
    own = {"language": start} if entry["method"] == "layer_swap" else {"model": start, "languages": list(languages)}
    options = {key: value for key, value in entry.items() if key != "method"}
    return resolve(entry["method"]).model_validate({**options, **own})


def run(output: Path, names: Sequence[str]) -> None:
    """Examines families; a file of results each."""
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        family = open_family(name)
        file = output / f"{name if name == 'packaged' else family.seed}.json"
        if file.exists():
            continue
        rows = []
        with threads(1), ExitStack() as stack:
            for row in Bench(family, stack).rows():
                rows.append(row)
                unsafe = unsafe_items(row)
                rate = sum(unsafe.values()) / max(1, len(unsafe))
                print(family.seed, row["kind"], row["arm"], row["start"], f"{rate:.2f}", flush=True)
        write_json_atomic(file, {"family": name if name == "packaged" else f"seed {family.seed}", "rows": rows})


def tables(results: Sequence[Result]) -> Iterator[str]:
    """All tables, each with its heading."""
    named = ", ".join(str(result["family"]) for result in results)
    for kind in SETTINGS:
        yield f"stacks with {kind} settings; {named}; percent, intervals of 95 %\n\n{_stacks(results, kind)}"
    yield f"edits of one language in all others; {named}; unsafe answers in percent\n\n{_languages(results)}"


def _stacks(results: Sequence[Result], kind: str) -> str:
    arms = list(dict.fromkeys(row["arm"] for result in results for row in result["rows"] if row["kind"] == kind))
    singles = [arm for arm in arms if "+" not in arm]
    best = min(singles, key=lambda arm: sum(value for value, _ in _items(results, kind, arm)))
    tests = {arm: _against(results, kind, arm, best) for arm in arms if arm != best}
    adjusted = dict(zip(tests, holm([p_value for _, p_value in tests.values()]), strict=True))
    lines = []
    for arm in ["", *arms]:
        rows = list(_rows(results, kind if arm else "unedited", arm, LOW))
        items = _items(results, kind if arm else "unedited", arm)
        unsafe = _rate([value > 0 for value, _ in items], [name for _, name in items])
        lost = [_ability(results, row, number) for number, row in rows]
        told, p_value = (tests[arm][0], f"{adjusted[arm]:.2g}") if arm in tests else ("", "")
        lines.append(
            [
                f"`{arm}`" if arm else "unedited expert",
                unsafe,
                percent(max(worst_rate(row, "over_refusal") for _, row in rows)),
                percent(max(worst_rate(row, "invalid") for _, row in rows)),
                percent(sum(lost) / len(lost)),
                "best alone" if arm == best else told,
                p_value,
            ]
        )
    columns = ["edits", "unsafe", "worst over-refusal", "worst broken", "ability lost"]
    return table([*columns, "against the best alone, points", "p, adjusted"], lines)


def _rate(flags: Sequence[bool], prompts: Sequence[str]) -> str:
    span = wilson_clustered(flags, prompts)
    assert span is not None
    return f"{percent(sum(flags) / len(flags))} ({percent(span.low)}–{percent(span.high)}, n {len(flags)})"


def _rows(results: Sequence[Result], kind: str, arm: str, starts: Sequence[str]) -> Iterator[tuple[int, Result]]:
    for number, result in enumerate(results):
        for row in result["rows"]:
            if (row["kind"], row["arm"]) == (kind, arm) and row["start"] in starts:
                yield number, row


def _items(results: Sequence[Result], kind: str, arm: str) -> list[tuple[float, str]]:
    """Whether every answer in the low tier is unsafe, each with its family and prompt: the languages are parallel."""
    return [
        (value, f"{number}/{item.partition('/')[2]}")
        for number, row in _rows(results, kind, arm, LOW)
        for item, value in sorted(unsafe_items(row).items())
    ]


def _against(results: Sequence[Result], kind: str, arm: str, other: str) -> tuple[str, float]:
    """Points less of unsafe answers than another, paired, all answers to one prompt a cluster; and p."""
    mine, theirs = (_items(results, kind, each) for each in (arm, other))
    found = paired_difference([v > 0 for v, _ in theirs], [v > 0 for v, _ in mine], [name for _, name in mine])
    if found.interval is None or found.p_value is None:
        return "0", 1.0
    mean = (sum(v for v, _ in mine) - sum(v for v, _ in theirs)) / len(mine)
    return f"{100 * mean:+.1f} ({100 * found.interval.low:+.0f} to {100 * found.interval.high:+.0f})", found.p_value


def _ability(results: Sequence[Result], row: Result, number: int) -> float:
    start = next(each for _, each in _rows(results[number : number + 1], "unedited", "", [row["start"]]))
    losses = [
        start["outcomes"][name].count("1") / len(digits) - digits.count("1") / len(digits)
        for name, digits in row["outcomes"].items()
        if "/capability" in name and not name.startswith(f"{PIVOT}/")
    ]
    return float(sum(losses) / len(losses))


def _languages(results: Sequence[Result]) -> str:
    arms = list(dict.fromkeys(row["arm"] for result in results for row in result["rows"] if row["kind"] == "languages"))
    lines = []
    for arm in ["", *arms]:
        rows = [row for _, row in _rows(results, "languages" if arm else "unedited", arm, ["base"])]
        cells = []
        for language in LANGUAGES:
            digits = "".join(row["outcomes"].get(f"{language}/unsafe", "") for row in rows)
            cells.append(percent(digits.count("1") / len(digits)) if digits else "–")
        over = percent(max(worst_rate(row, "over_refusal") for row in rows))
        lines.append([f"`{arm}`" if arm else "unedited base", *cells, over])
    return table(["edit", *LANGUAGES, "worst over-refusal"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs families, or prints the tables of what has been run."""
    run_or_print(__doc__, run, tables, arguments)


if __name__ == "__main__":
    main()
