"""Plans for machines that are not there: their sums by hand, and their bounds against what a run really does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.frame.hollow import Shape, write_hollow
from polysafe.checkpoint.source import open_checkpoint
from polysafe.cli.app import app
from polysafe.engine.forecast import Forecast, Machines, Phase, Questions, Rates, forecast
from polysafe.engine.job import resolve
from polysafe.workflows.run import plan_recipe
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import Trio, trio

SWAP = {**LAYER_SWAP, "granularity": "layer", "outside": "language"}
SLOW = Machines(1, 1000.0, None, 1, 2.0)
RATES = Rates(norms=100.0, hashing=200.0, mixing=400.0)


def phases(found: Forecast) -> dict[str, Phase]:
    return {phase.name: phase for phase in found.phases}


def sizes(folder: Path) -> tuple[int, int, int]:
    """Bytes of the projections of the layers, of all tensors, of the files."""
    checkpoint = open_checkpoint(folder)
    scored = sum(s.nbytes for n, s in checkpoint.tensors.items() if "_proj." in n)
    return scored, checkpoint.total_bytes, sum(header.size for header in checkpoint.headers)


def test_sums_by_hand(tmp_path: Path) -> None:
    paths = trio(tmp_path, "llama", layers=2).paths
    scored, tensors, files = sizes(paths["base"])
    found = forecast([resolve(recipe_for(paths, tmp_path / "out", SWAP))], SLOW, rates=RATES)
    decide, hashed, write = found.phases
    assert (decide.read, hashed.read, write.read, write.written) == (3 * scored, 3 * files, 2 * tensors, files)
    assert decide.seconds == pytest.approx(3 * scored / 100 + 3 * scored / 1000)
    assert hashed.takes == {"disk": 3 * files / 1000, "processors": 3 * files / 200}
    assert write.takes["processors"] == pytest.approx((files / 200 + 2 * tensors / 400) / 1)
    assert write.moved == 0
    assert found.hours * 3600 == pytest.approx(decide.seconds + hashed.seconds + write.seconds)
    assert found.dollars == pytest.approx(2 * found.node_hours)
    assert found.longest.bottleneck == "processors"


def test_experts_together_read_base_and_safety_once(tmp_path: Path) -> None:
    paths = trio(tmp_path, "llama", layers=2).paths
    other = trio(tmp_path / "more", "llama", layers=2).paths["sw"]
    scored, _, files = sizes(paths["base"])
    jobs = [
        resolve(recipe_for({**paths, "sw": folder}, tmp_path / "out" / str(number), SWAP))
        for number, folder in enumerate((paths["sw"], other))
    ]
    decide, hashed, write = forecast(jobs, SLOW).phases
    assert decide.read == 4 * scored
    assert hashed.read == 4 * files
    assert write.written == 2 * files


@pytest.mark.parametrize("edit", [SWAP, LAYER_SWAP, SOUP], ids=["layers", "modules", "soup"])
def test_it_is_a_bound_of_the_plan(edit: dict[str, Any], llama: Trio, tmp_path: Path) -> None:
    recipe = recipe_for(llama.paths, tmp_path / "out", edit)
    plan: Any = plan_recipe(recipe)
    write = phases(forecast([resolve(recipe)], SLOW))["write"]
    assert write.written <= plan.cost.bytes_written
    assert write.read >= plan.cost.bytes_read


def test_what_machines_share_and_what_not(tmp_path: Path) -> None:
    """Only writing and asking are spread; the storage is one, and the network is each machine's own."""
    shape = Shape(4, 64, 128, 4, 2, 64)
    paths = {name: write_hollow(tmp_path / name, shape) for name in ("base", "safety", "sw")}
    job = resolve(recipe_for(paths, tmp_path / "out", SWAP, shard_size="50kB"))
    asked = Questions(prompts=10, languages=3, tokens=100, speed=50.0)
    one = Machines(1, 1e9, 1e3, 4)
    alone, many = (phases(forecast([job], replace(one, nodes=nodes), asked)) for nodes in (1, 4))
    assert alone["decide"].seconds == many["decide"].seconds
    assert many["write"].seconds == pytest.approx(alone["write"].seconds / 4)
    assert many["write"].bottleneck == "network"
    assert many["write"].moved == many["write"].read + many["write"].written
    assert many["audit"].takes["model"] == pytest.approx(alone["audit"].takes["model"] / 4) == 15
    assert many["audit"].read == 4 * alone["audit"].read


def test_a_model_of_hundreds_of_gigabytes_takes_no_disk(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "model", Shape(2, 16384, 53248, 128, 8, 128256))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.total_bytes > 20e9
    assert sum(file.stat().st_blocks * 512 for file in folder.iterdir()) < 1e6


Polysafe = Callable[..., Any]


@pytest.fixture
def polysafe() -> Polysafe:
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


RECIPE = """\
polysafe: 1
each: {language: [sw, other]}
sources: {base: {path: ./base}, safety: {path: ./safety}, sw: {path: ./sw}, other: {path: ./sw}}
edits:
  - {method: layer_swap, base: base, safety: safety, language: $language}
output: {path: ./out/$language}
"""


def test_the_command(polysafe: Polysafe, tmp_path: Path) -> None:
    trio(tmp_path, layers=2)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    words = ["plan", file, "--nodes", 2, "--disk", "1GB/s", "--network", "100MB", "--cores", 8, "--rate", 3]
    shown = polysafe(*words, "--audit", "10x2x5", "--speed", 100)
    assert shown.exit_code == 0, shown.output
    for word in (
        "decide",
        "hash inputs",
        "write",
        "audit",
        "over the network",
        "dollars",
        "the longest part is 'audit'",
    ):
        assert word in shown.stdout
    content = json.loads(polysafe(*words, "--json").stdout)
    assert [phase["name"] for phase in content["phases"]] == ["decide", "hash inputs", "write"]
    assert content["machines"] == {"nodes": 2, "disk": 1e9, "network": 1e8, "cores": 8, "rate": 3.0}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["base", "recipe.yaml", "safety", "sw"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--disk", "1GB"], "--disk: describes machines"),
        (["--nodes", "2", "--disk", "fast"], "--disk: 'fast' is not a size"),
        (["--nodes", "2", "--audit", "10x2"], "'10x2' is no audit"),
        (["--nodes", "2", "--audit", "10x0x5", "--speed", "1"], "is no audit"),
        (["--nodes", "2", "--audit", "10x2x5"], "needs the tokens a second"),
        (["--nodes", "2", "--speed", "5"], "--speed: belongs to an audit"),
    ],
)
def test_options_that_say_nothing(polysafe: Polysafe, tmp_path: Path, words: list[str], said: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    result = polysafe("plan", file, *words)
    assert result.exit_code == 2
    assert said in result.stderr
