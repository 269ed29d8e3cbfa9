from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from polysafe.judge.guards.qwen3guard import Qwen3GuardSpec
from polysafe.judge.kinds.llm import OpenAISpec
from polysafe.methods.base import Method
from polysafe.methods.layer_swap import LayerSwap
from polysafe.methods.registry import names, resolve
from polysafe.recipe.recipe import Recipe, load_recipe, make_recipe, parse_recipe, recipe_schema
from tests.recipe.examples import COMMIT, JUDGE, TEXT, VALIDATED, recipes


def test_everything_is_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(TEXT, encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.sources["base"].path == tmp_path / "base"
    assert recipe.sources["sw"].path == Path("/models/expert-sw")
    assert (recipe.sources["safety"].hub, recipe.sources["safety"].revision) == ("org/safety-en", COMMIT)
    assert recipe.edits == (LayerSwap(base="base", safety="safety", language="sw", granularity="layer", tau=0.001),)
    assert recipe.output.path == tmp_path / "out/sw"
    assert recipe.output.shard_size == 512 << 20
    assert recipe.output.tokenizer_from == "base"
    assert recipe.evaluate is not None
    assert recipe.evaluate.languages == ("en", "sw", "no")
    assert recipe.evaluate.judge is not None
    assert recipe.evaluate.judge == OpenAISpec(kind="openai", base_url="http://localhost:8000/v1", model="guard")
    assert recipe.evaluate.judge.protocol == "multijail"


def test_adapter_names_its_base() -> None:
    recipe = parse_recipe(TEXT.replace("expert-sw}", "expert-sw, adapter_of: base}"))
    assert recipe.sources["sw"].adapter_of == "base"
    assert parse_recipe(recipe.to_yaml()) == recipe


def test_defaults() -> None:
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {"a": {"path": "a"}},
            "edits": [{"method": "soup", "weights": {"a": 1}}],
            "output": {"path": "out"},
        }
    )
    assert recipe.output.shard_size == 5_000_000_000
    assert recipe.output.tokenizer_from is None
    assert recipe.evaluate is None
    assert recipe.sources["a"].path == Path.cwd() / "a"


def test_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = parse_recipe(TEXT.replace("./base", "~/base"))
    assert recipe.sources["base"].path == Path("/home/someone/base")


SERVER = {"base_url": "http://localhost:8000/v1", "model": "m", "key": "JUDGE_KEY"}
JUDGES: list[dict[str, Any]] = [
    {"kind": "openai", **SERVER, "protocol": "soteria.published"},
    {"kind": "transformers", "path": "./judge", "protocol": "strict"},
    {"kind": "qwen3guard", "path": "./guard", "counting": "strict"},
    {"kind": "llama_guard", **SERVER, "version": 4},
    {"kind": "polyguard", **SERVER},
    {"kind": "wildguard", "path": "./guard"},
    {"kind": "shieldgemma", "path": "./guard"},
    {"kind": "vote", "rule": "any", "judges": [{"kind": "polyguard", **SERVER}, {"kind": "openai", **SERVER}]},
    {
        "kind": "translate_test",
        "judge": {"kind": "vote", "judges": [{"kind": "wildguard", "path": "w"}, {"kind": "polyguard", "path": "p"}]},
        "translator": {"path": "./madlad"},
        "rule": "agree",
        "target": "en",
    },
    {"kind": "organism"},
]


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_recipe(tmp_path / "recipe.yaml") == parse_recipe(TEXT, folder=tmp_path)


def test_method_values_are_accepted_in_python() -> None:
    swap = LayerSwap(base="base", safety="safety", language="sw")
    sources = {name: {"path": name} for name in swap.uses}
    data = {"polysafe": 1, "sources": sources, "edits": [swap], "output": {"path": "out"}}
    assert make_recipe(data).edits == (swap,)


def test_recipes_are_values() -> None:
    assert parse_recipe(TEXT) == parse_recipe(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        parse_recipe(TEXT).polysafe = 1  # type: ignore[misc]


def test_every_default_is_written_out() -> None:
    written = parse_recipe(TEXT).to_yaml()
    assert "method: layer_swap.v1" in written
    for option in LayerSwap.model_fields:
        assert f"\n  {option}: " in written
    assert "shard_size: 512MiB" in written


def test_paths_relative_to_a_folder(tmp_path: Path) -> None:
    recipe = parse_recipe(TEXT, folder=tmp_path)
    written = recipe.to_yaml(relative_to=tmp_path / "out/sw")
    assert "path: ../../base" in written
    assert "path: .\n" in written
    assert parse_recipe(written, folder=tmp_path / "out/sw") == recipe


@given(recipes())
def test_recipes_survive_writing_and_reading(data: Mapping[str, Any]) -> None:
    recipe = make_recipe(data)
    assert parse_recipe(recipe.to_yaml()) == recipe
    folder = Path.cwd() / "elsewhere"
    assert parse_recipe(recipe.to_yaml(relative_to=folder), folder=folder) == recipe


@pytest.mark.parametrize("judge", JUDGES, ids=[str(judge["kind"]) for judge in JUDGES])
def test_every_judge_survives_writing_and_reading_and_is_in_the_schema(judge: dict[str, Any]) -> None:
    text = TEXT.replace(JUDGE, json.dumps(judge))
    recipe = parse_recipe(text, folder="/recipes")
    assert parse_recipe(recipe.to_yaml()) == recipe
    assert recipe.evaluate is not None
    assert recipe.evaluate.judge is not None
    assert "null" not in recipe.to_yaml().partition("judge:")[2].partition("calibration")[0]
    schema = recipe_schema()
    blocks = schema["$defs"]["Evaluate"]["properties"]["judge"]["anyOf"][0]
    name = blocks["discriminator"]["mapping"][judge["kind"]].rpartition("/")[2]
    assert set(judge) <= set(schema["$defs"][name]["properties"])


def test_paths_of_judges_are_those_of_the_recipe() -> None:
    text = TEXT.replace(JUDGE, "{kind: qwen3guard, path: ./guard}\n  calibration: error.json")
    evaluate = parse_recipe(text, folder="/recipes").evaluate
    assert evaluate is not None
    assert isinstance(evaluate.judge, Qwen3GuardSpec)
    assert (evaluate.judge.path, evaluate.calibration) == (Path("/recipes/guard"), Path("/recipes/error.json"))


def test_schema_describes_every_method_and_key() -> None:
    schema = recipe_schema()
    json.dumps(schema)
    entries = schema["properties"]["edits"]["items"]["oneOf"]
    assert [entry["properties"]["method"]["enum"][0] for entry in entries] == list(names())
    for entry in entries:
        method: type[Method] = resolve(entry["properties"]["method"]["enum"][1])
        assert set(entry["properties"]) == {"method", *method.model_fields}
        assert entry["additionalProperties"] is False
        assert entry["required"][0] == "method"
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["required"] == ["polysafe", "sources", "edits", "output"]
    text = json.dumps(schema)
    assert all(f'"#/$defs/{name}"' in text for name in schema["$defs"])
    assert all("description" in about for entry in entries for about in list(entry["properties"].values())[1:])


def test_paths_are_absolute_even_if_the_folder_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/recipe.yaml").write_text(TEXT)
    path = load_recipe("in/recipe.yaml").sources["base"].path
    assert path == tmp_path / "in/base"
    assert os.path.isabs(str(path))


def test_validation_is_read_and_written(tmp_path: Path) -> None:
    recipe = parse_recipe(VALIDATED, folder=tmp_path)
    block = recipe.validation
    assert block is not None
    assert block.safety == ("multijail.validation", tmp_path / "mine.csv")
    assert (block.limit, block.candidates, block.judge, block.signal) == (20, 4, None, "refusal")
    assert block.constraints.model_dump() == {"over_refusal": 0.05, "refused": -0.02, "helpful": -0.1}
    assert recipe.data == tmp_path / "sets"
    assert parse_recipe(recipe.to_yaml()) == recipe
    assert "data: ../sets" in recipe.to_yaml(relative_to=tmp_path / "out")
    assert recipe.with_data(tmp_path / "other").data == tmp_path / "other"
    assert recipe.with_data(None) is recipe


def test_what_is_not_named_is_not_written() -> None:
    text = parse_recipe(TEXT).to_yaml()
    assert "validation" not in text
    assert "\ndata" not in text
