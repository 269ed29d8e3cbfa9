"""Runs that share a prefix: equal to running every one of them alone, on every architecture."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polysafe.checkpoint.opened import open_source
from polysafe.errors import ArchitectureError
from polysafe.probe import patching as module
from polysafe.probe.model import LoadedModel, Site, load_model
from polysafe.probe.patching import OutputHead, RowPass, Scores, attend_rows, causal
from tests.models import FAMILIES, tiny_model
from tests.probe.conftest import Loader

PROMPT, ANSWER = (1, 5, 9, 7, 3, 20, 21, 22, 9), (4, 6)


def means_of(model: LoadedModel, seed: int = 0) -> torch.Tensor:
    layout = model.architecture.heads
    assert layout is not None
    shape = (model.parameters.num_layers, layout.num_heads, layout.head_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def row_logits(model: LoadedModel, means: torch.Tensor, prompt: tuple[int, ...], fed: tuple[int, ...]) -> torch.Tensor:
    head = OutputHead(model)
    with RowPass(model, means) as rows:
        return head(rows.states(prompt, fed))


def loop_logits(model: LoadedModel, means: torch.Tensor, prompt: tuple[int, ...], fed: tuple[int, ...]) -> torch.Tensor:
    """The published way: a full forward pass for every head, one at a time."""
    ids, last = torch.tensor([[*prompt, *fed]]), len(prompt) - 1
    size = means.shape[2]
    with torch.no_grad():
        found = [model.model(ids, use_cache=False).logits[0, last:]]
    for layer in range(means.shape[0]):
        projection = model.module(layer, Site.HEADS)[1]
        for head in range(means.shape[1]):

            def patch(
                _m: torch.nn.Module, args: tuple[torch.Tensor], value: torch.Tensor = means[layer, head], at: int = head
            ) -> tuple[torch.Tensor]:
                outputs = args[0].clone()
                outputs[:, last, at * size : (at + 1) * size] = value
                return (outputs,)

            handle = projection.register_forward_pre_hook(patch)
            with torch.no_grad():
                found.append(model.model(ids, use_cache=False).logits[0, last:])
            handle.remove()
    return torch.stack(found)


def assert_equal_effects(found: torch.Tensor, wanted: torch.Tensor) -> None:
    largest = (wanted[1:] - wanted[0]).abs().max()
    assert largest > 0.1
    assert (found - wanted).abs().max() <= 1e-5 * largest


@pytest.mark.parametrize("fed", [(), ANSWER], ids=["one token", "three tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_a_loop_of_patched_passes(loaded: Loader, family: str, fed: tuple[int, ...]) -> None:
    model = loaded(family)
    means = means_of(model)
    assert_equal_effects(row_logits(model, means, PROMPT, fed), loop_logits(model, means, PROMPT, fed))


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_sliding_windows(tmp_path: Path, family: str, window: int) -> None:
    tiny = tiny_model("llama" if family == "mistral" else family)
    change = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]} if family == "mistral" else {}
    tiny.config.update(change, sliding_window=window)
    with open_source(tiny.save(tmp_path / "m")) as source:
        model = load_model(source)
        means = means_of(model)
        assert_equal_effects(row_logits(model, means, PROMPT, ANSWER), loop_logits(model, means, PROMPT, ANSWER))


def test_a_prompt_of_one_token_has_no_prefix(llama: LoadedModel) -> None:
    means = means_of(llama)
    assert_equal_effects(row_logits(llama, means, (1,), ()), loop_logits(llama, means, (1,), ()))


def test_a_patch_reaches_no_earlier_position(llama: LoadedModel) -> None:
    """The premise: what a patch at the last position changes is at the last position."""
    ids = torch.tensor([PROMPT])
    projection = llama.module(0, Site.HEADS)[1]

    def patch(_m: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        outputs = args[0].clone()
        outputs[:, -1] += 1
        return (outputs,)

    with torch.no_grad():
        before = llama.model(ids).logits
        handle = projection.register_forward_pre_hook(patch)
        after = llama.model(ids).logits
        handle.remove()
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_a_head_patched_with_its_own_output_changes_nothing(loaded: Loader, family: str) -> None:
    """Biases of the output projection are added once: twice would show here."""
    model = loaded(family)
    seen: dict[int, torch.Tensor] = {}
    handles = [
        model.module(layer, Site.HEADS)[1].register_forward_pre_hook(
            lambda _m, args, at=layer: seen.__setitem__(at, args[0][0, -1])
        )
        for layer in range(model.parameters.num_layers)
    ]
    with torch.no_grad():
        model.model(torch.tensor([PROMPT]), use_cache=False)
    for handle in handles:
        handle.remove()
    own = torch.stack([seen[layer] for layer in sorted(seen)]).view(means_of(model).shape)
    logits = row_logits(model, own, PROMPT, ())
    assert (logits - logits[0]).abs().max() <= 2e-6


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_only_a_head_that_writes_has_an_effect(tmp_path: Path, family: str) -> None:
    """A model in which one head alone writes to the residual stream."""
    tiny = tiny_model(family)
    for name, tensor in tiny.tensors.items():
        if name.endswith(("o_proj.weight", "attn.c_proj.weight")):
            blocks = tensor if "c_proj" in name else tensor.T
            keep = slice(8, 12) if ".1." in name else slice(0, 0)
            kept = blocks[keep].clone()
            blocks.zero_()
            blocks[keep] = kept
    with open_source(tiny.save(tmp_path / "m")) as source:
        model = load_model(source)
        logits = row_logits(model, means_of(model), PROMPT, ())
    effects = (logits[1:] - logits[0]).abs().amax((1, 2)).view(model.parameters.num_layers, -1)
    planted = effects[1, 2].clone()
    effects[1, 2] = 0
    assert planted > 0.01
    assert effects.max() <= 1e-6


def test_the_model_is_left_as_it_was(llama: LoadedModel) -> None:
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        before = llama.model(ids).logits
    row_logits(llama, means_of(llama), PROMPT, ANSWER)
    with pytest.raises(IndexError), RowPass(llama, torch.zeros(1, 1, 1)) as rows:  # patches of another shape
        rows.states(PROMPT, ())
    with torch.no_grad():
        assert torch.equal(before, llama.model(ids).logits)
    assert not any(child._forward_pre_hooks for child in llama.model.modules())


def test_attention_of_its_own_is_noticed(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_attention", lambda *_: nullcontext())
    with pytest.raises(ArchitectureError, match="attention of their own"), RowPass(llama, means_of(llama)) as rows:
        rows.states(PROMPT, ())


def test_a_config_without_heads_is_refused(tmp_path: Path) -> None:
    tiny = tiny_model("llama")
    with open_source(tiny.save(tmp_path / "m")) as source:
        model = load_model(source)
        object.__setattr__(source.architecture, "heads", None)
        with pytest.raises(ArchitectureError, match="no attention heads"):
            RowPass(model, torch.zeros(1, 1, 1))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5),
    st.sampled_from([(1, 1), (4, 2), (6, 3)]),
    st.integers(1, 3),
    st.integers(0, 6),
    st.sampled_from([None, 1, 2, 4]),
    st.sampled_from([None, 5.0]),
    st.booleans(),
    st.sampled_from([1.0, 1e2]),
    st.integers(0, 10_000),
)
def test_attention_equals_a_softmax_over_all_keys(
    rows: int,
    heads: tuple[int, int],
    tokens: int,
    prefix: int,
    window: int | None,
    cap: float | None,
    sink: bool,
    size: float,
    seed: int,
) -> None:
    """The scores of prefix and own tokens in one softmax over replicated keys, also when one part dominates."""
    draw = torch.Generator().manual_seed(seed)
    many, few = heads
    query = size * torch.randn(rows, many, tokens, 4, generator=draw, dtype=torch.float64)
    key, value = (torch.randn(rows, few, tokens, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    keys, values = (size * torch.randn(few, prefix, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    scores = Scores(0.5, cap, window, torch.randn(many, generator=draw, dtype=torch.float64) if sink else None)
    found = attend_rows(query, key, value, keys, values, scores)

    def every(part: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return torch.cat((part.expand(rows, -1, -1, -1), own), 2).repeat_interleave(many // few, 1)

    products = query @ every(keys, key).mT * 0.5
    products = products if cap is None else cap * torch.tanh(products / cap)
    position, at = torch.arange(prefix, prefix + tokens)[:, None], torch.arange(prefix + tokens)
    seen = (at <= position) & ((at > position - window) if window is not None else True)
    weights = products.masked_fill(~seen, -torch.inf)
    if scores.sinks is not None:
        weights = torch.cat((weights, scores.sinks.view(1, -1, 1, 1).expand(rows, -1, tokens, 1)), -1)
    weights = weights.softmax(-1)[..., : prefix + tokens]
    torch.testing.assert_close(found, weights @ every(values, value))


def test_pieces_of_rows_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(7, 2, 2, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    prefix = torch.randn(2, 5, 4, generator=draw, dtype=torch.float64)
    whole = attend_rows(query, key, value, prefix, prefix, Scores(1.0))
    monkeypatch.setattr(module, "_SCORES", 1)
    torch.testing.assert_close(attend_rows(query, key, value, prefix, prefix, Scores(1.0)), whole)


def test_the_prefix_pass_equals_rows_of_one() -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 6, 4, generator=draw)
    key, value = (torch.randn(1, 2, 6, 4, generator=draw) for _ in range(2))
    empty = key[0, :, :0]
    for scores in (Scores(0.5), Scores(0.5, window=2), Scores(0.5, cap=3.0)):
        torch.testing.assert_close(
            causal(query, key, value, scores), attend_rows(query, key, value, empty, empty, scores)
        )
