"""Sources that do not fit together are refused before any tensor is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.opened import Source
from polysafe.errors import CheckpointError, MismatchError
from polysafe.methods.agreement import require_agreement, same_vocabulary_shape, vocabulary_conflict
from polysafe.methods.layer_swap import LayerSwap
from tests.methods.conftest import Opener
from tests.models import TinyModel, tiny_model, write_tokenizer

Settings = dict[str, Any]


class _NoReading:
    """A reader of specifications that fails when a tensor is read."""

    def __init__(self, source: Source) -> None:
        self.names, self.spec = source.reader.names, source.reader.spec

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        raise AssertionError(f"{name} was read")

    def whole(self, name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was read")


def _pair(opened: Opener, folder: Path, first: TinyModel, second: TinyModel) -> list[Source]:
    sources = opened({"one": first.save(folder / "one"), "two": second.save(folder / "two")})
    return [Source(n, s.checkpoint, s.architecture, _NoReading(s)) for n, s in sources.items()]


def _changed(model: TinyModel, **tensors: torch.Tensor | None) -> TinyModel:
    changed: dict[str, Any] = {**model.tensors, **tensors}
    return TinyModel({name: tensor for name, tensor in changed.items() if tensor is not None}, model.config)


def _configured(settings: Settings) -> TinyModel:
    model = tiny_model()
    plain = {name: value for name, value in model.config.items() if not name.startswith(("rope", "hidden_act"))}
    return TinyModel(model.tensors, plain | settings)


def test_equal_models_agree(tmp_path: Path, opened: Opener) -> None:
    pair = _pair(opened, tmp_path, tiny_model(seed=1), tiny_model(seed=2, dtype=torch.float16))
    require_agreement(pair)
    assert vocabulary_conflict(pair) is None


@pytest.mark.fault(6, "layers")
def test_layer_counts_are_named(tmp_path: Path, opened: Opener) -> None:
    pair = _pair(opened, tmp_path, tiny_model(layers=4), tiny_model(layers=3))
    with pytest.raises(MismatchError, match="'one' has 4 layers, 'two' has 3"):
        require_agreement(pair)


@pytest.mark.fault(6, "tying")
def test_tied_and_untied_heads_do_not_fit(tmp_path: Path, opened: Opener) -> None:
    pair = _pair(opened, tmp_path, tiny_model(tied=False), tiny_model(tied=True))
    with pytest.raises(MismatchError, match="head of 'two' is tied to its embedding, 'one' has a head"):
        require_agreement(pair)


@pytest.mark.fault(6, "shapes, the first three named")
@pytest.mark.parametrize("missing_in", [0, 1])
def test_missing_tensors_are_listed(tmp_path: Path, opened: Opener, missing_in: int) -> None:
    models = [tiny_model(), tiny_model()]
    name = "model.layers.1.self_attn.k_proj.weight"
    models[missing_in] = _changed(models[missing_in], **{name: None})
    pair = _pair(opened, tmp_path, *models)
    with pytest.raises(MismatchError, match=f"{name} is in '{('two', 'one')[missing_in]}' only"):
        require_agreement(pair)


@pytest.mark.fault(6, "shapes, the first three named")
def test_first_differing_shapes_are_listed(tmp_path: Path, opened: Opener) -> None:
    model = tiny_model()
    wider = {n: torch.cat([t, t]) for n, t in model.tensors.items() if "up_proj" in n or "gate_proj" in n}
    pair = _pair(opened, tmp_path, model, _changed(model, **wider))
    with pytest.raises(MismatchError, match="24×16 in 'one' and 48×16 in 'two'") as refusal:
        require_agreement(pair)
    assert str(refusal.value).count("is 24×16") == 3


HALVES = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
ROPE = {"rope_theta": 10000.0}


@pytest.mark.fault(6, "heads, norms and positions")
@pytest.mark.hostile("config")
@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ({}, HALVES, "num_attention_heads is 4 in 'one' and 2 in 'two'"),
        ({"rms_norm_eps": 1e-6}, {"rms_norm_eps": 1e-2}, "rms_norm_eps is 1e-06 in 'one' and 0.01 in 'two'"),
        ({"hidden_act": "silu"}, {"hidden_act": "gelu"}, "hidden_act is 'silu' in 'one' and 'gelu' in 'two'"),
        (ROPE, {"rope_theta": 500000.0}, "rope_theta is 10000.0 in 'one' and 500000.0 in 'two'"),
        (ROPE, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta is 10000.0"),
        (
            ROPE,
            {**ROPE, "rope_scaling": {"type": "linear", "factor": 8}},
            "rope_type is 'default' in 'one' and 'linear'",
        ),
    ],
    ids=["heads", "norm", "activation", "positions", "positions spelt anew", "scaled positions"],
)
def test_what_is_computed_with_equal_shapes_has_to_be_the_same(
    mine: Settings, theirs: Settings, words: str, tmp_path: Path, opened: Opener
) -> None:
    """Half the heads of twice the width have the same shapes, and are another model."""
    pair = _pair(opened, tmp_path, _configured(mine), _configured(theirs))
    with pytest.raises(MismatchError, match=words):
        require_agreement(pair)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ROPE, {"rope_parameters": {"rope_theta": 10000, "rope_type": "default"}}),
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 9.999999747378752e-06}),
        ({"hidden_act": "silu"}, {}),
        ({"max_position_embeddings": 4096, "bos_token_id": 1}, {"max_position_embeddings": 8192, "bos_token_id": 2}),
        (ROPE, {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear"}}}),
    ],
    ids=["spelt anew", "rounded", "silent", "beside the point", "by kinds of layers"],
)
def test_what_is_said_otherwise_or_not_at_all_does_not_differ(
    mine: Settings, theirs: Settings, tmp_path: Path, opened: Opener
) -> None:
    require_agreement(_pair(opened, tmp_path, _configured(mine), _configured(theirs)))


@pytest.mark.fault(7, "padded and extended vocabularies")
def test_more_rows_of_the_embedding_are_a_question_of_the_vocabulary(tmp_path: Path, opened: Opener) -> None:
    pair = _pair(opened, tmp_path, tiny_model(vocab=40), tiny_model(vocab=48))
    require_agreement(pair)
    assert not same_vocabulary_shape(pair)
    assert vocabulary_conflict(pair) == "lm_head.weight is 40×16 in 'one' and 48×16 in 'two'"


def test_other_width_of_the_embedding_is_another_architecture(tmp_path: Path, opened: Opener) -> None:
    model = tiny_model()
    name = "model.embed_tokens.weight"
    pair = _pair(opened, tmp_path, model, _changed(model, **{name: model.tensors[name][:, :8].contiguous()}))
    with pytest.raises(MismatchError, match=name):
        require_agreement(pair)


def test_renamed_tokens_conflict_and_added_ones_do_not(tmp_path: Path, opened: Opener) -> None:
    pair = _pair(opened, tmp_path, tiny_model(), tiny_model())
    write_tokenizer(pair[1].checkpoint.root, 30)
    assert vocabulary_conflict(pair) is None
    write_tokenizer(pair[1].checkpoint.root, 40, first_word=7)
    assert vocabulary_conflict(pair) == "token 3 is 'w3' in 'one' and 'w7' in 'two'"


def test_unigram_vocabularies_are_lists(tmp_path: Path, opened: Opener) -> None:
    pair = _pair(opened, tmp_path, tiny_model(), tiny_model())
    for source, word in zip(pair, ("a", "b"), strict=True):
        content = {"model": {"vocab": [["<unk>", 0], [word, -1.5]]}}
        (source.checkpoint.root / "tokenizer.json").write_text(json.dumps(content))
    assert vocabulary_conflict(pair) == "token 1 is 'a' in 'one' and 'b' in 'two'"


@pytest.mark.hostile("config")
@pytest.mark.parametrize("text", ["{", "[]", '{"model": {}}', '{"model": {"vocab": {"a": "x"}}}'])
def test_broken_tokenizer_is_named(tmp_path: Path, opened: Opener, text: str) -> None:
    pair = _pair(opened, tmp_path, tiny_model(), tiny_model())
    (pair[1].checkpoint.root / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        vocabulary_conflict(pair)


@pytest.mark.parametrize(
    "other", [tiny_model(layers=3), tiny_model(tied=True), tiny_model("qwen3")], ids=["layers", "tied", "names"]
)
def test_layer_swap_refuses_before_it_reads(tmp_path: Path, opened: Opener, other: TinyModel) -> None:
    base = tiny_model()
    opened_sources = opened({n: m.save(tmp_path / n) for n, m in {"base": base, "safety": base, "sw": other}.items()})
    sources = {n: Source(n, s.checkpoint, s.architecture, _NoReading(s)) for n, s in opened_sources.items()}
    with pytest.raises(MismatchError):
        LayerSwap(base="base", safety="safety", language="sw").fit(sources)


def test_tied_flag_that_contradicts_the_tensors_is_told(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(layers=4)
    contradicting = TinyModel(base.tensors, base.config | {"tie_word_embeddings": True})
    models = {"base": base, "safety": base, "sw": contradicting}
    sources = opened({n: m.save(tmp_path / n) for n, m in models.items()})
    edit = LayerSwap(base="base", safety="safety", language="sw").fit(sources)
    assert any(note.startswith("sw: ") and "tied" in note for note in edit.provenance[0].notes)


@pytest.mark.parametrize("tied", [True, False])
def test_heads_stay_as_tied_as_they_were(tmp_path: Path, opened: Opener, tied: bool) -> None:
    base = tiny_model(tied=tied)
    models = {"base": base, "safety": base.updated(1, lambda _: 0.1), "sw": base.updated(2, lambda _: 0.1)}
    sources = opened({n: m.save(tmp_path / n) for n, m in models.items()})
    edit = LayerSwap(base="base", safety="safety", language="sw").fit(sources)
    assert ("lm_head.weight" in edit.steps) == (not tied)
    assert "model.embed_tokens.weight" in edit.steps
    blocks = {d.block for d in edit.provenance[0].decisions}
    assert ("head" in blocks) == (not tied)
