"""Several recipes at once: the same outputs, and what they have in common is read once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from polysafe.checkpoint.source import SINGLE
from polysafe.checkpoint.verify import read_manifest
from polysafe.engine.plan import Plan
from polysafe.engine.write import RunResult
from polysafe.errors import PolysafeError, RecipeError
from polysafe.files import memory
from polysafe.recipe.each import load_recipes
from polysafe.recipe.recipe import Recipe
from polysafe.workflows.run import plan_recipe, plan_recipes, run_recipe, run_recipes
from tests.engine.recipes import LAYER_SWAP, recipe_for
from tests.models import bowl, bump, tiny_model

LANGUAGES = ("bn", "sw", "te")
EACH = """\
polysafe: 1
each: {language: [bn, sw, te]}
sources:
  base: {path: ./base}
  safety: {path: ./safety}
  bn: {path: ./bn}
  sw: {path: ./sw}
  te: {path: ./te}
edits:
  - {method: layer_swap, base: base, safety: safety, language: $language, outside: language, granularity: layer}
output: {path: ./out/$language, shard_size: 8kB}
"""


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    base = tiny_model(layers=8)
    made = {name: base.updated(seed, bowl(8, height=0.1 * seed)) for seed, name in enumerate(LANGUAGES, 1)}
    models = {"base": base, "safety": base.updated(9, bump(8)), **made}
    return {name: model.save(tmp_path / name) for name, model in models.items()}


def swap(language: str) -> dict[str, str]:
    return {**LAYER_SWAP, "language": language, "outside": "language", "granularity": "layer"}


def test_outputs_are_those_of_each_alone_and_experts_are_read_once(
    paths: dict[str, Path], tmp_path: Path, bytes_read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipes(place: str) -> list[Recipe]:
        return [recipe_for(paths, tmp_path / place / name, swap(name)) for name in LANGUAGES]

    together = [result.output for result in run_recipes(recipes("together")) if isinstance(result, RunResult)]
    assert len(together) == 3
    of_all = Counter(bytes_read)
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "other"))
    bytes_read.clear()
    first = run_recipe(recipes("alone")[0])
    of_one = Counter(bytes_read)
    alone = [first.output, *(run_recipe(recipe).output for recipe in recipes("alone")[1:])]
    assert [read_manifest(each) for each in together] == [read_manifest(each) for each in alone]
    assert of_all["base"] == of_one["base"] > 0
    assert len({json.dumps(read_manifest(each)["edit"]) for each in together}) == 3
    for name in LANGUAGES[1:]:
        assert of_all[name] <= of_one["bn"] + of_one["bn"] // 2


def test_bytes_to_decide_are_those_of_one_pass(
    paths: dict[str, Path], tmp_path: Path, bytes_read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [recipe_for(paths, tmp_path / "out" / name, swap(name)) for name in LANGUAGES]
    monkeypatch.setenv("POLYSAFE_CACHE", "/dev/null/none")  # nothing can be kept
    monkeypatch.setattr(memory, "TICK", 1e6)  # nor would it be, of files that were made a moment ago
    with memory.reading_again():
        together = list(plan_recipes(recipes))
        of_all = sum(bytes_read.values())
        bytes_read.clear()
        alone = [plan_recipe(recipe) for recipe in recipes]
    n = len(recipes)
    assert of_all * 3 * n == sum(bytes_read.values()) * (n + 2)
    assert [decisions(each) for each in together] == [decisions(each) for each in alone]


def decisions(plan: object) -> object:
    assert isinstance(plan, Plan)
    return plan.edit.sha256, plan.decisions


@pytest.mark.parametrize("kind", ["NaN", "other layers", "absent"])
def test_an_expert_that_cannot_be_used_leaves_the_others_whole(
    paths: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    alone = run_recipe(recipe_for(paths, tmp_path / "alone", swap("te"))).manifest
    match kind:
        case "NaN":
            weights = load_file(paths["sw"] / SINGLE)
            weights["model.layers.7.mlp.up_proj.weight"][0, 0] = float("nan")
            save_file(weights, paths["sw"] / SINGLE, metadata={"format": "pt"})
        case "other layers":
            paths["sw"] = tiny_model(layers=4).save(tmp_path / "other")
        case _:
            paths["sw"] = tmp_path / "absent"
    recipes = [recipe_for(paths, tmp_path / "out" / name, swap(name)) for name in LANGUAGES]
    first, damaged, last = run_recipes(recipes)
    assert isinstance(damaged, PolysafeError)
    assert str(paths["sw"]) in str(damaged)
    assert isinstance(first, RunResult)
    assert isinstance(last, RunResult)
    assert without_recipe(last.manifest) == without_recipe(alone)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["bn", "te"]


def without_recipe(manifest: Mapping[str, Any]) -> object:
    """What it says of the weights: recipes name every source of theirs."""
    return [each for each in manifest["files"] if each["path"].endswith(".safetensors")], manifest["edit"]


def test_a_base_that_is_damaged_fails_all(paths: dict[str, Path], tmp_path: Path) -> None:
    weights = load_file(paths["base"] / SINGLE)
    weights["model.layers.7.mlp.up_proj.weight"][0, 0] = float("inf")
    save_file(weights, paths["base"] / SINGLE, metadata={"format": "pt"})
    recipes = [recipe_for(paths, tmp_path / "out" / name, swap(name)) for name in LANGUAGES]
    assert all("'base' holds NaN or infinity" in str(each) for each in run_recipes(recipes))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_recipes_of_one_output_are_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipe_for(paths, tmp_path / "out", swap("sw"))
    with pytest.raises(RecipeError, match="the output of several recipes"):
        list(run_recipes([recipe, recipe]))


def test_killed_in_the_middle_it_goes_on_and_reads_nothing_again_to_decide(
    paths: dict[str, Path], tmp_path: Path, bytes_read: Counter[str]
) -> None:
    """The process ends by SIGKILL while the second of three outputs is written."""
    program = (
        "import os, sys\n"
        "from polysafe.files import memory\n"
        "from polysafe.recipe.each import load_recipes\n"
        "from polysafe.workflows.run import run_recipes\n"
        "memory.TICK = -1e6\n"
        "seen = []\n"
        "def told(stage, done, total):\n"
        "    if seen[-1:] != [stage]:\n"
        "        seen.append(stage)\n"
        "    if seen.count('writing') == 2 and stage == 'writing' and done > total // 2:\n"
        "        os.kill(os.getpid(), 9)\n"
        "list(run_recipes(load_recipes(sys.argv[1]), progress=told))\n"
    )
    alone = [
        recipe_for(
            {source: paths[source] for source in ("base", "safety", name)},
            tmp_path / "alone" / name,
            swap(name),
            shard_size="8kB",
        )
        for name in LANGUAGES
    ]
    wanted = [run_recipe(recipe).manifest for recipe in alone]
    file = tmp_path / "recipe.yaml"
    file.write_text(EACH)
    environment = {
        **os.environ,
        "POLYSAFE_CACHE": str(tmp_path / "killed-cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    killed = subprocess.run([sys.executable, "-c", program, str(file)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [each.name for each in (tmp_path / "out").iterdir() if not each.name.startswith(".")] == ["bn"]
    bytes_read.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYSAFE_CACHE", str(tmp_path / "killed-cache"))
        found = list(run_recipes(load_recipes(file)))
    results = [each for each in found if isinstance(each, RunResult)]
    assert [(each.complete_before, each.resumed) for each in results] == [(True, False), (False, True), (False, False)]
    assert [without_recipe(each.manifest) for each in results] == [without_recipe(each) for each in wanted]
    for name in LANGUAGES:
        assert (tmp_path / "out" / name / "polysafe/recipe.yaml").read_bytes() == (
            tmp_path / "alone" / name / "polysafe/recipe.yaml"
        ).read_bytes()
    assert bytes_read["base"] == 0
