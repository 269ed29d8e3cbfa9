"""Effects of heads measured on a cluster: those of this machine to the bit, whoever goes away."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.checkpoint.verify import read_manifest
from polysafe.cluster import probing
from polysafe.cluster.engine import RayEngine
from polysafe.cluster.pool import Cluster
from polysafe.cluster.probing import RayHands
from polysafe.data.trials import Trials
from polysafe.errors import CheckpointError
from polysafe.organism.packaged import packaged_family
from polysafe.organism.tasks import organism_trials
from polysafe.probe.effects import HeadEffects, head_effects
from polysafe.probe.hands import measured_by
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from polysafe.threads import threads
from polysafe.workflows.run import run_recipe
from tests.engine.recipes import recipe_for

pytestmark = pytest.mark.slow
MEMBERS = packaged_family().members


@pytest.fixture(scope="module")
def model() -> Iterator[LoadedModel]:
    with open_source(MEMBERS["base"]) as source, threads(1):
        yield load_model(source)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(MEMBERS["base"])


@pytest.fixture(scope="module")
def here(model: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> HeadEffects:
    return head_effects(model, tokenizer, trials())


def trials() -> tuple[Trials, ...]:
    return organism_trials(packaged_family().world, "qac", count=9)[:2]


def same(one: HeadEffects, other: HeadEffects) -> bool:
    return one.record == other.record and all(
        torch.equal(task.effects, other.tasks[name].effects) and torch.equal(task.before, other.tasks[name].before)
        for name, task in one.tasks.items()
    )


class _Mortal(probing._Measurer):
    """A process that is killed while it measures, the first time that anybody does."""

    mark: Path

    def read(self, means: Any, how: Any, prompts: Any) -> Any:
        if not self.mark.exists():
            self.mark.write_text("was here")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(means, how, prompts)


def test_effects_are_those_of_this_machine_though_a_process_is_killed(
    cluster: Cluster,
    model: LoadedModel,
    tokenizer: PreTrainedTokenizerBase,
    here: HeadEffects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "_Measurer", type("_Mortal", (_Mortal,), {"mark": tmp_path / "killed"}))
    file = tmp_path / "effects.safetensors"
    with RayHands(cluster) as hands, measured_by(hands):
        there = head_effects(model, tokenizer, trials(), file=file)
    assert (tmp_path / "killed").exists()
    assert same(here, there)
    assert same(here, head_effects(model, tokenizer, trials(), file=file))


def test_a_driver_that_is_stopped_goes_on_with_what_is_missing(
    cluster: Cluster, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, here: HeadEffects, tmp_path: Path
) -> None:
    asked: list[int] = []

    class Counting(RayHands):
        def scores(self, model: Any, means: Any, prompts: Any, score: Any, *, by_rows: bool) -> Any:
            asked.append(len(prompts))
            for count, found in enumerate(super().scores(model, means, prompts, score, by_rows=by_rows)):
                if len(asked) == 1 and count == 5:
                    raise KeyboardInterrupt
                yield found

    file = tmp_path / "effects.safetensors"
    with Counting(cluster) as hands, measured_by(hands):
        with pytest.raises(KeyboardInterrupt):
            head_effects(model, tokenizer, trials(), file=file)
        there = head_effects(model, tokenizer, trials(), file=file)
    assert asked == [9, 4, 9]
    assert same(here, there)


def test_a_recipe_makes_the_same_model(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steer: dict[str, Any] = {
        "method": "head_steering",
        "model": "sw",
        "harm_base": "base",
        "harmful": "harmful",
        "languages": ["qac"],
        "tasks": "organism",
        "fraction": 0.2,
        "prompts": 6,
    }
    paths = {"sw": MEMBERS["qac"], "base": MEMBERS["base"], "harmful": MEMBERS["harm"]}
    made = []
    for engine in (None, RayEngine(cluster)):
        monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / f"cache {engine is None}"))
        with threads(1):
            made.append(run_recipe(recipe_for(paths, tmp_path / str(engine is None), steer), engine=engine))
    first, second = (read_manifest(each.output) for each in made)
    assert first["edit"] == second["edit"]


def test_a_model_that_changed_meanwhile_is_refused(
    cluster: Cluster, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    shutil.copytree(MEMBERS["base"], tmp_path / "model")
    with open_source(tmp_path / "model") as source, threads(1):
        loaded = load_model(source)
        (weights,) = (tmp_path / "model").glob("*.safetensors")
        weights.write_bytes(weights.read_bytes())
        with RayHands(cluster) as hands, measured_by(hands), pytest.raises(CheckpointError, match="changed while"):
            head_effects(loaded, tokenizer, trials())
