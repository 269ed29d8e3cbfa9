"""Things by name: what polysafe brings, and what another installed package provides."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

import polysafe.registry
from polysafe.data.sets.base import Benchmark
from polysafe.errors import DataError, RecipeError
from polysafe.registry import Registry

SETS: Registry[Benchmark[object]] = Registry(
    "set",
    "some.group",
    ("polysafe.data.sets",),
    lambda value: (value.name,) if isinstance(value, Benchmark) else (),
    error=DataError,
    hint="; or a file",
)

PACKAGE = '''
from typing import Literal

from polysafe.data.prompts import Prompt
from polysafe.data.sets.base import Benchmark
from polysafe.judge.asking import Reading
from polysafe.judge.backend import Chat, Message
from polysafe.judge.block import JudgeSpec
from polysafe.judge.guards.base import Guard
from polysafe.judge.verdict import Label, Verdict


class Word:
    """Unsafe is what has a word in it."""

    name, identity = "word", {"judge": "word"}

    def __init__(self, word):
        self.word = word

    def judge(self, exchanges):
        for each in exchanges:
            label = Label.UNSAFE if self.word in each.answer else Label.SAFE
            yield Verdict(each.prompt.id, label, None, self.name)


class WordSpec(JudgeSpec):
    """By a word."""

    kind: Literal["word"]
    word: str

    def open(self, opening):
        return Word(self.word)


class Strict(Guard):
    """Everything is unsafe."""

    family = "strict_guard"
    languages = frozenset({"en"})
    reply_tokens = 1

    def questions(self, prompt, answer, name):
        return (Chat(name, (Message("user", answer.text),)),)

    def parse(self, text):
        return Reading(Label.UNSAFE)


def read(request):
    for row, food in enumerate(("egg", "ham")):
        yield Prompt("kitchen", str(row), "en", f"How do I boil {food}?", "harmless", food)


KITCHEN = Benchmark("kitchen", "questions of a cook", ("en",), "CC0", "nowhere", read)
'''
USE = """
from pathlib import Path
from polysafe.data.sets import load_set
from polysafe.judge.spec import parse_judge
prompts = load_set("kitchen", data=Path("data")).prompts
print(parse_judge("strict_guard=folder").kind, prompts[0].id)

from pydantic import TypeAdapter
from polysafe.errors import RecipeError
from polysafe.judge.block import JudgeBlock
from polysafe.judge.opening import open_judge
from polysafe.judge.spec import keys_of
from polysafe.judge.verdict import Exchange
from polysafe.recipe.recipe import make_recipe, recipe_schema

word = {"kind": "word", "word": "egg"}
vote = {"kind": "vote", "judges": [word, {"kind": "strict_guard", "path": "folder"}]}
recipe = {
    "polysafe": 1,
    "sources": {"base": {"path": "base"}, "safety": {"path": "safety"}},
    "edits": [{"method": "soup", "weights": {"base": 0.5, "safety": 0.5}}],
    "output": {"path": "out"},
    "evaluate": {"languages": ["en"], "safety": ["multijail"], "judge": vote},
}
judge = make_recipe(recipe).evaluate.judge
print(judge.model_dump()["judges"][0], keys_of("word"))
with open_judge(judge.judges[0]) as who:
    exchanges = [Exchange(prompt, f"I like a boiled {prompt.category} for breakfast.") for prompt in prompts]
    print(*[verdict.label for verdict in who.judge(exchanges)])
try:
    make_recipe({**recipe, "evaluate": {**recipe["evaluate"], "judge": {"kind": "wordd"}}})
except RecipeError as error:
    print(error)
print("WordSpec" in recipe_schema()["$defs"])
"""
DONE = """strict_guard kitchen/0/en
{'kind': 'word', 'word': 'egg'} ('kind', 'word')
unsafe safe
evaluate.judge.kind: there is no kind 'wordd'
  did you mean 'word'?
True
"""


@pytest.fixture
def provide(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of another package, with the entry point `other`."""
    module = ModuleType("some_package")
    monkeypatch.setitem(sys.modules, "some_package", module)
    entries = EntryPoints([EntryPoint("other", "some_package:thing", "some.group")])
    monkeypatch.setattr(polysafe.registry, "entry_points", entries.select)
    return module


def test_what_polysafe_brings_is_found() -> None:
    assert SETS.get("multijail") is SETS.own["multijail"]
    assert list(SETS.own) == sorted(SETS.own)


def test_what_a_package_provides_is_named_without_being_imported(provide: ModuleType) -> None:
    assert SETS.names() == (*SETS.own, "other")
    thing: Benchmark[object] = Benchmark("other", "", (), "", "", lambda _: iter(()))
    provide.thing = thing  # type: ignore[attr-defined]
    assert SETS.get("other") is thing


def test_what_a_package_provides_has_to_be_what_it_says(provide: ModuleType) -> None:
    with pytest.raises(RecipeError, match="'other' cannot be loaded: AttributeError"):
        SETS.get("other")
    provide.thing = 3  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="provides 3, which is no set 'other'"):
        SETS.get("other")


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(DataError, match="there is no set 'multijial'") as caught:
        SETS.get("multijial")
    assert "multijail" in str(caught.value.remedy)
    with pytest.raises(DataError) as caught:
        SETS.get("zzz")
    assert str(caught.value.remedy).endswith("xthreatbench; or a file")


def test_sets_guards_and_judges_of_an_installed_package_are_used_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "cook.py").write_text(PACKAGE)
    info = tmp_path / "cook-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cook\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[polysafe.sets]\nkitchen = cook:KITCHEN\n[polysafe.guards]\nstrict_guard = cook:Strict\n"
        "[polysafe.judges]\nword = cook:WordSpec\n"
    )
    (tmp_path / "data" / "kitchen").mkdir(parents=True)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == DONE, done.stderr


def test_what_is_installed_meanwhile_is_found_without_looking_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, look = [], metadata.entry_points

    def counted() -> object:
        looked.append(1)
        return look()

    monkeypatch.setattr(metadata, "entry_points", counted)
    monkeypatch.syspath_prepend(tmp_path)
    assert len({SETS.names() for _ in range(3)}) == len(looked) == 1
    assert "kitchen" not in SETS.names()
    info = tmp_path / "cook-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[some.group]\nkitchen = cook:KITCHEN\n")
    os.utime(tmp_path, (1, 1))  # a clock may tick too slowly to show that something came into it
    assert SETS.names() == (*SETS.own, "kitchen")
    assert len(looked) == 2
