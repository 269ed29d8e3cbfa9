"""Finding methods by name, version and entry point."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import ClassVar

import pytest

import polysafe.registry
from polysafe.checkpoint.opened import Sources
from polysafe.edits.edit import Edit
from polysafe.errors import RecipeError
from polysafe.methods import registry
from polysafe.methods.band_swap import BandSwap
from polysafe.methods.base import Method
from polysafe.methods.layer_swap import LayerSwap

BUILT_IN = ("band_swap", "dare", "layer_swap", "slerp", "soup", "task_arithmetic", "ties")


class _Nothing(Method):
    """A method that changes nothing."""

    model: str
    """The model."""

    @property
    def start(self) -> str:
        return self.model

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.model,)

    def fit(self, sources: Sources) -> Edit:
        return self.make_edit(sources, {})


class Nothing(_Nothing):
    name: ClassVar[str] = "nothing"
    version: ClassVar[int] = 1


class NothingTwo(_Nothing):
    name: ClassVar[str] = "nothing"
    version: ClassVar[int] = 2


@pytest.fixture(autouse=True)
def _unchanged_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names()
    monkeypatch.setattr(registry, "_registered", {name: dict(v) for name, v in registry._registered.items()})


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that stands for another package, with the entry point `nothing`."""
    module = ModuleType("some_plugin")
    monkeypatch.setitem(sys.modules, "some_plugin", module)
    _provide(monkeypatch, "nothing", "some_plugin:Method")
    return module


def _provide(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entries = EntryPoints([EntryPoint(name, value, registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", entries.select)
    monkeypatch.setattr(polysafe.registry, "entry_points", entries.select)


def test_built_in_methods_are_found() -> None:
    assert set(BUILT_IN) <= set(registry.names())
    assert registry.resolve("layer_swap") is LayerSwap
    assert registry.resolve("layer_swap.v1") is LayerSwap
    assert registry.resolve("band_swap") is BandSwap


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_is_documented(name: str) -> None:
    schema = registry.resolve(name).model_json_schema()
    assert schema["description"]
    for option, about in schema["properties"].items():
        assert about.get("description", "").endswith("."), option


def test_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(RecipeError, match="no method 'layer_swop'") as refusal:
        registry.resolve("layer_swop")
    assert "did you mean 'layer_swap'?" in str(refusal.value)
    assert all(name in str(refusal.value) for name in BUILT_IN)


@pytest.mark.parametrize("name", ["layer_swap.v2", "layer_swap.v0"])
def test_unknown_version_lists_the_known_ones(name: str) -> None:
    with pytest.raises(RecipeError, match=r"known: layer_swap\.v1"):
        registry.resolve(name)


def test_a_bare_name_is_the_latest_version() -> None:
    registry.register(Nothing)
    assert registry.resolve("nothing") is Nothing
    registry.register(NothingTwo)
    assert registry.resolve("nothing") is NothingTwo
    assert registry.resolve("nothing.v1") is Nothing


def test_a_name_and_version_are_given_once() -> None:
    registry.register(Nothing)
    registry.register(Nothing)
    with pytest.raises(RecipeError, match=r"nothing\.v1 is already taken by .*\.Nothing"):
        registry.register(type("Other", (_Nothing,), {"name": "nothing", "version": 1, "__module__": __name__}))


@pytest.mark.parametrize(("name", "version"), [("Nothing", 1), ("no-thing", 1), ("nothing.v1", 1), ("nothing", 0)])
def test_names_must_be_usable_in_recipes(name: str, version: int) -> None:
    with pytest.raises(RecipeError, match="not a method's name and version"):
        registry.register(type("Other", (_Nothing,), {"name": name, "version": version, "__module__": __name__}))


def test_methods_of_other_packages_are_loaded_on_demand(plugin: ModuleType) -> None:
    assert "nothing" in registry.names()  # known by name although the module has no attribute yet
    plugin.Method = Nothing  # type: ignore[attr-defined]
    assert registry.resolve("nothing") is Nothing
    assert registry.resolve("nothing.v1") is Nothing


def test_a_package_that_cannot_be_loaded_is_named(plugin: ModuleType) -> None:
    with pytest.raises(RecipeError, match=r"some_plugin:Method.*'nothing' cannot be loaded: AttributeError"):
        registry.resolve("nothing")
    assert registry.resolve("layer_swap") is LayerSwap


def test_what_an_entry_point_provides_must_be_that_method(plugin: ModuleType) -> None:
    for wrong in (LayerSwap, "text"):
        plugin.Method = wrong  # type: ignore[attr-defined]
        with pytest.raises(RecipeError, match="not a method called 'nothing'"):
            registry.resolve("nothing")


def test_a_package_cannot_replace_a_built_in_method(monkeypatch: pytest.MonkeyPatch, plugin: ModuleType) -> None:
    _provide(monkeypatch, "soup", "some_plugin:Method")
    plugin.Method = type(  # type: ignore[attr-defined]
        "Soup", (_Nothing,), {"name": "soup", "version": 1, "__module__": "some_plugin"}
    )
    with pytest.raises(RecipeError, match=r"soup\.v1 is already taken by polysafe\.methods\.merges\.Soup"):
        registry.resolve("soup")


def test_a_method_without_operations_gives_an_empty_edit(llama: Sources) -> None:
    edit = Nothing(model="sw").fit(llama)
    assert (edit.start, edit.steps, set(edit.sources)) == ("sw", {}, {"sw"})
    assert edit.provenance[0].method == "nothing.v1"
    assert Nothing(model="sw").donor() == "sw"


def test_methods_that_run_no_model_are_found_without_torch() -> None:
    """A run hashes its inputs while torch is imported, and begins with that once it knows its methods."""
    program = (
        "import sys; sys.modules['torch'] = None  # whoever imports it is refused\n"
        "from polysafe.methods.registry import resolve\n"
        f"assert [resolve(name).name for name in {BUILT_IN}] == [*{BUILT_IN}]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
