"""Activations and effects of heads measured on a cluster: those of this machine to the bit, whoever goes away."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import nullcontext
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
from polysafe.probe.capture import capture
from polysafe.probe.effects import HeadEffects, head_effects
from polysafe.probe.hands import Here, measured_by
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer, render
from polysafe.probe.stores import Moments, Rows
from polysafe.threads import threads
from polysafe.workflows.run import run_recipe
from tests.engine.recipes import recipe_for

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

    def read(self, verb: Any, how: Any, asked: Any) -> Any:
        if not self.mark.exists():
            self.mark.write_text("was here")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(verb, how, asked)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Written by the process that is killed."""
    monkeypatch.setattr(probing, "_Measurer", type("_Mortal", (_Mortal,), {"mark": tmp_path / "killed"}))
    return tmp_path / "killed"


def test_effects_are_those_of_this_machine_though_a_process_is_killed(
    cluster: Cluster,
    model: LoadedModel,
    tokenizer: PreTrainedTokenizerBase,
    here: HeadEffects,
    tmp_path: Path,
    killed: Path,
) -> None:
    file = tmp_path / "effects.safetensors"
    with RayHands(cluster) as hands, measured_by(hands):
        there = head_effects(model, tokenizer, trials(), file=file)
    assert killed.exists()
    assert same(here, there)
    assert same(here, head_effects(model, tokenizer, trials(), file=file))


def test_a_driver_that_is_stopped_goes_on_with_what_is_missing(
    cluster: Cluster, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, here: HeadEffects, tmp_path: Path
) -> None:
    asked: list[int] = []

    class Counting(RayHands):
        def scores(self, model: Any, prompts: Any, **how: Any) -> Any:
            asked.append(len(prompts))
            for count, found in enumerate(super().scores(model, prompts, **how)):
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


def test_activations_and_their_sums_are_those_of_this_machine_though_a_process_is_killed(
    cluster: Cluster, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, killed: Path, tmp_path: Path
) -> None:
    # Lengths differ, so that batches are of different cost and come back in another order than they went.
    texts = [" ".join(["word"] * (1 + 7 * number % 40)) for number in range(90)]
    named = ({str(number): text for number, text in enumerate(each)} for each in (texts, texts[::-1]))
    prompts, pairs = (render(tokenizer, each) for each in named)
    made = []
    for hands in (Here(), RayHands(cluster)):
        with measured_by(hands), nullcontext() if isinstance(hands, Here) else hands:
            file = tmp_path / f"{type(hands).__name__}.safetensors"
            capture(model, prompts, [1, 4], into=Moments(), pairs=pairs, batch_size=4, probe_file=file, save_every=5)
            rows = capture(model, prompts, [0, 3], into=Rows(), pooling="mean", batch_size=4)
            made.append((file.read_bytes(), rows[0], rows[3]))
    assert killed.exists()
    here, there = made
    assert here[0] == there[0]
    assert torch.equal(here[1], there[1])
    assert torch.equal(here[2], there[2])


STEER: dict[str, Any] = {
    "method": "head_steering",
    "model": "sw",
    "harm_base": "base",
    "harmful": "harmful",
    "languages": ["qac"],
    "tasks": "organism",
    "fraction": 0.2,
    "prompts": 6,
}
SPARSE = {"method": "sparse_edit", "model": "base", "languages": ["qac"], "anchors": "organism", "layers": [2, 3]}


@pytest.mark.parametrize("entry", [STEER, SPARSE], ids=lambda entry: str(entry["method"]))
def test_a_recipe_makes_the_same_model(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]
) -> None:
    members = {"sw": MEMBERS["qac"], "base": MEMBERS["base"], "harmful": MEMBERS["harm"]}
    paths = {name: folder for name, folder in members.items() if name in entry.values()}
    made = []
    for engine in (None, RayEngine(cluster)):
        monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / f"cache {engine is None}"))
        with threads(1):
            made.append(run_recipe(recipe_for(paths, tmp_path / str(engine is None), entry), engine=engine))
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
