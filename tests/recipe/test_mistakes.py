"""What is wrong in a recipe is told with its line and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.recipe.recipe import load_recipe, make_recipe
from tests.recipe.examples import COMMIT, JUDGE, TEXT, VALIDATED, recipes, refusal

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
    ("tau: 1e-3", "tau: nan", 12, "edits[0].tau: must be a valid number, not 'nan'"),
    ("tau: 1e-3", "tau: .nan", 12, "edits[0].tau: must be a "),
    ("tau: 1e-3", "tau: true", 12, "edits[0].tau: must be a valid number, not True"),
    ("tau: 1e-3", 'tau: "0.3"', 12, "edits[0].tau: must be a valid number, not '0.3'"),
    ("tau: 1e-3", "safety_weight: true", 12, "edits[0].safety_weight: must be a valid number, not True"),
    ("tau: 1e-3", 'safety_weight: "0.3"', 12, "edits[0].safety_weight: must be a valid number, not '0.3'"),
    ("tau: 1e-3", 'score_biases: "no"', 12, "edits[0].score_biases: must be a valid boolean, not 'no'"),
    ("tau: 1e-3", "score_biases: 1", 12, "edits[0].score_biases: must be a valid boolean, not 1"),
    (", model: guard", ", model: guard, max_tokens: true", 19, "evaluate.judge.max_tokens: must be a valid integer"),
    (", model: guard", ', model: guard, max_tokens: "9"', 19, "evaluate.judge.max_tokens: must be a valid integer"),
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


@pytest.mark.hostile("recipe")
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


def test_recipe_in_python_reports_the_path_without_a_line() -> None:
    with pytest.raises(RecipeError) as caught:
        make_recipe({"polysafe": 1, "sources": {"a": {"path": "a"}}, "edits": [{"method": "soup", "wights": {}}]})
    said = str(caught.value).splitlines()
    assert "edits[0]: unknown key 'wights'" in said
    assert "'output' is missing" in said


@settings(max_examples=25)  # four methods, one of three sources left out
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
