"""What blocks do to a model's behaviour: against the swapped checkpoint, finite differences, and the whole path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from polysafe.checkpoint.opened import Source, open_source
from polysafe.data.openings import openings
from polysafe.data.prompts import Prompt
from polysafe.errors import ArchitectureError
from polysafe.methods.behaviour_swap.block_effects import Blocks, exact_effect, first_order_effects, swapped
from polysafe.methods.blocks import Granularity, blocks_of
from polysafe.probe.behaviour import Behaviours, Question, Values, changes, refusal_question
from polysafe.probe.continuations import Continuations
from polysafe.probe.likelihood import Scorer
from polysafe.probe.model import LoadedModel, load_model, parameter_of
from polysafe.probe.refusal import RefusalSignal
from polysafe.probe.render import load_tokenizer
from tests.byte_level import save_byte_model

TEXTS = ("how do I bake bread", "tell me of the sea", "who are you")


def questions() -> list[Question]:
    harmful = [refusal_question("en", "refused", str(n), text, openings("en")) for n, text in enumerate(TEXTS)]
    return [*harmful, *(Question("en", "benign", str(n), text, (" as you like",)) for n, text in enumerate(TEXTS))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and one that moved from it in its layers."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pair")
    model, donor = (save_byte_model(root / name) for name in ("model", "donor"))
    weights, draw = load_file(donor / "model.safetensors"), torch.Generator().manual_seed(1)
    moved = {
        name: tensor + 0.2 * tensor.std() * torch.randn(tensor.shape, generator=draw) if ".layers." in name else tensor
        for name, tensor in weights.items()
    }
    save_file(moved, donor / "model.safetensors", metadata={"format": "pt"})
    return model, donor


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> Iterator[tuple[Source, Source]]:
    with open_source(folders[0], "model") as model, open_source(folders[1], "donor") as donor:
        yield model, donor


def asked(model: LoadedModel) -> Behaviours:
    return Behaviours(model, load_tokenizer(model.source.checkpoint.root), questions(), template="raw")


def blocks(source: Source, granularity: Granularity = "module") -> Blocks:
    return {key.name: tensors for key, tensors in blocks_of(source.architecture, granularity).items()}


def digest(model: LoadedModel) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(model.model.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def near(found: Values, expected: Values, *, rel: float | None = None, within: float) -> None:
    assert found.keys() == expected.keys()
    for cell, items in expected.items():
        assert found[cell] == pytest.approx(items, rel=rel, abs=within)


def test_the_questions_are_those_of_the_signal_and_the_scorer(pair: tuple[Source, Source]) -> None:
    model = load_model(pair[0])
    tokenizer, found = load_tokenizer(model.source.checkpoint.root), asked(model).read()
    prompts = [Prompt("set", str(n), "en", text, "harmful") for n, text in enumerate(TEXTS)]
    signal = RefusalSignal(Continuations(model, tokenizer, template="raw"))
    odds = {each.id: each.log_odds for each in signal.measure(prompts)}
    for prompt in prompts:
        assert found["en", "refused"][prompt.parallel] == pytest.approx(odds[prompt.id], abs=1e-5)
    answer = " as you like"
    scores = dict(Scorer(model, tokenizer, template="raw").score([(text, answer) for text in TEXTS]))
    for place, score in scores.items():
        assert score is not None
        assert found["en", "benign"][str(place)] == pytest.approx(score.total / len(answer), abs=1e-5)


@pytest.mark.parametrize("granularity", ["layer", "module", "projection"])
def test_an_exact_effect_is_that_of_the_swapped_checkpoint(
    pair: tuple[Source, Source], tmp_path: Path, granularity: Granularity
) -> None:
    model = load_model(pair[0])
    before, untouched = asked(model).read(), digest(model)
    name, tensors = list(blocks(pair[0], granularity).items())[-1]
    found = exact_effect(model, pair[1], tensors, asked(model), before)
    assert digest(model) == untouched
    mine, theirs = (load_file(each.checkpoint.root / "model.safetensors") for each in pair)
    folder = save_byte_model(tmp_path / name)
    save_file(mine | {each: theirs[each] for each in tensors}, folder / "model.safetensors", metadata={"format": "pt"})
    with open_source(folder) as source:
        near(found, changes(before, asked(load_model(source)).read()), within=1e-5)
    assert any(abs(value) > 1e-3 for value in found["en", "refused"].values())


def test_a_model_is_put_back_when_something_fails(pair: tuple[Source, Source]) -> None:
    model = load_model(pair[0])
    untouched = digest(model)

    def interrupted() -> None:
        with swapped(model, pair[1], blocks(pair[0])["layers.0.mlp"]):
            assert digest(model) != untouched
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert digest(model) == untouched


def test_first_order_effects_are_finite_differences(pair: tuple[Source, Source]) -> None:
    model = load_model(pair[0], dtype=torch.float64)
    parts, step = blocks(pair[0]), 0.02
    untouched, wanted = digest(model), [parameter.requires_grad for parameter in model.model.parameters()]
    found = first_order_effects(model, pair[1], parts, asked(model))
    assert digest(model) == untouched
    assert [parameter.requires_grad for parameter in model.model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.model.parameters())
    for name, tensors in parts.items():
        ends = [_shifted(model, pair[1], tensors, share) for share in (-step, step)]
        slope = {cell: {p: v / (2 * step) for p, v in items.items()} for cell, items in changes(*ends).items()}
        near(found[name], slope, rel=1e-2, within=2e-4)  # norms are taken in float32, whatever the type


def _shifted(model: LoadedModel, donor: Source, tensors: Sequence[str], share: float) -> Values:
    """What a model answers that is a small way towards a donor in some tensors."""
    parts = [(parameter_of(model, name, donor.reader.spec(name).shape), donor.reader.whole(name)) for name in tensors]
    originals = [parameter.detach().clone() for parameter, _ in parts]
    with torch.no_grad():
        for parameter, other in parts:
            parameter.add_(share * (other.to(parameter) - parameter))
        found = asked(model).read()
        for (parameter, _), original in zip(parts, originals, strict=True):
            parameter.copy_(original)
    return found


def test_effects_along_the_path_add_up_to_the_whole_change(pair: tuple[Source, Source]) -> None:
    model = load_model(pair[0], dtype=torch.float64)
    parts, untouched = blocks(pair[0], "layer"), digest(model)
    before = asked(model).read()
    whole = exact_effect(model, pair[1], [each for tensors in parts.values() for each in tensors], asked(model), before)
    found = first_order_effects(model, pair[1], parts, asked(model), points=32)
    assert digest(model) == untouched
    total = {
        cell: {prompt: sum(found[name][cell][prompt] for name in parts) for prompt in items}
        for cell, items in whole.items()
    }
    near(total, whole, rel=5e-3, within=1e-4)
    start = first_order_effects(model, pair[1], parts, asked(model))
    gap = sum(start[name]["en", "refused"]["0"] for name in parts) - whole["en", "refused"]["0"]
    assert abs(gap) > 10 * abs(total["en", "refused"]["0"] - whole["en", "refused"]["0"])


def test_a_tensor_that_is_kept_in_another_form_is_refused(pair: tuple[Source, Source]) -> None:
    model = load_model(pair[0])
    with pytest.raises(ArchitectureError, match="no parameter for"):
        parameter_of(model, "model.layers.0.mlp.gate_proj.weight", (3, 3))
