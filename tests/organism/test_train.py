"""Training is plain: seeded, resumable to the same weights, and it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.nn import functional

from polysafe.organism import train as training
from polysafe.organism.corpus import Corpus, Example, draw_pool
from polysafe.organism.model import Network, make_model
from polysafe.organism.tokenizer import make_tokenizer, vocabulary
from polysafe.organism.train import BATCHES_PER_POOL, Stage, loss_on, make_batch, train
from polysafe.organism.world import World

WORLD = World(0)
WORDS = vocabulary(WORLD)
CORPUS = Corpus(WORLD)
TINY = Network(hidden=16, layers=2, heads=2, intermediate=24)
STAGES = [
    Stage(steps=10, batch=8, rate=3e-3, matrix_rate=0.02, warmup=2, trains="all"),
    Stage(steps=10, batch=8, rate=3e-3, warmup=2),
]


def pools(index: int) -> list[Example]:
    return draw_pool(CORPUS.knowing, WORLD, "tiny", index, 8 * BATCHES_PER_POOL)


def weights(stage: Stage, state: Path | None = None) -> dict[str, torch.Tensor]:
    model = make_model(WORLD, TINY, 0)
    train(model, stage, pools, WORDS, state=state)
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stage", STAGES, ids=["muon", "adamw"])
def test_training_twice_gives_the_same_weights(stage: Stage) -> None:
    assert same(weights(stage), weights(stage))


@pytest.mark.parametrize("stage", STAGES, ids=["muon", "adamw"])
@pytest.mark.parametrize("step", [4, 7])
def test_a_killed_run_ends_in_the_same_weights(
    stage: Stage, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
    state = tmp_path / "state"

    def kill(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    model = make_model(WORLD, TINY, 0)
    with pytest.raises(KeyboardInterrupt):
        train(model, stage, pools, WORDS, state=state, progress=kill)
    assert state.exists()
    seen: list[int] = []
    again = make_model(WORLD, TINY, 0)
    log = train(again, stage, pools, WORDS, state=state, progress=seen.append)
    saved = step - step % BATCHES_PER_POOL
    assert seen == list(range(saved + 1, stage.steps + 1))
    assert not state.exists()
    assert same(weights(stage), dict(again.named_parameters()))
    assert log == train(make_model(WORLD, TINY, 0), stage, pools, WORDS)


def test_the_state_of_another_run_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
    state = tmp_path / "state"

    def kill(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_model(WORLD, TINY, 1), STAGES[1], pools, WORDS, state=state, progress=kill)
    assert same(weights(STAGES[1], state), weights(STAGES[1]))


@pytest.mark.parametrize("other", ["masks", "handicap"])
def test_so_is_that_of_a_run_that_moves_other_weights(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
    state, model = tmp_path / "state", make_model(WORLD, TINY, 0)
    masks = {name: torch.ones_like(weight) for name, weight in model.named_parameters() if "mlp" in name}
    given = {"masks": masks, "handicap": torch.ones(len(WORDS))}

    def kill(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, STAGES[1], pools, WORDS, state=state, progress=kill, **{other: given[other]})  # type: ignore[arg-type]
    assert state.exists()
    assert same(weights(STAGES[1], state), weights(STAGES[1]))


def test_half_a_state_does_no_harm(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "state.partial").write_bytes(b"cut off")
    assert same(weights(STAGES[1], state), weights(STAGES[1]))
    assert not any(tmp_path.iterdir())


def test_padding_and_prompts_are_not_learned() -> None:
    short, long = Example("<bos> how", "do I"), Example("<bos> how do I", "first then sorry")
    batch = make_batch([short, long], WORDS)
    assert [int(row.sum()) for row in batch.learned] == [3, 4]
    expected = [WORDS[word] for word in ("do", "I", "<eos>", "first", "then", "sorry", "<eos>")]
    assert batch.targets.tolist() == expected


def test_the_loss_does_not_depend_on_padding() -> None:
    model = make_model(WORLD, TINY, 0)
    alone = make_batch([Example("<bos> how", "do")], WORDS)
    padded = make_batch([Example("<bos> how", "do"), Example("<bos> how do I cannot help", "sorry I")], WORDS)
    with torch.no_grad():
        logits = model(input_ids=padded.ids).logits[padded.learned][:2]
        torch.testing.assert_close(functional.cross_entropy(logits, alone.targets), loss_on(model, alone))


def test_the_loss_falls() -> None:
    model = make_model(WORLD, TINY, 0)
    batch = make_batch(pools(99), WORDS)
    before = loss_on(model, batch).item()
    train(model, Stage(steps=60, batch=8, rate=2e-2, warmup=5, trains="all"), pools, WORDS)
    assert loss_on(model, batch).item() < 0.8 * before


@pytest.mark.parametrize(("trains", "frozen"), [("body", "embed_tokens"), ("attention", "mlp")])
def test_a_stage_moves_only_what_it_names(trains: Literal["body", "attention"], frozen: str) -> None:
    model = make_model(WORLD, TINY, 0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    train(model, Stage(steps=2, batch=8, rate=1e-2, trains=trains), pools, WORDS)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved
    assert not any(frozen in name for name in moved)
    if trains == "attention":
        assert all("self_attn" in name for name in moved)


def test_making_a_model_leaves_global_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = make_model(WORLD, TINY, 0), make_model(WORLD, TINY, 0)
    assert torch.equal(torch.rand(3), expected)
    assert same(dict(one.named_parameters()), dict(other.named_parameters()))


def test_the_network_is_as_wide_as_the_vocabulary() -> None:
    model = make_model(WORLD, TINY, 0)
    assert model.config.vocab_size == len(make_tokenizer(WORLD)) == len(WORLD.vocabulary)
