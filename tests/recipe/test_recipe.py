from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.judge.guards.qwen3guard import Qwen3GuardSpec
from polysafe.judge.kinds.llm import OpenAISpec
from polysafe.methods.base import Method
from polysafe.methods.layer_swap import LayerSwap
from polysafe.methods.registry import names, resolve
from polysafe.recipe.recipe import (
    Recipe,
    format_size,
    load_recipe,
    make_recipe,
    parse_recipe,
    parse_size,
    recipe_schema,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = f"""\
polysafe: 1
sources:
  base:   {{path: ./base}}
  safety: {{hub: org/safety-en, revision: {COMMIT}}}
  sw:     {{path: /models/expert-sw}}
edits:
  - method: layer_swap
    base: base
    safety: safety
    language: sw
    granularity: layer
    tau: 1e-3
output: {{path: out/sw, shard_size: 512MiB, tokenizer_from: base}}
evaluate:
  languages: [en, sw, no]
  safety: [multijail]
  over_refusal: [xstest]
  capability: [belebele, mgsm]
  judge: {{kind: openai, base_url: "http://localhost:8000/v1", model: guard}}
"""


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "recipe.yaml")
    return str(caught.value)


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


JUDGE = '{kind: openai, base_url: "http://localhost:8000/v1", model: guard}'
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
MISTAKES = [
    ("polysafe: 1", "polysafe: 2", 1, "polysafe: schema version 2 is unknown: this polysafe reads version 1"),
    ("polysafe: 1", "polysafe: true", 1, "polysafe: schema version True is unknown"),
    ("polysafe: 1", "polysafe: 1.0", 1, "polysafe: schema version 1.0 is unknown"),
    ("polysafe: 1", "polysafe: '1'", 1, "polysafe: schema version '1' is unknown"),
    ("polysafe: 1", "polysave: 1", 1, "'polysafe' is missing"),
    ("evaluate:", "evalute:", 14, "unknown key 'evalute'"),
    ("{path: ./base}", "{}", 3, "sources.base: a source is either `path`, `hub` with `revision`, or `gguf`"),
    ("{path: ./base}", "{path: x, hub: a/b}", 3, "sources.base: a source is either `path`, `hub`"),
    ("{path: ./base}", "./base", 3, "sources.base: must be a mapping, not"),
    ("{path: ./base}", "{pth: x}", 3, "sources.base: unknown key 'pth'"),
    ("{path: ./base}", "{path: ''}", 3, "sources.base.path: a path is wanted, not ''"),
    ("{path: ./base}", "{path: 5}", 3, "sources.base.path: a path is wanted, not 5"),
    ("{path: ./base}", '{path: "a\\0b"}', 3, "sources.base.path: a path is wanted"),
    ("{path: ./base}", f"{{path: x, revision: {COMMIT}}}", 3, "sources.base.revision: `revision` belongs to `hub`"),
    (f", revision: {COMMIT}", "", 4, "sources.safety: a hub source needs the full commit hash"),
    (COMMIT, "main", 4, "sources.safety.revision: a hub source needs the full commit hash, 40 hexadecimal"),
    (COMMIT, COMMIT[:12], 4, "sources.safety.revision: "),
    (COMMIT, COMMIT.upper(), 4, "sources.safety.revision: "),
    ("org/safety-en", "safety-en", 4, "sources.safety.hub: must match pattern"),
    ("org/safety-en", "org/../x", 4, "sources.safety.hub: must match pattern"),
    ("expert-sw}", "expert-sw, adapter_of: bse}", 5, "sources.sw.adapter_of: no source is called 'bse'"),
    ("expert-sw}", "expert-sw, adapter_of: sw}", 5, "sources.sw.adapter_of: 'sw' is an adapter itself"),
    ("  sw:     {", "  s w:    {", 5, "sources: must match pattern"),
    ("  sw:     {", "  base:   {", 5, "duplicate key 'base', already set on line 3"),
    ("method: layer_swap", "methd: layer_swap", 7, "edits[0]: every edit names its `method`"),
    ("method: layer_swap", "method: 5", 7, "edits[0]: every edit names its `method`"),
    ("method: layer_swap", "method: layerswap", 7, "edits[0].method: there is no method 'layerswap'"),
    ("method: layer_swap", "method: layer_swap.v9", 7, "edits[0].method: there is no layer_swap.v9"),
    ("    base: base\n", "", 7, "edits[0]: 'base' is missing"),
    ("safety: safety\n", "safety: safty\n", 9, "edits[0].safety: no source is called 'safty'"),
    ("language: sw\n", "language: 5\n", 10, "edits[0].language: must be a valid string, not 5"),
    ("language: sw\n", "language: base\n", 7, "edits[0]: base, safety and language must be three different"),
    ("granularity: layer", "granularity: layr", 11, "edits[0].granularity: must be 'layer' or 'module', not 'layr'"),
    ("granularity: layer", "granularty: layer", 11, "edits[0]: unknown key 'granularty'"),
    ("tau: 1e-3", "tau: -1", 12, "edits[0].tau: must be greater than or equal to 0, not -1"),
    ("tau: 1e-3", "tau: small", 12, "edits[0].tau: must be a valid number, not 'small'"),
    ("tau: 1e-3", "tau: [1]", 12, "edits[0].tau: must be a valid number, not a list"),
    ("tau: 1e-3", "tau: nan", 12, "edits[0].tau: must be a finite number, not 'nan'"),
    ("{path: out/sw, shard_size: 512MiB", "{shard_size: 512MiB", 13, "output: 'path' is missing"),
    ("512MiB", "5 apples", 13, "output.shard_size: '5 apples' is not a size"),
    ("512MiB", "0", 13, "output.shard_size: 0 is not a size"),
    ("512MiB", "true", 13, "output.shard_size: True is not a size"),
    ("tokenizer_from: base", "tokenizer_from: bse", 13, "output.tokenizer_from: no source is called 'bse'"),
    ("[en, sw, no]", "[]", 15, "evaluate.languages: at least one is needed"),
    ("[en, sw, no]", "[en, sw, en]", 15, "evaluate.languages[2]: 'en' is named twice"),
    ("[en, sw, no]", "[en, 5]", 15, "evaluate.languages[1]: must be a valid string, not 5"),
    ("[en, sw, no]", "en", 15, "evaluate.languages: must be a list, not 'en'"),
    ("[multijail]", "[../x]", 16, "evaluate.safety[0]: '../x' is no set"),
    ("kind: openai", "kind: opnai", 19, "evaluate.judge.kind: there is no kind 'opnai'"),
    ("kind: openai, ", "", 19, "evaluate.judge: 'kind' is missing"),
    (JUDGE, "guard", 19, "evaluate.judge: must be a mapping, not 'guard'"),
    (", model: guard", "", 19, "evaluate.judge: 'model' is missing"),
    (", model: guard", ", model: guard, protcol: strict", 19, "evaluate.judge: unknown key 'protcol'"),
    (", model: guard", ", model: guard, protocol: strikt", 19, "evaluate.judge.protocol: must be 'multijail', "),
    (", model: guard", ", model: guard, key: sk-1", 19, "evaluate.judge.key: must match pattern"),
    ("http://localhost:8000/v1", "localhost", 19, "evaluate.judge.base_url: must match pattern"),
    (JUDGE, "{kind: qwen3guard}", 19, "evaluate.judge: a model is in a folder, `path`, or served"),
    (JUDGE, "{kind: qwen3guard, path: x, key: K}", 19, "evaluate.judge.key: `key` belongs to `base_url`"),
    (JUDGE, "{kind: wildguard, path: x, counting: strict}", 19, "evaluate.judge: unknown key 'counting'"),
    (JUDGE, "{kind: llama_guard, path: x, version: 2}", 19, "evaluate.judge.version: must be 3 or 4, not 2"),
    (JUDGE, "{kind: vote, judges: []}", 19, "evaluate.judge.judges: a vote needs two judges or more"),
    (JUDGE, "{kind: vote, judges: [{kind: vote}]}", 19, "evaluate.judge.judges[0].kind: there is no kind 'vote'"),
    (
        JUDGE,
        "{kind: translate_test, judge: {kind: polyguard, path: x}, translator: {pth: y}}",
        19,
        "evaluate.judge.translator: unknown key 'pth'",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), MISTAKES, ids=[new for _, new, _, _ in MISTAKES])
def test_a_mistake_is_reported_with_its_line_and_text(old: str, new: str, line: int, message: str) -> None:
    assert old in TEXT
    said = refusal(TEXT.replace(old, new))
    assert said.startswith(f"recipe.yaml:{line}: {message}")
    text = TEXT.replace(old, new).splitlines()[line - 1]
    assert f"{line} | {text}\n" in said
    assert said.count("recipe.yaml:") == (2 if new == "polysave: 1" else 1)


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ("polysafe: 1", "polysafe: 2", "install the polysafe that wrote the recipe"),
        ("granularity:", "granularty:", "did you mean 'granularity'?"),
        ("granularity:", "zzz:", "known here: method, control, control_seed, base, safety"),
        ("safety: safety\n", "safety: safty\n", "did you mean 'safety'?"),
        ("safety: safety\n", "safety: zzz\n", "sources: base, safety, sw"),
        ("method: layer_swap", "method: layerswap", "did you mean 'layer_swap'?"),
        ("output:", "outputs:", "did you mean 'output'?"),
        ("capability:", "capabilities:", "did you mean 'capability'?"),
        ("base_url:", "url:", "known here: kind, base_url, model"),
        (COMMIT, "main", "model_info('org/safety-en').sha"),
        ("512MiB", "5XB", "write it like 5GB"),
    ],
)
def test_a_mistake_comes_with_a_remedy(old: str, new: str, remedy: str) -> None:
    assert remedy in refusal(TEXT.replace(old, new))


def test_caret_is_below_the_culprit() -> None:
    lines = refusal(TEXT.replace("granularity: layer", "granularity: layr")).splitlines()
    assert lines[1][lines[2].index("^") :] == "layr"


def test_all_mistakes_are_reported_in_order() -> None:
    said = refusal(TEXT.replace("./base", "''").replace("tau: 1e-3", "tau: -1").replace("512MiB", "x"))
    found = [line.split(":")[1] for line in said.splitlines() if line.startswith("recipe.yaml:")]
    assert found == ["3", "12", "13"]


def test_many_mistakes_are_counted() -> None:
    keys = "".join(f"zz{i}: 1\n" for i in range(15))
    said = refusal(TEXT + keys)
    assert said.count("unknown key") == 10
    assert said.endswith("and 5 more problems")


def test_mistake_in_a_second_edit() -> None:
    second = "  - method: soup\n    weights: {sw: 0.5, safty: 0.5}\n"
    said = refusal(TEXT.replace("output:", second + "output:"))
    assert said.startswith("recipe.yaml:14: edits[1].weights.safty: no source is called 'safty'")


def test_edits_of_different_models_in_one_recipe() -> None:
    second = "  - method: soup\n    weights: {sw: 0.5, safety: 0.5}\n"
    said = refusal(TEXT.replace("output:", second + "output:"))
    assert said.startswith("recipe.yaml:14: edits[1]")
    assert "changes 'safety', but the first one changes 'sw'" in said


@pytest.mark.parametrize("text", ["", "[]", "hello", "5", "# nothing\n"])
def test_text_that_is_no_mapping(text: str) -> None:
    assert refusal(text) == "recipe.yaml:1: a recipe is a mapping that begins with `polysafe: 1`"


def test_no_edits() -> None:
    before, _, after = TEXT.partition("edits:")
    rest = after[after.index("output:") :]
    assert refusal(f"{before}edits: []\n{rest}").startswith("recipe.yaml:6: edits: at least one is needed")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml: cannot be read: No such file or directory"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="a folder, not a recipe"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("polysafe: 1\n# café".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml:2: not UTF-8 text"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(RecipeError, match="larger than 1 MiB"):
        load_recipe(tmp_path / "large.yaml")


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_recipe(tmp_path / "recipe.yaml") == parse_recipe(TEXT, folder=tmp_path)


def test_recipe_in_python_reports_the_path_without_a_line() -> None:
    with pytest.raises(RecipeError) as caught:
        make_recipe({"polysafe": 1, "sources": {"a": {"path": "a"}}, "edits": [{"method": "soup", "wights": {}}]})
    said = str(caught.value).splitlines()
    assert "edits[0]: unknown key 'wights'" in said
    assert "'output' is missing" in said


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


NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
FOLDERS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: not text.startswith(("~", "/"))
)
SOURCES = st.one_of(
    FOLDERS.map(lambda path: {"path": path}),
    st.builds(
        lambda org, commit: {"hub": f"{org}/model", "revision": commit},
        NAMES,
        st.text("0123456789abcdef", min_size=40, max_size=40),
    ),
)


def _options(name: str, sources: list[str], draw: Any) -> dict[str, Any]:
    """Random options for the fields of a method whose types say what they may be."""
    options: dict[str, Any] = {}
    for field, about in resolve(name).model_fields.items():
        choices = get_args(about.annotation)
        if choices and all(isinstance(choice, str) for choice in choices) and draw(st.booleans()):
            options[field] = draw(st.sampled_from(choices))
    return options


@st.composite
def recipes(draw: Any) -> dict[str, Any]:
    sources = draw(st.dictionaries(NAMES, SOURCES, min_size=3, max_size=5))
    base, safety, language = list(sources)[:3]
    swap = {"method": "layer_swap", "base": base, "safety": safety, "language": language}
    tau = draw(st.floats(0, 1, allow_nan=False))
    weights = {safety: 0.25, language: 0.75}
    edits = [
        swap | {"tau": tau, "granularity": draw(st.sampled_from(["layer", "module"]))},
        {"method": "soup", "weights": weights} | _options("soup", list(sources), draw),
        {"method": "dare", "base": base, "experts": [safety, language], "seed": draw(st.integers(0, 2**40))},
        {"method": "ties", "base": base, "experts": [language], "density": draw(st.floats(0.01, 1))},
    ]
    return {
        "polysafe": 1,
        "sources": sources,
        "edits": draw(st.lists(st.sampled_from(edits), min_size=1, max_size=3)),
        "output": {"path": draw(FOLDERS), "shard_size": draw(st.integers(1, 10**14))},
        "evaluate": draw(st.none() | st.just({"languages": ["en", "no"], "safety": ["multijail"]})),
    }


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


@given(recipes(), st.data())
def test_one_unknown_source_is_found_wherever_it_is_named(data: dict[str, Any], draw: st.DataObject) -> None:
    recipe = make_recipe(data)
    used = sorted({name for edit in recipe.edits for name in edit.uses})
    removed = draw.draw(st.sampled_from(used))
    remaining = {name: source for name, source in data["sources"].items() if name != removed}
    with pytest.raises(RecipeError, match=r"no source is called '.*'") as caught:
        make_recipe({**data, "sources": remaining})
    assert repr(removed) in caught.value.problem
    assert caught.value.problem.startswith("edits[")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("5 GB", 5 * 10**9),
        ("5G", 5 * 10**9),
        ("5gb", 5 * 10**9),
        ("1.5KB", 1500),
        ("2GiB", 2 << 30),
        ("512MiB", 512 << 20),
        ("1TB", 10**12),
        ("7B", 7),
        ("7", 7),
        (7, 7),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5PB", "5iB", "0", "0.1B", "five", None, True, "1e9", "5GB5"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(RecipeError, match="is not a size"):
        parse_size(text)


@given(st.integers(1, 10**14))
def test_sizes_survive_writing_and_reading(size: int) -> None:
    assert parse_size(format_size(size)) == size


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


VALIDATED = (
    TEXT
    + """\
data: ./sets
validation:
  languages: [en, sw]
  safety: [multijail.validation, ./mine.csv]
  over_refusal: [xstest.harmless]
  signal: refusal
  limit: 20
  constraints: {over_refusal: +0.05, helpful: -0.1}
"""
)


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


VALIDATION_MISTAKES = [
    ("over_refusal: +0.05", "over_refusal: -0.05", 27, "validation.constraints.over_refusal: must be greater"),
    ("helpful: -0.1", "helpful: 0.1", 27, "validation.constraints.helpful: must be less"),
    ("helpful: -0.1", "helpfull: -0.1", 27, "did you mean 'helpful'"),
    ("  limit: 20", "  limmit: 20", 26, "did you mean 'limit'"),
    ("signal: refusal", "signal: refusals", 25, "validation.signal: must be 'refusal'"),
    ("signal: refusal", "signal: refusal\n  judge: {kind: organism}", 25, "compared by a `signal` or by a `judge`"),
    ("signal: refusal", "judge: {kind: organsm}", 25, "did you mean 'organism'"),
    ("[xstest.harmless]", "[]", 24, "validation.over_refusal: at least one is needed"),
    ("[xstest.harmless]", "[x y]", 24, "validation.over_refusal[0]: 'x y' is no set"),
    ("[en, sw]\n  safety: [multijail.validation, ./mine.csv]", "[en, en]\n  safety: [a]", 22, "'en' is named twice"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), VALIDATION_MISTAKES)
def test_a_mistake_in_validation_is_reported_with_its_line(old: str, new: str, line: int, message: str) -> None:
    assert old in VALIDATED
    said = refusal(VALIDATED.replace(old, new, 1) if old != "[en, sw]" else VALIDATED)
    assert said.startswith(f"recipe.yaml:{line}: "), said
    assert message in said
