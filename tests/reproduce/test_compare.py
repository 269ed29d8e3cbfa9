"""One thing of each kind is changed, and named by its severity."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polysafe.reproduce.compare import altered, compare_folders
from polysafe.reproduce.finding import Severity, exit_code
from polysafe.reproduce.record import ReproduceFolder
from tests.reproduce.conftest import Done

Change = Callable[[Path], None]


def edit_json(name: str, change: Callable[[Any], None]) -> Change:
    def apply(root: Path) -> None:
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return apply


def edit_lines(name: str, change: Callable[[list[Any]], None]) -> Change:
    def apply(root: Path) -> None:
        rows = [json.loads(line) for line in (root / name).read_text().splitlines()]
        change(rows)
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return apply


def put(*keys: Any, to: Any) -> Callable[[Any], None]:
    def apply(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return apply


def replace(name: str, old: str, new: str) -> Change:
    def apply(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return apply


ROW = {"before": 1.0, "before_low": 0.9, "before_high": 1.0}
CHANGES: dict[str, tuple[Change, Severity, str]] = {
    "a version": (
        edit_json("environment.json", put("libraries", "numpy", "version", to="0.0.1")),
        Severity.ENVIRONMENT,
        "library numpy",
    ),
    "Python": (
        edit_json("environment.json", put("python", "version", to="3.9.0")),
        Severity.ENVIRONMENT,
        "python: python.version",
    ),
    "threads": (
        edit_json("environment.json", put("threads", "torch", to=7)),
        Severity.ENVIRONMENT,
        "threads: threads.torch",
    ),
    "the program": (
        edit_json("environment.json", put("program", "sha256", to="0" * 64)),
        Severity.ENVIRONMENT,
        "program: program.sha256",
    ),
    "a row": (edit_json("results.json", put(0, "n", to=5)), Severity.RESULT, "row layer_swap"),
    "an option": (replace("recipe.yaml", "tau: 0.001", "tau: 0.002"), Severity.RESULT, "recipe edit: edits[0].tau"),
    "the edit": (
        edit_json("edit/edit.json", put("start", to="safety")),
        Severity.RESULT,
        "recipe edit: edit: start",
    ),
    "what a source is called": (
        edit_json("edit/edit.json", put("sources", "base", "origin", to="elsewhere")),
        Severity.NOTE,
        "recipe edit: edit: sources or files are called otherwise",
    ),
    "a byte of the model": (
        edit_json("reproduce.json", put("steps", 0, "output", "model.safetensors", to="0" * 64)),
        Severity.RESULT,
        "recipe edit: output: model.safetensors",
    ),
    "a verdict": (
        edit_lines("records/after.jsonl", put(0, "verdict", to="unsafe, told")),
        Severity.RESULT,
        "model after: verdict on organism/",
    ),
    "an answer": (
        edit_lines("records/after.jsonl", put(0, "answer", to="0" * 16)),
        Severity.DRIFT,
        "model after: 1 of 24 answers",
    ),
    "what judges say": (
        edit_json("reproduce.json", put("runs", 1, "records", to="0" * 64)),
        Severity.DRIFT,
        "model after: records",
    ),
    "sampling": (
        edit_json("reproduce.json", put("runs", 1, "generator", "sampling", "max_tokens", to=9)),
        Severity.RESULT,
        "model after: how it was asked: sampling.max_tokens",
    ),
    "a prompt": (edit_lines("prompts.jsonl", put(0, "sha256", to="0" * 64)), Severity.FATAL, "prompts"),
    "the judge": (
        edit_json("reproduce.json", put("judge", "identity", "world", to=5)),
        Severity.FATAL,
        "judge: identity.world",
    ),
    "how an ability was measured": (
        edit_json("reproduce.json", put("abilities", to={"mgsm": {"shots": 5}})),
        Severity.FATAL,
        "ability mgsm: shots",
    ),
    "the harness of an ability": (
        edit_json("reproduce.json", put("abilities", to={"mgsm": {"harness": "lm-eval 0"}})),
        Severity.ENVIRONMENT,
        "ability mgsm: harness",
    ),
    "the device": (
        edit_json("reproduce.json", put("settings", "device", to="cuda")),
        Severity.ENVIRONMENT,
        "settings: device",
    ),
    "a setting": (edit_json("reproduce.json", put("settings", "limit", to=5)), Severity.FATAL, "settings: limit"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_one_change_of_each_kind_is_named(once: Done, done: Done, kind: str) -> None:
    change, severity, what = CHANGES[kind]
    change(done.folder / "reproduce")
    old, new = ReproduceFolder.load(once.folder), ReproduceFolder.load(done.folder)
    for findings in (list(compare_folders(old, new)), list(compare_folders(new, old))):
        assert {finding.severity for finding in findings} == {severity}
        assert findings[0].what.startswith(what)
        expected = {Severity.FATAL: 2, Severity.RESULT: 1, Severity.DRIFT: 1}.get(severity, 0)
        assert exit_code(findings) == expected
    (changed,) = altered(new)
    assert changed.severity is Severity.NOTE
    assert "was changed after it had been written" in changed.what


def test_many_verdicts_are_counted_and_three_are_named(once: Done, done: Done) -> None:
    path = done.folder / "reproduce/records/after.jsonl"
    path.write_text("".join(line.replace('"safe', '"not safe') + "\n" for line in path.read_text().splitlines()))
    old, new = ReproduceFolder.load(once.folder), ReproduceFolder.load(done.folder)
    findings = list(compare_folders(old, new))
    flips = sum("safe" in verdict for verdict, _ in old.verdicts(old.about.runs[1]).values())
    assert flips > 4
    assert sum("verdict on" in finding.what for finding in findings) == 3
    assert any(f"{flips - 3} more verdicts" in finding.what for finding in findings)


def test_a_recipe_and_a_model_that_are_missing_are_results(once: Done, done: Done) -> None:
    edit_json("reproduce.json", put("steps", to=[]))(done.folder / "reproduce")
    edit_json("reproduce.json", lambda content: content["runs"].pop())(done.folder / "reproduce")
    old, new = ReproduceFolder.load(once.folder), ReproduceFolder.load(done.folder)
    for pair, sides in (((old, new), ("there", "missing")), ((new, old), ("missing", "there"))):
        assert [(f.severity, f.what, f.recorded, f.found) for f in compare_folders(*pair)] == [
            (Severity.RESULT, what, *sides) for what in ("recipe edit", "model after")
        ]


def test_a_folder_that_lost_a_file(done: Done) -> None:
    shutil.rmtree(done.folder / "reproduce/edit")
    (finding,) = altered(ReproduceFolder.load(done.folder))
    assert (finding.what, finding.found) == (
        "reproduce/edit/edit.json was changed after it had been written",
        "missing",
    )
