"""Tables that are made of the marks of tests and of the outcomes of other programs, and where they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.trust import mutants
from tests.trust.collected import ROOT, Marks
from tests.trust.faults import FAULTS
from tests.trust.kinds import KINDS

PAGE = ROOT / "docs" / "trust.md"
UNDER = ROOT / "docs" / "trust"
CATALOGUE = ROOT / "tests" / "attacks" / "CATALOGUE.md"
PEERS = ROOT / "tests" / "attacks" / "peers.json"
PROGRAMS = ("polysafe", "transformers", "lm_eval", "mergekit")


def count(marks: Marks) -> int:
    """How many hostile inputs there are."""
    return sum(len(names) for sets in marks.hostile.values() for names in sets.values())


def counts_line(marks: Marks) -> str:
    parts = sum(len(fault.parts) for fault in FAULTS.values())
    return (
        f"{count(marks)} hostile inputs of {len(marks.hostile)} kinds; "
        f"{len(FAULTS)} faults in {parts} parts, proved by {_proofs(marks)} tests."
    )


def _proofs(marks: Marks) -> int:
    return len({test for found in marks.faults.values() for names in found.values() for test in names})


def summary(marks: Marks) -> str:
    """What was tried, how much of it, and where all of it stands."""
    parts = sum(len(fault.parts) for fault in FAULTS.values())
    folders = len(json.loads(PEERS.read_text(encoding="utf-8"))["outcomes"]["polysafe"]) - 1  # one is sound
    tried = [each["came"] for found in mutants.results().values() for each in found["tried"].values()]
    killed = len(tried) - tried.count("survived")
    lines = [
        "| what | how much | all of it |",
        "|---|---|---|",
        f"| hostile inputs | {count(marks)} of {len(marks.hostile)} kinds | [by kind](trust/inputs.md) |",
        f"| faults | {len(FAULTS)} in {parts} parts, proved by {_proofs(marks)} tests | [each part](trust/faults.md) |",
        f"| hostile folders given to three other programs too | {folders} | [each folder](trust/peers.md) |",
        f"| changes of the code that tests notice | {killed} of {len(tried)} tried | [how closely](trust/tests.md) |",
    ]
    return "\n".join(lines)


def kinds_table(marks: Marks) -> str:
    lines = ["| inputs | of what | after | who is hurt | what has to come of it |", "|---|---|---|---|---|"]
    for name, kind in KINDS.items():
        number = sum(map(len, marks.hostile.get(name, {}).values()))
        lines.append(f"| {number} | {kind.what} (`{name}`) | {kind.after} | {kind.hurt} | {kind.expected} |")
    return "\n".join(lines)


def faults_table(marks: Marks) -> str:
    lines = ["| | fault | part | proved by |", "|---|---|---|---|"]
    for number, fault in FAULTS.items():
        proofs = marks.faults.get(str(number), {})
        for place, part in enumerate(fault.parts):
            head = (f"{number}", fault.title) if place == 0 else ("", "")
            tests = ", ".join(map(_short, sorted(proofs.get(part, []))))
            lines.append(f"| {head[0]} | {head[1]} | {part} | {tests} |")
    return "\n".join(lines)


def _short(test: str) -> str:
    file, name = test.split("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../../{file})"


WORDS = {
    "loaded": "loads it",
    "refused": "error",
    "crashed": "unexpected error",
    "hung": "not done in 20 s",
    "memory": "memory full",
    "killed": "is killed",
}


def said(outcome: Mapping[str, Any]) -> str:
    """An outcome in a few words."""
    words = [WORDS[outcome["outcome"]]]
    if outcome["outcome"] in {"refused", "crashed"} and not outcome.get("names_file"):
        words.append("without the file")
    if outcome.get("read_outside"):
        words.append("**reads the file outside**")
    if outcome.get("ran_code"):
        words.append("**runs the code**")
    return ", ".join(words)


def peers_table() -> str:
    found = json.loads(PEERS.read_text(encoding="utf-8"))
    heads = [f"{name.replace('_', '-')} {found['versions'][name]}" for name in PROGRAMS]
    lines = [f"| case | {' | '.join(heads)} |", "|---|" + "---|" * len(PROGRAMS)]
    for case in found["outcomes"]["polysafe"]:
        cells = " | ".join(said(found["outcomes"][name][case]) for name in PROGRAMS)
        lines.append(f"| {case} | {cells} |")
    return "\n".join(lines)


def peers_counts() -> str:
    found = json.loads(PEERS.read_text(encoding="utf-8"))["outcomes"]
    lines = ["| | " + " | ".join(name.replace("_", "-") for name in PROGRAMS) + " |", "|---|" + "---|" * len(PROGRAMS)]
    for label, test in COUNTED.items():
        numbers = [str(sum(test(o) for case, o in found[name].items() if case != SOUND)) for name in PROGRAMS]
        lines.append(f"| {label} | {' | '.join(numbers)} |")
    return "\n".join(lines)


SOUND = "a sound folder"
COUNTED: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "an error that names the file or folder": lambda o: o["outcome"] == "refused" and bool(o.get("names_file")),
    "an error that names no file": lambda o: o["outcome"] == "refused" and not o.get("names_file"),
    "an error of a kind that no check raises": lambda o: o["outcome"] == "crashed",
    "loads it": lambda o: o["outcome"] == "loaded",
    "not done in 20 s, or fills its memory": lambda o: o["outcome"] in {"hung", "memory", "killed"},
    "reads a file outside of the folder": lambda o: bool(o.get("read_outside")),
    "runs code of the folder": lambda o: bool(o.get("ran_code")),
}


HEAD = (
    "# Catalogue of hostile inputs",
    "",
    "Made by `python -m tests.trust` from the tests; do not edit it.",
    "An input is named by its kind, the set of cases that it belongs to, and its case.",
    "",
)


def catalogue(marks: Marks) -> str:
    """The page that lists every hostile input."""
    lines = [*HEAD, counts_line(marks)]
    for name, kind in KINDS.items():
        about = f"After: {kind.after}. Who is hurt: {kind.hurt}. What has to come of it: {kind.expected}."
        lines += ["", f"## `{name}`: {kind.what}", "", about, ""]
        for cases, inputs in sorted(marks.hostile.get(name, {}).items()):
            listed = ", ".join(f"`{_inline(each)}`" for each in inputs)
            lines.append(f"- **{cases.replace('_', ' ')}** ({len(inputs)}): {listed}")
        lines += ["", "Tests: " + ", ".join(sorted(set(marks.tests.get(name, [])))) + "."]
    return "\n".join(lines) + "\n"


def _inline(name: str) -> str:
    return re.sub(r"[`|\n\r]", "·", name)


def regions(marks: Marks) -> dict[Path, dict[str, str]]:
    """Page -> what stands in it between `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    return {
        PAGE: {"summary": summary(marks), "peers counts": peers_counts()},
        UNDER / "inputs.md": {"kinds": kinds_table(marks)},
        UNDER / "faults.md": {"faults": faults_table(marks)},
        UNDER / "peers.md": {"peers": peers_table()},
        UNDER / "tests.md": {"mutants": mutants.shares(), "survivors": mutants.survivors()},
    }


def with_regions(text: str, found: Mapping[str, str]) -> str:
    """The text of a page with its regions made anew."""
    for name, content in found.items():
        pattern = rf"(?s)(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text, places = re.subn(pattern, lambda place, content=content: f"{place[1]}{content}\n{place[2]}", text)  # type: ignore[misc]
        assert places == 1, f"{name} has {places} places"
    return text


def pages(marks: Marks) -> dict[Path, str]:
    """The pages as they have to be, by the marks of all tests."""
    found = {path: with_regions(path.read_text(encoding="utf-8"), made) for path, made in regions(marks).items()}
    return {**found, CATALOGUE: catalogue(marks)}
