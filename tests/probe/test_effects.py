"""Head effects: exact, resumable, kept prompt by prompt, and honest about how they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.data.trials import Shot, Trials
from polysafe.errors import ArchitectureError, DataError, MismatchError
from polysafe.organism.packaged import packaged_family
from polysafe.organism.tasks import organism_trials
from polysafe.probe import effects as module
from polysafe.probe.answers import Score, task_prompts
from polysafe.probe.effects import HeadEffects, head_effects, mean_outputs
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from polysafe.probe.scorers import LayerScorer, RowScorer, patched_scores

BASE = packaged_family().members["base"]


@pytest.fixture(scope="module")
def trained() -> Iterator[LoadedModel]:
    torch.set_num_threads(1)
    with open_source(BASE) as source:
        yield load_model(source)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(BASE)


def few(count: int = 4, language: str = "qac", tasks: int = 2) -> tuple[Trials, ...]:
    return organism_trials(packaged_family().world, language, count=count)[:tasks]


@pytest.mark.parametrize("score", ["first", "separating", "full"])
def test_a_trained_model_has_the_effects_of_the_loop(
    trained: LoadedModel, tokenizer: PreTrainedTokenizerBase, score: Score
) -> None:
    found = head_effects(trained, tokenizer, few(), score=score)
    for trials in few():
        prompts = task_prompts(tokenizer, trials, score)
        means = mean_outputs(trained, prompts)
        layers, heads, _ = means.shape
        cells = [[(layer, head)] for layer in range(layers) for head in range(heads)]
        prompt = prompts.scored[1]
        loop = torch.cat([patched_scores(trained, means, prompt, score, cell) for cell in ([], *cells)])
        wanted = (loop[1:] - loop[0]).view(layers, heads)
        effects = found.tasks[trials.task]
        assert (effects.effects[1] - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert effects.before[1] == pytest.approx(float(loop[0]), rel=1e-4)
        assert (LayerScorer(trained, means).scores(prompt, score) - loop).abs().max() <= 1e-5 * loop.abs().max()
    assert found.notes == ()


def test_effects_are_those_of_induction(trained: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """On the packaged model one head carries the tasks of facts; what it was before is small."""
    found = head_effects(trained, tokenizer, few(20, tasks=6))
    means = found.per_task
    assert means.shape == (6, 8, 6)
    capital = list(found.tasks).index("capital")
    assert int(means[capital].argmax()) == 5
    assert means[capital].max() > 0.5
    assert found.tasks["capital"].before.mean() < 0.2
    assert found.warnings == ()


def same(a: HeadEffects, b: HeadEffects, tolerance: float = 0.0) -> bool:
    pairs = [(a.tasks[name].effects, b.tasks[name].effects) for name in a.tasks]
    return list(a.tasks) == list(b.tasks) and all(float((x - y).abs().max()) <= tolerance for x, y in pairs)


def test_the_same_seed_gives_the_same_for_any_batch(trained: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    first = head_effects(trained, tokenizer, few(5))
    assert same(first, head_effects(trained, tokenizer, few(5)))
    assert same(first, head_effects(trained, tokenizer, few(5), batch_size=2), 1e-6)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_an_interrupted_run_goes_on(
    trained: LoadedModel,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    file, folder = (tmp_path / "qac.safetensors", None) if place == "file" else (None, tmp_path)
    asked: list[object] = []
    plain = RowScorer.scores

    def scores(self: RowScorer, prompt: object, score: Score) -> torch.Tensor:
        asked.append(prompt)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return plain(self, prompt, score)  # type: ignore[arg-type]

    monkeypatch.setattr(RowScorer, "scores", scores)
    with pytest.raises(KeyboardInterrupt):
        head_effects(trained, tokenizer, few(3), checks=0, file=file, folder=folder)
    again = head_effects(trained, tokenizer, few(3), checks=0, file=file, folder=folder)
    assert len(asked) == 4 + 3  # three were kept, one was lost, three were left
    assert same(again, head_effects(trained, tokenizer, few(3)))
    asked.clear()
    assert same(again, head_effects(trained, tokenizer, few(3), file=file, folder=folder))
    assert not asked
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_kept_effects_of_something_else_are_refused(
    trained: LoadedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    file = tmp_path / "effects.safetensors"
    head_effects(trained, tokenizer, few(2), file=file)
    with pytest.raises(MismatchError, match="another score"):
        head_effects(trained, tokenizer, few(2), score="first", file=file)
    with pytest.raises(MismatchError, match="another data"):
        head_effects(trained, tokenizer, few(3), file=file)
    with pytest.raises(MismatchError, match=r"another (language|data)"):
        head_effects(trained, tokenizer, few(2, "qad"), file=file)


def test_what_rows_cannot_do_is_done_layer_by_layer(
    trained: LoadedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = head_effects(trained, tokenizer, few(2))

    class Broken(RowScorer):
        def scores(self, prompt: object, score: Score) -> torch.Tensor:
            return super().scores(prompt, score) * 1.01  # type: ignore[arg-type]

    monkeypatch.setattr(module, "RowScorer", Broken)
    found = head_effects(trained, tokenizer, few(2), folder=tmp_path)
    assert "differ from the model as it is" in found.notes[0]
    assert same(found, wanted, 1e-6)
    assert head_effects(trained, tokenizer, few(2), folder=tmp_path).notes == found.notes

    def refuse(*_: object) -> None:
        raise ArchitectureError("no rows here")

    monkeypatch.setattr(module, "RowScorer", refuse)
    found = head_effects(trained, tokenizer, few(2))
    assert "no rows here" in found.notes[0]
    assert same(found, wanted, 1e-6)


def test_a_score_that_does_not_see_the_task_is_told(trained: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    world = packaged_family().world
    word, *others = [world.say("qac", f"num{number}") for number in range(5)]
    text = world.few_shot("qac", "antonym", world.rng("x")).text
    shots = tuple(Shot(f"s{number}", text, f"{word} {other}") for number, other in enumerate(others))
    trials = Trials("numbers", "qac", shots, shots, tuple(shot.answer for shot in shots), 0.0)
    blind = head_effects(trained, tokenizer, [trials], score="first")
    assert len(blind.warnings) == 1
    assert "qac, numbers: the scored token is the same in 100%" in blind.warnings[0]
    assert head_effects(trained, tokenizer, [trials], score="separating").warnings == ()


def test_bad_input(trained: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match="no task"):
        head_effects(trained, tokenizer, [])
    with pytest.raises(DataError, match="tasks are of qac, qad"):
        head_effects(trained, tokenizer, [*few(2), *few(2, "qad")])


def test_scores_that_are_not_finite_are_refused(
    trained: LoadedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "mean_outputs", lambda *_: torch.full((8, 6, 16), torch.nan))
    with pytest.raises(DataError, match=r"task 'antonym', prompt 'corrupted-0'.*NaN"):
        head_effects(trained, tokenizer, few(1), checks=0)
