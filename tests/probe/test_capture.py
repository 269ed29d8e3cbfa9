from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polysafe.checkpoint.opened import open_source
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddLowRank
from polysafe.errors import ArchitectureError, DataError, MismatchError, PolysafeError, RecipeError
from polysafe.probe.capture import Captured, capture, load_captured
from polysafe.probe.forward import Pooling, first_tensor, last_token, mean_token
from polysafe.probe.model import LoadedModel, Site, edited, load_model
from polysafe.probe.moments import LayerMoments, MeanVariance
from polysafe.probe.render import RenderedPrompts
from polysafe.probe.stores import Moments, Rows, Statistics, Store
from polysafe.progress import Progress, reporting
from tests.models import FAMILIES, HIDDEN, INNER, read_weights, write_weights
from tests.probe.helpers import near, plainly, prompts

Loader = Callable[[str], LoadedModel]
POOLED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"last": lambda x: x[-1], "mean": lambda x: x.mean(0)}


def _expected(model: LoadedModel, rendered: RenderedPrompts, layer: int, site: Site, pooling: str) -> torch.Tensor:
    name, _ = model.module(layer, site)
    return torch.stack([POOLED[pooling](x) for x in plainly(model, rendered, name)])


def _same(first: Captured[torch.Tensor], second: Captured[torch.Tensor]) -> None:
    for layer in first.store.layers:
        near(first[layer], second[layer])


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_of_a_plain_loop_in_every_family(loaded: Loader, family: str, pooling: Pooling) -> None:
    model, rendered = loaded(family), prompts()
    got = capture(model, rendered, into=Rows(), pooling=pooling, batch_size=4)
    assert got.ids == rendered.ids
    assert got.store.layers == (0, 1, 2, 3)
    for layer in range(4):
        near(got[layer], _expected(model, rendered, layer, Site.MLP, pooling))


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_padding_side_and_order_do_not_matter(loaded: Loader, family: str) -> None:
    model, rendered = loaded(family), prompts()
    single = capture(model, rendered, into=Rows(), batch_size=1)
    _same(capture(model, rendered, into=Rows(), batch_size=8), single)
    _same(capture(model, rendered, into=Rows(), batch_size=8, side="right"), single)
    order = [3, 9, 0, 7, 1, 8, 2, 6, 4, 5]
    shuffled = capture(model, rendered.select(order), into=Rows(), batch_size=8)
    for layer in range(4):
        near(shuffled[layer], single[layer][order])


@settings(max_examples=15)
@given(st.data())
def test_any_batching_gives_the_same_rows(loaded: Loader, data: st.DataObject) -> None:
    model = loaded("llama")
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=8))
    pooling: Pooling = data.draw(st.sampled_from(["last", "mean"]))
    rendered = prompts(lengths, seed=data.draw(st.integers(0, 99)))
    got = capture(
        model,
        rendered,
        [1, 3],
        into=Rows(),
        pooling=pooling,
        batch_size=data.draw(st.integers(1, 9)),
        side=data.draw(st.sampled_from(["left", "right"])),
    )
    for layer in (1, 3):
        near(got[layer], _expected(model, rendered, layer, Site.MLP, pooling))


@pytest.mark.parametrize("site", [Site.UNITS, Site.HEADS])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "gpt2", "gpt_neox"])
def test_units_and_heads_are_recorded_too(loaded: Loader, family: str, site: Site) -> None:
    model, rendered = loaded(family), prompts()
    got = capture(model, rendered, into=Rows(torch.float64), site=site)
    assert got[2].shape == (10, INNER if site is Site.UNITS else HIDDEN)
    assert got[2].dtype == torch.float64
    near(got[2].float(), _expected(model, rendered, 2, site, "last"))


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize(
    ("family", "projection", "tensor"),
    [
        ("llama", "mlp.gate_proj", "model.layers.1.mlp.gate_proj.weight"),
        ("llama", "mlp.up_proj", "model.layers.1.mlp.up_proj.weight"),
        ("phi3", "mlp.gate_up_proj", "model.layers.1.mlp.gate_up_proj.weight"),
        ("gpt_neox", "mlp.dense_h_to_4h", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"),
    ],
)
def test_pooled_inputs_predict_the_edited_outputs(
    loaded: Loader, family: str, projection: str, tensor: str, pooling: Pooling
) -> None:
    model, rendered = loaded(family), prompts()
    source, module = model.source, tensor.removesuffix(".weight")
    x = capture(model, rendered, [1], into=Rows(), pooling=pooling)[1]
    weight = source.reader.whole(tensor).float()
    names = source.reader.names()
    bias = source.reader.whole(f"{module}.bias").float() if f"{module}.bias" in names else 0.0

    def outputs() -> torch.Tensor:
        found = plainly(model, rendered, module, output=True)
        return torch.stack([POOLED[pooling](out) for out in found])

    near(outputs(), x @ weight.T + bias)
    rows = torch.tensor([0, 2, 7])
    generator = torch.Generator().manual_seed(0)
    factors = AddLowRank(
        rows=rows, a=torch.randn(3, 2, generator=generator), b=torch.randn(HIDDEN, 2, generator=generator)
    )
    edit = Edit(start=source.name, steps={tensor: (factors,)}, sources={source.name: SourceRecord(origin="x")})
    with edited(model, edit, {source.name: source.reader}) as changed:
        new = changed.source.reader.whole(tensor).float()
        got = outputs()
        near(capture(changed, rendered, [1], into=Rows(), pooling=pooling)[1], x)
    others = [unit for unit in range(len(new)) if unit not in rows]
    assert torch.equal(new[others], weight[others])
    near(got[:, rows], x @ new[rows].T + (bias[rows] if isinstance(bias, torch.Tensor) else 0.0))


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_moments_and_statistics_are_those_of_the_rows(llama: LoadedModel, pooling: Pooling) -> None:
    low, pivot = prompts(), prompts((4, 7, 3, 3, 11, 2, 5, 6, 1, 9), seed=1)
    x, y = (capture(llama, p, into=Rows(torch.float64), pooling=pooling) for p in (low, pivot))
    moments = capture(llama, low, into=Moments(), pairs=pivot, pooling=pooling, batch_size=3)
    alone = capture(llama, low, into=Moments(), pooling=pooling, batch_size=4)
    units = capture(llama, low, into=Statistics(), pooling=pooling, batch_size=4)
    for layer in range(4):
        got = moments[layer]
        assert got.y is not None
        assert got.xy is not None
        assert got.yy is not None
        assert got.count == got.y.count == units[layer].count == 10
        near(got.xx.total, x[layer].T @ x[layer])
        near(got.xy.total, x[layer].T @ y[layer])
        near(got.yy.total, y[layer].T @ y[layer])
        near(alone[layer].xx.total, got.xx.total)
        near(got.y.mean, y[layer].mean(0))
        near(units[layer].mean, x[layer].mean(0))
        near(units[layer].variance(), x[layer].var(0))
    assert alone[0].xy is None


def test_moments_do_not_grow_with_the_prompts(llama: LoadedModel) -> None:
    def size(count: int) -> int:
        store = capture(llama, prompts([3] * count), into=Moments()).store
        return sum(tensor.nbytes for tensor in store.tensors().values())

    assert size(5) == size(40)


def test_the_pass_ends_at_the_last_layer_that_is_needed(llama: LoadedModel) -> None:
    ran = []
    model = llama.model
    watched = {layer: model.get_submodule(f"model.layers.{layer}") for layer in range(4)} | {9: model.lm_head}
    handles = [m.register_forward_pre_hook(lambda *_, n=n: ran.append(n)) for n, m in watched.items()]
    capture(llama, prompts(), [1], into=Rows(), batch_size=10)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def test_a_model_with_offloaded_weights_is_run_to_the_end(folder: Path) -> None:
    """Cutting a pass short would leave the weights that were fetched for a layer on the device."""
    with open_source(folder) as source:
        model = load_model(source)
        expected = capture(model, prompts(), [0], into=Rows())
        elsewhere = torch.nn.Parameter(torch.empty(1, device="meta"))
        model.model.get_submodule("model.norm").register_parameter("elsewhere", elsewhere)
        ran: list[int] = []
        model.model.get_submodule("model.layers.1").register_forward_pre_hook(lambda *_: ran.append(1))
        _same(capture(model, prompts(), [0], into=Rows(), batch_size=10), expected)
        assert ran == [1]


class _InterruptedError(Exception):
    pass


def _stop_after(limit: int) -> Progress:
    def progress(_stage: str, done: int, _total: int) -> None:
        if done >= limit:
            raise _InterruptedError

    return progress


def _live_tensors() -> int:
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


def test_nothing_is_left_behind_after_fifty_captures(llama: LoadedModel) -> None:
    rendered = prompts()

    def once() -> None:
        capture(llama, rendered, into=Rows(), batch_size=3)
        with pytest.raises(_InterruptedError), reporting(_stop_after(1)):
            capture(llama, rendered, into=Rows())

    once()
    before = _live_tensors()
    for _ in range(50):
        once()
    assert _live_tensors() == before
    assert not any(module._forward_pre_hooks for module in llama.model.modules())


def test_other_passes_are_not_disturbed_while_hooks_are_on(llama: LoadedModel) -> None:
    rendered = prompts((4, 6))
    tokens = torch.tensor([rendered.tokens[0]])
    with torch.no_grad():
        before = llama.model(tokens).logits
        seen = []
        with reporting(lambda *_: seen.append(llama.model(tokens).logits)):
            capture(llama, rendered, into=Rows())
    assert len(seen) > 1
    assert torch.equal(seen[-1], before)


def test_first_tensor_of_whatever_a_module_takes() -> None:
    tensor = torch.ones(2)
    for value in (tensor, (tensor, None), [None, (tensor,)], {"hidden_states": tensor}, ((), {"x": tensor})):
        assert first_tensor(value) is tensor
    with pytest.raises(ArchitectureError, match="no tensor"):
        first_tensor((None, "x"))


@pytest.mark.parametrize("call", ["keyword", "tuple"])
def test_hooks_cope_with_keywords_and_tuples(folder: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a family handed its MLP's input over by keyword, or in a tuple."""
    with open_source(folder) as source:
        model = load_model(source)
        expected = capture(model, prompts(), into=Rows())
        original = torch.nn.Linear.forward

        def forward(self: torch.nn.Linear, input: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:  # noqa: A002
            return original(self, input[0] if isinstance(input, tuple) else input)

        def passing(self: Any, x: torch.Tensor) -> Any:
            gate = self.gate_proj(input=x) if call == "keyword" else self.gate_proj((x,))
            return self.down_proj(self.act_fn(gate) * self.up_proj(x))

        monkeypatch.setattr(torch.nn.Linear, "forward", forward)
        monkeypatch.setattr(type(model.model.get_submodule("model.layers.0.mlp")), "forward", passing)
        _same(capture(model, prompts(), into=Rows()), expected)


def _poisoned(folder: Path, tensor: str, row: int) -> Path:
    tensors = read_weights(folder)
    tensors[tensor][row] = torch.nan
    write_weights(folder, tensors)
    return folder


def test_activations_that_are_not_finite_name_prompt_layer_and_projection(folder: Path) -> None:
    rendered = prompts((3, 4, 2))
    poison = next(t for t in rendered.tokens[1] if t not in {*rendered.tokens[0], *rendered.tokens[2]})
    with (
        open_source(_poisoned(folder, "model.embed_tokens.weight", poison)) as source,
        pytest.raises(DataError) as caught,
    ):
        capture(load_model(source), rendered, into=Rows())
    assert "prompt 'p1'" in str(caught.value)
    assert "layers.0.mlp.gate_proj (layer 0)" in str(caught.value)


def test_padding_is_never_pooled_even_if_it_is_not_finite() -> None:
    activations = torch.tensor([[[1.0], [5.0], [torch.nan]], [[torch.inf], [2.0], [4.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert last_token(activations, mask).tolist() == [[5.0], [4.0]]
    assert mean_token(activations, mask).tolist() == [[3.0], [3.0]]


def test_maximum_pooling_is_refused(llama: LoadedModel) -> None:
    with pytest.raises(RecipeError, match=r"'max' is refused: max\(XW\) is not max\(X\)W"):
        capture(llama, prompts(), into=Rows(), pooling="max")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="'median' is refused: unknown"):
        capture(llama, prompts(), into=Rows(), pooling="median")  # type: ignore[arg-type]


def _refusals(model: LoadedModel) -> dict[str, tuple[type[PolysafeError], str, Callable[[], object]]]:
    good, other = prompts(), prompts(prefix="q")
    used = Rows()
    used.restore({"0": torch.zeros(1, 1)})
    foreign = replace(good, tokens=((1, 40), *good.tokens[1:]))
    return {
        "layer": (ArchitectureError, "no layer 7", lambda: capture(model, good, [1, 7], into=Rows())),
        "no layer": (RecipeError, "no layer is named", lambda: capture(model, good, [], into=Rows())),
        "store": (RecipeError, "not empty", lambda: capture(model, good, into=used)),
        "batch": (RecipeError, "batch_size", lambda: capture(model, good, into=Rows(), batch_size=0)),
        "pairs": (RecipeError, "Rows keeps no cross", lambda: capture(model, good, into=Rows(), pairs=good)),
        "ids": (MismatchError, "first at 'p0'", lambda: capture(model, good, into=Moments(), pairs=other)),
        "count": (
            MismatchError,
            "first at 'p9'",
            lambda: capture(model, good, into=Moments(), pairs=good.select(range(9))),
        ),
        "vocabulary": (MismatchError, "prompt 'p0': has token 40", lambda: capture(model, foreign, into=Rows())),
        "length": (DataError, "prompt 'p0': has 65 tokens", lambda: capture(model, prompts((65,)), into=Rows())),
    }


@pytest.mark.parametrize(
    "case", ["layer", "no layer", "store", "batch", "pairs", "ids", "count", "vocabulary", "length"]
)
def test_bad_input(llama: LoadedModel, case: str) -> None:
    kind, message, call = _refusals(llama)[case]
    with pytest.raises(kind, match=message):
        call()


STORES: tuple[type[Store[Any]], ...] = (Rows, Moments, Statistics)


@pytest.mark.parametrize("kind", STORES)
def test_an_interrupted_capture_is_continued(llama: LoadedModel, tmp_path: Path, kind: type[Store[Any]]) -> None:
    rendered, file = prompts(), tmp_path / "harmful.probe"
    pairs = prompts(seed=3) if kind is Moments else None

    def run(progress: Progress, probe_file: Path | None = file, batch_size: int = 2) -> Captured[Any]:
        with reporting(progress):
            return capture(
                llama,
                rendered,
                [0, 2],
                into=kind(),
                pairs=pairs,
                probe_file=probe_file,
                save_every=1,
                batch_size=batch_size,
            )

    with pytest.raises(_InterruptedError):
        run(_stop_after(6))
    with pytest.raises(DataError, match=r"partial capture \(4 of 10 prompts\)"):
        load_captured(file)
    steps: list[int] = []
    resumed = run(lambda _, done, __: steps.append(done), batch_size=3)
    assert steps == [4, 7, 10]
    whole = run(lambda *_: None, probe_file=None)
    stored, expected = resumed.store.tensors(), whole.store.tensors()
    assert stored.keys() == expected.keys()
    for name, value in stored.items():
        near(value, expected[name])
    steps.clear()
    again = run(lambda _, done, __: steps.append(done))
    assert steps == [10]  # a complete file needs no forward pass
    read = load_captured(file, resumed.record)
    assert read.ids == rendered.ids
    for captured in (again, read):
        assert all(torch.equal(value, stored[name]) for name, value in captured.store.tensors().items())


def test_a_probe_file_of_something_else_is_refused(llama: LoadedModel, loaded: Loader, tmp_path: Path) -> None:
    file = tmp_path / "a.probe"
    rendered = prompts()
    capture(llama, rendered, into=Rows(), probe_file=file)

    def refused(field: str, call: Callable[[], object]) -> None:
        with pytest.raises(MismatchError, match=f"recorded with another {field}:"):
            call()

    refused("model", lambda: capture(loaded("qwen3"), rendered, into=Rows(), probe_file=file))
    refused("data", lambda: capture(llama, prompts(seed=9), into=Rows(), probe_file=file))
    other = replace(rendered, tokenizer="another")
    refused("tokenizer", lambda: capture(llama, other, into=Rows(), probe_file=file))
    refused("layers", lambda: capture(llama, rendered, [0], into=Rows(), probe_file=file))
    refused("pooling", lambda: capture(llama, rendered, into=Rows(), pooling="mean", probe_file=file))
    refused("kind", lambda: capture(llama, rendered, into=Statistics(), probe_file=file))
    refused("site", lambda: capture(llama, rendered, into=Rows(), site=Site.HEADS, probe_file=file))
    assert capture(llama, rendered, into=Rows(), probe_file=file, batch_size=1).ids == rendered.ids


def test_what_a_capture_gives_is_typed(llama: LoadedModel) -> None:
    rendered = prompts((3, 4))
    assert isinstance(capture(llama, rendered, into=Rows())[0], torch.Tensor)
    assert isinstance(capture(llama, rendered, into=Moments())[0], LayerMoments)
    assert isinstance(capture(llama, rendered, into=Statistics())[0], MeanVariance)


def test_half_precision_models_give_wide_rows(folder: Path) -> None:
    with open_source(folder) as source:
        half, full = (load_model(source, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
        got = capture(half, prompts(), into=Rows(), pooling="mean")
        assert got.record.dtype == "bfloat16"
        assert got[1].dtype == torch.float32
        torch.testing.assert_close(got[1], capture(full, prompts(), into=Rows(), pooling="mean")[1], rtol=0.1, atol=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_of_an_accelerator_are_those_of_the_processor(llama: LoadedModel) -> None:
    there = load_model(llama.source, device="cuda", dtype=torch.float32)
    got = capture(there, prompts(), into=Rows())
    torch.testing.assert_close(got[3], capture(llama, prompts(), into=Rows())[3], rtol=1e-4, atol=1e-4)


def test_a_model_spread_over_devices_gives_the_same_rows(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="a device map needs accelerate")
    spread: dict[str, int | str] = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "": "cpu"}
    with open_source(folder) as source:
        got = capture(load_model(source, device_map=spread, dtype=torch.float32), prompts(), into=Rows())
        _same(got, capture(load_model(source), prompts(), into=Rows()))
