"""Configurations of mergekit as recipes and back: what is the same, and what is refused, with its line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.files.yaml_lines import read_yaml, write_yaml
from polysafe.recipe.mergekit_read import read_mergekit
from polysafe.recipe.mergekit_write import write_mergekit
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.workflows.run import run_recipe
from tests.models import read_weights, trio
from tests.recipe.examples import COMMIT

EXAMPLES = Path(__file__).parent / "mergekit"
TEXT = (EXAMPLES / "ties.yml").read_text(encoding="utf-8")
SLERP = (EXAMPLES / "slerp.yml").read_text(encoding="utf-8")
BANDS = (EXAMPLES / "passthrough.yml").read_text(encoding="utf-8")
BASE, ONE, TWO = "/m/base", "/m/one", "/m/two"


def _read(text: str, **more: Any) -> Recipe:
    return make_recipe(read_mergekit(text, "merge.yml", output="/m/out", **more).data)


def _merge(method: str, *each: dict[str, float], **more: Any) -> str:
    models: list[Any] = [{"model": model, "parameters": values} for model, values in zip((ONE, TWO), each, strict=True)]
    base = {} if method == "linear" else {"base_model": BASE}
    return write_yaml({"merge_method": method, **base, "models": models, **more})


def _edit(text: str) -> dict[str, Any]:
    found = read_mergekit(text, output="/m/out").data["edits"]
    assert len(found) == 1
    return {key: value for key, value in found[0].items() if key not in {"base", "experts", "start_from"}}


def _golden() -> list[Any]:
    return [pytest.param(file, id=file.stem) for file in sorted(EXAMPLES.glob("*.yml"))]


@pytest.mark.parametrize("file", _golden())
def test_an_example_is_read_as_the_recipe_beside_it(file: Path) -> None:
    found = read_mergekit(file.read_text(encoding="utf-8"), file.name, output="/m/out").data
    wanted = read_yaml(file.with_suffix(".recipe.yaml").read_text(encoding="utf-8"), "recipe").value
    assert found == wanted


@pytest.mark.parametrize("file", _golden())
def test_what_is_written_is_read_as_the_same_recipe(file: Path) -> None:
    recipe = _read(file.read_text(encoding="utf-8"))
    written = write_mergekit(recipe).text
    again = _read(written)
    assert again == recipe
    assert write_mergekit(again).text == written


PAIR = ({"weight": 0.75}, {"weight": 0.5})
THIN = ({"weight": 0.75, "density": 0.3}, {"weight": 0.5, "density": 0.6})
WEIGHTS = {"one": 0.75, "two": 0.5}
DENSITY, DROP = {"one": 0.3, "two": 0.6}, {"one": 0.7, "two": 0.4}
MEANINGS: list[tuple[str, tuple[dict[str, float], ...], dict[str, Any], dict[str, Any]]] = [
    ("linear", PAIR, {}, {"method": "soup", "weights": {"one": 0.6, "two": 0.4}}),
    ("task_arithmetic", PAIR, {}, {"method": "task_arithmetic", "scale": WEIGHTS}),
    ("task_arithmetic", PAIR, {"lambda": 2}, {"method": "task_arithmetic", "scale": {"one": 1.5, "two": 1.0}}),
    ("task_arithmetic", PAIR, {"normalize": True}, {"method": "task_arithmetic", "scale": {"one": 0.6, "two": 0.4}}),
    (
        "ties",
        THIN,
        {},
        {"method": "ties", "density": DENSITY, "average": "weight", "weights": WEIGHTS, "scale": 1.0},
    ),
    (
        "ties",
        THIN,
        {"normalize": False, "lambda": 0.5},
        {"method": "ties", "density": DENSITY, "average": "sum", "weights": WEIGHTS, "scale": 0.5},
    ),
    ("dare_linear", THIN, {}, {"method": "dare", "drop": DROP, "weights": WEIGHTS, "scale": 1.0}),
    (
        "dare_linear",
        THIN,
        {"normalize": True, "rescale": True},
        {"method": "dare", "drop": DROP, "weights": {"one": 0.6, "two": 0.4}, "scale": 1.0},
    ),
    (
        "dare_ties",
        THIN,
        {},
        {"method": "dare", "drop": DROP, "then": "ties", "average": "sum", "weights": WEIGHTS, "scale": 1.0},
    ),
    (
        "dare_ties",
        THIN,
        {"normalize": True},
        {"method": "dare", "drop": DROP, "then": "ties", "average": "weight", "weights": WEIGHTS, "scale": 1.0},
    ),
]


@pytest.mark.parametrize(("method", "each", "parameters", "meaning"), MEANINGS)
def test_defaults_of_every_method_are_those_of_mergekit(
    method: str, each: tuple[dict[str, float], ...], parameters: dict[str, Any], meaning: dict[str, Any]
) -> None:
    assert _edit(_merge(method, *each, parameters=parameters)) == meaning


def test_parameters_of_a_model_come_before_those_of_all() -> None:
    text = _merge("ties", {"weight": 0.75}, {"density": 0.4}, parameters={"weight": 0.5, "density": 0.2})
    found = _edit(text)
    assert (found["weights"], found["density"]) == (WEIGHTS, {"one": 0.2, "two": 0.4})


def test_equal_weights_of_a_normalized_merge_are_no_option() -> None:
    found = _edit(_merge("ties", {"weight": 0.5}, {"weight": 0.5}))
    assert found == {"method": "ties", "density": 1.0, "average": "weight", "scale": 1.0}


def test_slices_of_the_same_merge_are_one() -> None:
    def part(first: int, last: int) -> dict[str, Any]:
        return {"sources": [{"model": model, "layer_range": [first, last]} for model in (ONE, TWO)]}

    text: Any = {"merge_method": "linear", "slices": [part(0, 3), part(3, 8)], "parameters": {"weight": 1}}
    assert _edit(write_yaml(text)) == {"method": "soup", "weights": {"one": 0.5, "two": 0.5}, "layers": 8}


REFUSED = [
    ("merge_method: ties", "merge_method: della", 1, "the method 'della' has no counterpart", "read are linear"),
    ("merge_method: ties", "merge_method: tis", 1, "the method 'tis' has no counterpart", "ties"),
    ("merge_method: ties", "merge_methd: ties", 1, "`merge_methd` has no counterpart in a recipe", "merge_method"),
    ("base_model: org/base@", "base_model: org/base@main #", 2, "'org/base@main' is at no commit of the hub", "COMMIT"),
    ("base_model: org/base@", "base_model: org/base+org/lora@", 2, "an adapter on a model", "adapter_of"),
    ("base_model: org/base@", "base_model: 5 #", 2, "must be a text", ""),
    ("base_model: org/base@", "#", 1, "`ties` needs a `base_model`", "name it"),
    ("models:", "slices:", 4, "slices[0].model: `model` has no counterpart", ""),
    ("weight: 0.75", "weight: [0.1, 0.9]", 6, "only one number for all layers and tensors", "by hand"),
    ("weight: 0.75", "weight: [{filter: mlp, value: 0.1}, {value: 1}]", 6, "only one number for all layers", "by hand"),
    ("weight: 0.75", "weight: true", 6, "only one number", ""),
    ("weight: 0.75", "wight: 0.75", 6, "`wight` has no counterpart", "weight"),
    ("      weight: 0.75\n", "", 4, "models[0]: `weight` is missing", "mergekit needs it too"),
    ("density: 0.3", "density: 1.5", 7, "must be above 0 and at most 1, not 1.5", ""),
    ("density: 0.3", "density: 0", 7, "must be above 0 and at most 1, not 0", ""),
    ("density: 0.3", "normalize: true", 7, "`normalize` has no counterpart", ""),
    ("model: /m/two", "model: /m/one", 8, "'one' is named twice", "remove one"),
    ("normalize: true", "normalize: 1", 13, "must be true or false", ""),
    ("normalize: true", "rescale: true", 13, "`rescale` has no counterpart", "remove it"),
    ("normalize: true", "epsilon: 0.1", 13, "`epsilon` has no counterpart", "mergekit"),
    ("dtype: float32", "dtype: float64", 15, "'float64' has no counterpart", "float32, bfloat16, float16"),
    ("dtype: float32", "chat_template: auto", 15, "`chat_template` has no counterpart", "tokenizer"),
    ("dtype: float32", "tokenizer_source: union", 15, "a union of vocabularies", "one vocabulary"),
    ("dtype: float32", "tokenizer_source: /m/other", 15, "'/m/other' is none of the merged models", ""),
    ("dtype: float32", "tokenizer: {source: base, tokens: {}}", 15, "`tokens` has no counterpart", "rows"),
    ("dtype: float32", "tokenizer: {source: base, pad_to_multiple_of: 8}", 15, "`pad_to_multiple_of`", "shape"),
    ("dtype: float32", "allow_crimes: true", 15, "`allow_crimes` has no counterpart", ""),
    ("dtype: float32", "modules: {a: {}}", 15, "`modules` has no counterpart", "language models alone"),
    ("dtype: float32", "dtype: float32\ndtype: float32", 16, "duplicate key 'dtype'", "keep one"),
    ("dtype: float32", "dtype: !!python/name:os.system x", 15, "the tag", ""),
    ("dtype: float32", "--- \ndtype: float32", 15, "not valid YAML", ""),
]
SLERP_REFUSED = [
    ("[0, 32]}", "[0, 33]}", 6, "other layers than those they are merged with", ""),
    ("[0, 32]", "[1, 32]", 5, "layer 1 where layer 0 is next: layers are left out, repeated or out of order", ""),
    ("[0, 32]", "[0]", 5, "must be the first layer and the one after the last", ""),
    ("[0, 32]", "[4, 0]", 5, "must be the first layer and the one after the last", ""),
    ("value: [0, 0.5, 0.3, 0.7, 1]", "value: [0, 1.5]", 11, "must be a number from 0 to 1", ""),
    ("    - value: 0.5\n", "", 10, "no value where no filter fits", "without `filter`"),
    ("  t:", "  s:", 9, "`s` has no counterpart", ""),
]
BANDS_REFUSED = [
    ("[8, 20]", "[9, 20]", 6, "layer 9 where layer 8 is next", ""),
    ("[20, 24]", "[20, 24]\n        parameters: {scale: 0.5}", 10, "`scale` has no counterpart", "scaled"),
    ("[8, 20]}", "[8, 20]}\n      - {model: /m/one, layer_range: [8, 20]}", 5, "takes every layer from one model", ""),
    ("merge_method: passthrough", "merge_method: passthrough\nbase_model: /m/two", 2, "other config and tokenizer", ""),
]


@pytest.mark.hostile("recipe")
@pytest.mark.parametrize(
    ("whole", "case"),
    [(TEXT, c) for c in REFUSED] + [(SLERP, c) for c in SLERP_REFUSED] + [(BANDS, c) for c in BANDS_REFUSED],
)
def test_what_has_no_counterpart_is_refused_with_its_line(whole: str, case: tuple[str, str, int, str, str]) -> None:
    old, new, line, told, remedy = case
    assert old in whole
    with pytest.raises(RecipeError) as caught:
        read_mergekit(whole.replace(old, new), "merge.yml", output="/m/out")
    error = caught.value
    assert (told in error.problem, str(error.where)) == (True, f"merge.yml:{line}"), str(error)
    assert remedy in (error.remedy or "")


def test_a_merge_that_ends_with_another_model_than_it_began_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"embedding from 'one', final norm and head from 'two'"):
        read_mergekit(BANDS[: BANDS.index("  - sources:\n      - model: /m/one\n        layer_range: [20")], output="x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            _merge("linear", {"weight": 0.75}, {"weight": 0.5}, parameters={"normalize": False}),
            "add up to 1, not to 1.25",
        ),
        (_merge("linear", {"weight": 0.75}, {"weight": -0.5}), "the weight of a soup is not negative"),
        (_merge("linear", {"weight": 0}, {"weight": 0}), "add up to 0"),
        (_merge("linear", *PAIR, base_model="/m/base"), "linear merges have no base but one of the models"),
        (_merge("dare_ties", *THIN, parameters={"rescale": False}), "multiply each `weight` by its `density`"),
        (_merge("dare_ties", *THIN, parameters={"rescale": False, "normalize": True}), "leave it to mergekit"),
        (_merge("slerp", {}, {}, parameters={"t": 0.5}), "slerp of 3 models"),
        (write_yaml({"merge_method": "linear", "models": []}), "models: must be a list with at least one entry"),
        (write_yaml({"merge_method": "linear"}), "either `models` or `slices`"),
        ("- a", "must be a mapping"),
        ("", "must be a mapping"),
    ],
)
def test_what_recipes_cannot_say_is_refused(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_mergekit(text, output="/m/out")
    assert told in str(caught.value)


def test_what_changes_no_weight_is_told() -> None:
    text = _merge("ties", *THIN, parameters={"int8_mask": True}, name="merged", dtype="bfloat16")
    notes = read_mergekit(text, output="/m/out").notes
    assert [note.split(" ")[0] for note in notes] == ["`name`", "`int8_mask`", "mergekit"]


def test_places_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "one").mkdir(parents=True)
    text = _merge("linear", *PAIR).replace(ONE, "here/one").replace(TWO, f"org/two@{COMMIT}")
    absolute = read_mergekit(text, output="/m/out").data["sources"]
    assert absolute == {"one": {"path": str(tmp_path / "here/one")}, "two": {"hub": "org/two", "revision": COMMIT}}
    beside = read_mergekit(text, output="/m/out", relative_to=tmp_path / "recipes").data["sources"]
    assert beside["one"] == {"path": "../here/one"}


def test_models_of_one_name_are_two_sources() -> None:
    text = _merge("linear", *PAIR).replace(ONE, "/a/model").replace(TWO, "/b/model")
    assert read_mergekit(text, output="x").data["sources"] == {
        "model": {"path": "/a/model"},
        "model-2": {"path": "/b/model"},
    }


RECIPE: dict[str, Any] = {
    "polysafe": 1,
    "sources": {"b": {"path": BASE}, "x": {"path": ONE}, "y": {"hub": "org/two", "revision": COMMIT}},
    "edits": [{"method": "ties", "base": "b", "experts": ["x", "y"]}],
    "output": {"path": "/m/out"},
}
_ON = {"base": "b", "experts": ["x", "y"]}
_BAND = {"method": "band_swap", "safety": "x", "language": "y", "transition_bottom": 0, "transition_top": 0}


def _recipe(*edits: dict[str, Any], **more: Any) -> Recipe:
    return make_recipe({**copy.deepcopy(RECIPE), **({"edits": list(edits)} if edits else {}), **more})


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ([{"method": "ties", **_ON, "trim": "model"}], "edits[0].trim: 'model' has no counterpart: mergekit would do"),
        ([{"method": "ties", **_ON, "restrict_to": "layers"}], "edits[0].restrict_to: 'layers' has no counterpart"),
        ([{"method": "ties", **_ON, "weights": {"x": 1, "y": 2}}], "edits[0].average: 'count' has no counterpart"),
        ([{"method": "layer_swap", "base": "b", "safety": "x", "language": "y"}], "'layer_swap' has no counterpart"),
        ([{"method": "soup", "weights": {"x": 0.5, "y": 0.5}}] * 2, "several edits"),
        ([_BAND], "say `layers`"),
        ([_BAND | {"layers": 12, "transition_top": 1}], "edits[0].transition_top: 1 has no counterpart"),
        ([_BAND | {"layers": 12, "outside": "safety"}], "edits[0].outside: 'safety' has no counterpart"),
        ([_BAND | {"layers": 12, "control": "random"}], "edits[0].control: 'random' has no counterpart"),
        ([_BAND | {"layers": 12}, {"method": "soup", "weights": {"x": 0.5, "y": 0.5}}], "only bands can follow"),
        ([_BAND | {"layers": 12, "bottom": 0}], "embedding from 'x', final norm and head from 'y'"),
    ],
)  # fmt: skip
def test_recipes_that_mergekit_cannot_say_are_refused(edits: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        write_mergekit(_recipe(*edits))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"path": "/m/lora", "adapter_of": "b"}, "sources.x: an adapter"),
        ({"gguf": "/m/x.gguf"}, "sources.x: a GGUF file"),
        ({"path": "/m/x+y"}, "sources.x.path: a path with @ or +"),
    ],
)
def test_sources_that_mergekit_reads_otherwise_are_refused(source: dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        write_mergekit(_recipe(sources=RECIPE["sources"] | {"x": source}))
    assert told in str(caught.value)


def test_a_recipe_as_people_write_it_becomes_a_configuration() -> None:
    evaluate = {"languages": ["en"], "safety": ["multijail"]}
    written = write_mergekit(_recipe(output={"path": "/m/out", "dtype": "BF16"}, evaluate=evaluate))
    assert read_yaml(written.text, "merge.yml").value == {
        "merge_method": "ties",
        "base_model": BASE,
        "models": [
            {"model": ONE, "parameters": {"weight": 1.0, "density": 0.2}},
            {"model": f"org/two@{COMMIT}", "parameters": {"weight": 1.0, "density": 0.2}},
        ],
        "parameters": {"normalize": True, "lambda": 1.0},
        "dtype": "float32",
        "out_dtype": "bfloat16",
        "tokenizer_source": f"org/two@{COMMIT}",
    }
    assert [note.split(" ")[0] for note in written.notes] == ["`evaluate`", "config.json", "mergekit"]


def test_several_bands_become_slices() -> None:
    bands = [
        _BAND | {"layers": 12, "bottom": 2, "top": 8},
        _BAND | {"safety": "b", "layers": 12, "bottom": 6, "top": 2},
    ]
    written = write_mergekit(_recipe(*bands)).text
    read: Any = read_yaml(written, "merge.yml").value
    ranges = [(part["sources"][0]["model"], part["sources"][0]["layer_range"]) for part in read["slices"]]
    hub = f"org/two@{COMMIT}"
    assert ranges == [(hub, [0, 2]), (ONE, [2, 4]), (hub, [4, 6]), (BASE, [6, 10]), (hub, [10, 12])]


@given(
    st.sampled_from(["ties", "dare_ties", "dare_linear", "task_arithmetic"]),
    st.lists(st.floats(0.01, 3), min_size=2, max_size=2),
    st.lists(st.floats(0.01, 1), min_size=2, max_size=2),
    st.booleans(),
    st.floats(-2, 2),
)
def test_any_merge_is_the_same_there_and_back(
    method: str, weights: list[float], density: list[float], normalize: bool, factor: float
) -> None:
    thinned = [{} if method == "task_arithmetic" else {"density": round(share, 6)} for share in density]
    each = [{"weight": weight, **more} for weight, more in zip(weights, thinned, strict=True)]
    recipe = _read(_merge(method, *each, parameters={"normalize": normalize, "lambda": factor}))
    assert _read(write_mergekit(recipe).text) == recipe


def test_a_merge_is_what_its_configuration_says(tmp_path: Path) -> None:
    models = trio(tmp_path, layers=3)
    text = f"""\
merge_method: task_arithmetic
base_model: {models.base}
slices:
  - sources:
      - {{model: {models.base}, layer_range: [0, 3]}}
      - {{model: {models.safety}, layer_range: [0, 3], parameters: {{weight: 0.75}}}}
      - {{model: {models.language}, layer_range: [0, 3], parameters: {{weight: 0.5}}}}
dtype: float32
out_dtype: float16
tokenizer_source: {models.safety}
"""
    recipe = make_recipe(read_mergekit(text, output=str(tmp_path / "out")).data)
    output = run_recipe(recipe, progress=lambda *_: None).output
    base, safety, language = (read_weights(folder) for folder in (models.base, models.safety, models.language))
    for name, merged in read_weights(output).items():
        origin = base[name].double()
        expected = origin + 0.75 * (safety[name].double() - origin) + 0.5 * (language[name].double() - origin)
        assert torch.equal(merged, expected.to(torch.float16))
    assert json.loads((output / "config.json").read_text(encoding="utf-8"))["dtype"] == "float16"


def test_bands_are_the_layers_of_their_models(tmp_path: Path) -> None:
    models = trio(tmp_path, layers=6)
    bands = [(models.language, 0, 1), (models.safety, 1, 3), (models.base, 3, 4), (models.language, 4, 6)]
    slices = [{"sources": [{"model": str(model), "layer_range": [first, stop]}]} for model, first, stop in bands]
    text = write_yaml({"merge_method": "passthrough", "slices": slices})  # type: ignore[dict-item]
    output = run_recipe(
        make_recipe(read_mergekit(text, output=str(tmp_path / "out")).data), progress=lambda *_: None
    ).output
    merged, outer = read_weights(output), read_weights(models.language)
    for model, first, stop in bands:
        weights = read_weights(model)
        names = [name for name in merged for layer in range(first, stop) if f".layers.{layer}." in name]
        assert names
        assert all(torch.equal(merged[name], weights[name]) for name in names)
    outside = [name for name in merged if ".layers." not in name]
    assert all(torch.equal(merged[name], outer[name]) for name in outside)
