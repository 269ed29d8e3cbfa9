"""Hostile files that have no home elsewhere: journals of searches, indexes of a million entries, recipes."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError, PolysafeError, RecipeError
from polysafe.recipe.recipe import load_recipe, parse_recipe
from polysafe.search.study import JOURNAL, Study
from tests.checkpoint.raw import one_tensor, write_config, write_index
from tests.search.made import steering
from tests.search.test_study import FIELDS, made

Change = Callable[[Path], object]


def lines(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Changes a journal entry by entry."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(entries)
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")


def every(kind: int, **changed: object) -> Change:
    """Changes all entries of a kind."""
    return lambda path: lines(path, lambda all_: [each.update(changed) for each in all_ if each["op_code"] == kind])


def outcome(value: object) -> Change:
    """Puts something else in place of every outcome."""
    return lambda path: lines(
        path, lambda all_: [e["user_attr"].update(outcome=value) for e in all_ if "outcome" in e.get("user_attr", {})]
    )


def prepend(text: bytes) -> Change:
    return lambda path: path.write_bytes(text + b"\n" + path.read_bytes())


def replaced(make: Change) -> Change:
    def change(path: Path) -> None:
        path.rename(path.with_name("elsewhere"))
        make(path)

    return change


JOURNALS: dict[str, Change] = {
    "nested too deep": prepend(b"[" * 100_000),
    "no object": prepend(b"7"),
    "null": prepend(b"null"),
    "no UTF-8": prepend(b"\xff\xfe"),
    "a line of nulls": prepend(b"\0" * 4096),
    "an unknown operation": prepend(b'{"op_code": 99, "worker_id": "w"}'),
    "an operation in words": prepend(b'{"op_code": "import os", "worker_id": "w"}'),
    "a number of a million digits": prepend(b"1" * 10**6),
    "twice the study": lambda path: path.write_bytes(path.read_bytes() * 2),
    "another study's trials": every(4, study_id=7),
    "trials that are lists": every(4, study_id=[0]),
    "outcomes in words": outcome("all is well"),
    "outcomes that are lists": outcome([]),
    "outcomes without fields": outcome({}),
    "outcomes that are null": outcome(None),
    "a folder": replaced(Path.mkdir),
    "a link": replaced(lambda path: path.symlink_to(path.with_name("elsewhere"))),
    "a second name": replaced(lambda path: os.link(path.with_name("elsewhere"), path)),
    "a pipe": replaced(os.mkfifo),
    "thirty gigabytes of nothing": lambda path: os.truncate(path, 30 * 10**9),
}


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("study")
    study = Study(folder, steering(FIELDS), "a")
    study.begin()
    study.run(made, 3)
    return (folder / JOURNAL).read_bytes()


def gone_on_with(folder: Path) -> int:
    """The number of points after the next one, which is the fourth."""
    study = Study(folder, steering(FIELDS), "a")
    study.begin()
    study.points()
    study.run(made, 4)
    return len(study.points())


PASSED_OVER = {"twice the study", "another study's trials"}


@pytest.mark.fault(19, "damaged values")
@pytest.mark.hostile("record", cases="journals_of_searches", by="name")
@pytest.mark.parametrize("name", JOURNALS)
def test_a_hostile_journal_of_a_search_is_refused_or_passed_over(name: str, journal: bytes, tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    file.write_bytes(journal)
    JOURNALS[name](file)
    beside = {path.name: path.read_bytes() for path in tmp_path.glob("elsewhere")}
    tracemalloc.start()
    try:
        if name in PASSED_OVER:
            assert gone_on_with(tmp_path) >= 4
        else:
            with pytest.raises(PolysafeError, match=r"no journal|did not write|a link|other objectives") as caught:
                gone_on_with(tmp_path)
            assert caught.value.where == file
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("elsewhere")} == beside


@pytest.mark.fault(2, "a million entries")
@pytest.mark.hostile("folder", cases="indexes_of_a_million_entries", by="name")
@pytest.mark.parametrize("name", ["one file", "as many files", "one tensor"])
def test_an_index_of_a_million_entries_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / "a.safetensors").write_bytes(one_tensor("w"))
    entries = {
        "one file": {f"w{n}": "a.safetensors" for n in range(10**6)},
        "as many files": {f"w{n}": f"{n}.safetensors" for n in range(10**6)},
        "one tensor": {"w" * 10**7: "a.safetensors"},
    }[name]
    write_index(folder, entries)
    del entries
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(folder)
        assert tracemalloc.get_traced_memory()[1] < 700_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 5000


SOUND = """\
polysafe: 1
sources:
  base: {path: ./base}
  sw: {path: ./sw}
edits:
  - {method: soup, weights: {base: 0.5, sw: 0.5}}
output: {path: ./out}
"""
RECIPES: dict[str, Callable[[str], str]] = {
    "a Python object": lambda text: text.replace("./base", "!!python/object/apply:os.system ['touch PWNED']"),
    "a Python name": lambda text: text.replace("./base", "!!python/name:os.system"),
    "a Python module": lambda text: text.replace("1\n", "!!python/module:os\n", 1),
    "a tag of one's own": lambda text: text.replace("./base", "!include /etc/passwd"),
    "a tag of a whole mapping": lambda text: text.replace("{path: ./base}", "!!map:evil {path: ./base}"),
    "a billion laughs": lambda text: text + "x: &a [" + "l," * 9 + "]\n" + "".join(
        f"y{n}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
    ),
    "an anchor of itself": lambda text: text + "x: &a [*a]\n",
    "a key twice": lambda text: text + "output: {path: ./elsewhere}\n",
    "a source twice": lambda text: text.replace("  sw:", "  base: {path: ./evil}\n  sw:"),
    "a weight twice": lambda text: text.replace("sw: 0.5", "sw: 0.5, sw: 9"),
    "a merge key": lambda text: text.replace("{path: ./sw}", "{<<: {path: /etc}, path: ./sw}"),
    "no file name": lambda text: text.replace("./base", '"a\\0b"'),
    "a path that is a list": lambda text: text.replace("./base", "[./base]"),
    "a path that is a number": lambda text: text.replace("./base", "7"),
    "no path": lambda text: text.replace("./base", '""'),
    "a hub id that leads out": lambda text: text.replace("{path: ./base}", "{hub: ../../etc, revision: main}"),
    "a hub id that is an address": lambda text: text.replace("{path: ./base}", "{hub: 'https://evil.example/m'}"),
    "a branch": lambda text: text.replace("{path: ./base}", "{hub: org/name, revision: main}"),
    "weights that are no numbers": lambda text: text.replace("0.5}", ".nan}"),
    "endless weights": lambda text: text.replace("0.5}", ".inf}"),
    "weights that are switches": lambda text: text.replace("0.5}", "true}"),
    "weights in words": lambda text: text.replace("0.5}", '"0.5"}'),
    "a number of a million digits": lambda text: text.replace("0.5}", "1" + "0" * 900_000 + "}"),
    "another version": lambda text: text.replace("1\n", "2\n", 1),
    "a version in words": lambda text: text.replace("1\n", "'1'\n", 1),
    "a field that nobody knows": lambda text: text + "run_before: rm -rf /\n",
    "an option that nobody knows": lambda text: text.replace("soup,", "soup, exec: 'id',"),
    "a method that nobody has": lambda text: text.replace("soup", "os.system"),
    "a method that leads out": lambda text: text.replace("soup", "../../evil"),
    "a source that is not there": lambda text: text.replace("sw: 0.5", "nobody: 0.5"),
    "two documents": lambda text: f"{text}---\n{text}",
    "a directive": lambda text: "%TAG ! tag:evil.example,2026:\n---\n" + text.replace("./sw", "!x ./sw"),
    "nested too deep": lambda text: text + "x: " + "[" * 50_000 + "]" * 50_000 + "\n",
    "a megabyte of nothing": lambda text: text + " " * 2**20 + "\n",
    "a control character": lambda text: text.replace("./base", "./ba\x1b[31mse"),
    "half a character": lambda text: text.replace("./base", '"\\ud800"'),
    "a size of more than there is": lambda text: text.replace("./out}", "./out, shard_size: 9e99GB}"),
    "a size below nothing": lambda text: text.replace("./out}", "./out, shard_size: -5GB}"),
}  # fmt: skip


def test_the_recipe_that_is_changed_is_sound(tmp_path: Path) -> None:
    assert parse_recipe(SOUND, "recipe.yaml", tmp_path).edits


@pytest.mark.hostile("recipe", cases="recipes_from_elsewhere", by="name")
@pytest.mark.parametrize("name", RECIPES)
def test_a_hostile_recipe_is_refused_in_words(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipe.yaml"
    text = RECIPES[name](SOUND)
    assert text != SOUND
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert "recipe.yaml" in str(caught.value)
    assert len(str(caught.value)) < 5000
    assert list(tmp_path.iterdir()) == [file]


def sparse(file: Path) -> None:
    file.touch()
    os.truncate(file, 30 * 10**9)


@pytest.mark.hostile("recipe", cases="files_that_are_no_recipe", by="name")
@pytest.mark.parametrize(
    "name", ["thirty gigabytes of nothing", "a device without an end", "UTF-16", "a folder", "a link to itself"]
)
def test_what_is_no_recipe_is_refused_in_words(name: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    made: dict[str, Callable[[], object]] = {
        "thirty gigabytes of nothing": lambda: sparse(file),
        "a device without an end": lambda: file.symlink_to("/dev/zero"),
        "UTF-16": lambda: file.write_text(SOUND, encoding="utf-16"),
        "a folder": file.mkdir,
        "a link to itself": lambda: file.symlink_to(file),
    }
    made[name]()
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(file) in str(caught.value)
