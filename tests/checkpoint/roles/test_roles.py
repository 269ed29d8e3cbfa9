from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polysafe.checkpoint.roles import Architecture, HeadLayout, Kind, Module, TensorRole, classify
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.errors import ArchitectureError
from tests.checkpoint.raw import header_only
from tests.checkpoint.roles import real_names
from tests.models import FAMILIES, tiny_model

# family: projections of each module of a layer, and tensors of a layer that stay unknown
TINY: dict[str, tuple[set[str], set[str], int]] = {
    "llama": ({"q", "k", "v", "o"}, {"gate", "up", "down"}, 0),
    "qwen2": ({"q", "k", "v", "o"}, {"gate", "up", "down"}, 0),
    "qwen3": ({"q", "k", "v", "o"}, {"gate", "up", "down"}, 0),
    "gemma2": ({"q", "k", "v", "o"}, {"gate", "up", "down"}, 0),
    "phi3": ({"qkv", "o"}, {"gate_up", "down"}, 0),
    "mixtral": ({"q", "k", "v", "o"}, {"gate", "up", "down"}, 0),
    "qwen3_moe": ({"q", "k", "v", "o"}, {"gate", "up", "down"}, 0),
    "gpt_oss": ({"q", "k", "v", "o"}, {"gate_up", "down"}, 1),
    "gpt2": ({"qkv", "o"}, {"fc_in", "fc_out"}, 0),
    "gpt_neox": ({"qkv", "o"}, {"fc_in", "fc_out"}, 0),
}


def projections(architecture: Architecture, module: Module) -> set[str]:
    return {
        str(architecture.roles[name].projection)
        for name in architecture.layer_tensors(0, module)
        if architecture.roles[name].kind is Kind.PROJECTION
    }


@pytest.mark.fault(
    7, "fused and stacked tensors", "biases, norms and groups of heads", "hybrid layers and several modules"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_the_tests(family: str, tmp_path: Path) -> None:
    architecture = classify(open_checkpoint(tiny_model(family, layers=3).save(tmp_path / "m")))
    attention, mlp, unknown = TINY[family]
    assert architecture.num_layers == 3
    assert projections(architecture, Module.ATTENTION) == attention
    assert projections(architecture, Module.MLP) == mlp
    assert len(architecture.unknown) == 3 * unknown
    assert architecture.tied == FAMILIES[family].tied
    assert architecture.vocabulary == 40
    assert architecture.heads is not None
    assert (architecture.heads.num_heads, architecture.heads.head_dim) == (4, 4)


# model, prefix, tied, heads, vocabulary, kinds
EXPECTED: list[tuple[Callable[[], Checkpoint], str, bool, HeadLayout, int, dict[Kind, int]]] = [
    (
        real_names.llama3_8b,
        "model.layers",
        False,
        HeadLayout(32, 8, 128),
        128256,
        {Kind.PROJECTION: 224, Kind.NORM: 64, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1, Kind.HEAD: 1},
    ),
    (
        real_names.llama32_1b,
        "model.layers",
        True,
        HeadLayout(32, 8, 64),
        128256,
        {Kind.PROJECTION: 112, Kind.NORM: 32, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1},
    ),
    (
        real_names.qwen2_7b,
        "model.layers",
        False,
        HeadLayout(28, 4, 128),
        152064,
        {Kind.PROJECTION: 280, Kind.NORM: 56, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1, Kind.HEAD: 1},
    ),
    (
        real_names.qwen3_8b,
        "model.layers",
        False,
        HeadLayout(32, 8, 128),
        151936,
        {Kind.PROJECTION: 252, Kind.NORM: 144, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1, Kind.HEAD: 1},
    ),
    (
        real_names.gemma2_9b,
        "model.layers",
        True,
        HeadLayout(16, 8, 256),
        256000,
        {Kind.PROJECTION: 294, Kind.NORM: 168, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1},
    ),
    (
        real_names.phi3_mini,
        "model.layers",
        False,
        HeadLayout(32, 32, 96),
        32064,
        {Kind.PROJECTION: 128, Kind.NORM: 64, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1, Kind.HEAD: 1},
    ),
    (
        real_names.mixtral_8x7b,
        "model.layers",
        False,
        HeadLayout(32, 8, 128),
        32000,
        {
            Kind.PROJECTION: 32 * (4 + 24),
            Kind.ROUTER: 32,
            Kind.NORM: 64,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
        },
    ),
    (
        real_names.qwen3_30b_a3b,
        "model.layers",
        False,
        HeadLayout(32, 4, 128),
        151936,
        {
            Kind.PROJECTION: 4 * (4 + 384),
            Kind.ROUTER: 4,
            Kind.NORM: 16,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
        },
    ),
    (
        real_names.llama4_scout,
        "language_model.model.layers",
        False,
        HeadLayout(40, 8, 128),
        202048,
        {
            Kind.PROJECTION: 48 * 9,
            Kind.ROUTER: 48,
            Kind.NORM: 96,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
            Kind.UNKNOWN: 70,
        },
    ),
    (
        real_names.gpt_oss_20b,
        "model.layers",
        False,
        HeadLayout(64, 8, 64),
        201088,
        {
            Kind.PROJECTION: 24 * 12,
            Kind.ROUTER: 48,
            Kind.NORM: 48,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
            Kind.UNKNOWN: 24,
        },
    ),
    (
        real_names.gpt2,
        "h",
        True,
        HeadLayout(12, 12, 64),
        50257,
        {Kind.PROJECTION: 96, Kind.NORM: 48, Kind.BUFFER: 12, Kind.EMBEDDING: 1, Kind.POSITION: 1, Kind.FINAL_NORM: 2},
    ),
    (
        real_names.pythia_160m,
        "gpt_neox.layers",
        False,
        HeadLayout(12, 12, 64),
        50304,
        {Kind.PROJECTION: 96, Kind.NORM: 48, Kind.BUFFER: 36, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 2, Kind.HEAD: 1},
    ),
    (
        real_names.llava_15,
        "model.layers",
        False,
        HeadLayout(32, 32, 128),
        32064,
        {
            Kind.PROJECTION: 224,
            Kind.NORM: 64,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
            Kind.UNKNOWN: 51,
        },
    ),
    (
        real_names.qwen25_vl_7b,
        "model.language_model.layers",
        False,
        HeadLayout(28, 4, 128),
        152064,
        {
            Kind.PROJECTION: 196,
            Kind.NORM: 56,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
            Kind.UNKNOWN: 66,
        },
    ),
    (
        real_names.bloom_560m,
        "transformer.h",
        True,
        HeadLayout(16, 16, 64),
        250880,
        {Kind.PROJECTION: 96, Kind.NORM: 48, Kind.EMBEDDING: 1, Kind.FINAL_NORM: 1, Kind.UNKNOWN: 1},
    ),
    (
        real_names.qwen3_next,
        "model.layers",
        False,
        HeadLayout(8, 2, 256),
        151936,
        {
            Kind.PROJECTION: 3 + 4 + 12,
            Kind.NORM: 3 + 8,
            Kind.EMBEDDING: 1,
            Kind.FINAL_NORM: 1,
            Kind.HEAD: 1,
            Kind.UNKNOWN: 6,
        },
    ),
]


@pytest.mark.fault(
    7, "fused and stacked tensors", "biases, norms and groups of heads", "hybrid layers and several modules"
)
@pytest.mark.parametrize(
    ("model", "prefix", "tied", "heads", "vocabulary", "kinds"), EXPECTED, ids=[case[0].__name__ for case in EXPECTED]
)
def test_released_models(
    model: Callable[[], Checkpoint],
    prefix: str,
    tied: bool,
    heads: HeadLayout,
    vocabulary: int,
    kinds: dict[Kind, int],
) -> None:
    checkpoint = model()
    architecture = classify(checkpoint)
    assert set(architecture.roles) == set(checkpoint.tensors)
    assert architecture.prefix == prefix
    assert architecture.num_layers == checkpoint.text_config.get(
        "num_hidden_layers", checkpoint.text_config.get("n_layer")
    )
    assert architecture.tied is tied
    assert architecture.heads == heads
    assert architecture.vocabulary == vocabulary
    assert Counter(role.kind for role in architecture.roles.values()) == kinds
    assert len(architecture.unknown) == kinds.get(Kind.UNKNOWN, 0)


def role(checkpoint: Checkpoint, name: str) -> TensorRole:
    return classify(checkpoint).roles[name]


def test_single_roles() -> None:
    assert role(real_names.llama3_8b(), "model.layers.31.mlp.down_proj.weight") == TensorRole(
        Kind.PROJECTION, 31, Module.MLP, "down"
    )
    assert role(real_names.qwen2_7b(), "model.layers.3.self_attn.k_proj.bias") == TensorRole(
        Kind.PROJECTION, 3, Module.ATTENTION, "k", bias=True
    )
    assert role(real_names.qwen3_8b(), "model.layers.3.self_attn.q_norm.weight") == TensorRole(
        Kind.NORM, 3, Module.ATTENTION
    )
    assert role(real_names.gemma2_9b(), "model.layers.0.pre_feedforward_layernorm.weight") == TensorRole(Kind.NORM, 0)
    assert role(real_names.mixtral_8x7b(), "model.layers.1.block_sparse_moe.experts.7.w2.weight") == TensorRole(
        Kind.PROJECTION, 1, Module.MLP, "down", expert=7
    )
    assert role(real_names.gpt_oss_20b(), "model.layers.2.mlp.experts.gate_up_proj_bias") == TensorRole(
        Kind.PROJECTION, 2, Module.MLP, "gate_up", bias=True, experts=32
    )
    assert role(real_names.llama4_scout(), "language_model.model.layers.0.feed_forward.experts.down_proj") == (
        TensorRole(Kind.PROJECTION, 0, Module.MLP, "down", experts=16)
    )
    assert role(real_names.gpt2(), "h.5.attn.c_attn.weight") == TensorRole(
        Kind.PROJECTION, 5, Module.ATTENTION, "qkv", transposed=True
    )
    assert role(real_names.gpt2(), "h.5.attn.c_attn.bias") == TensorRole(
        Kind.PROJECTION, 5, Module.ATTENTION, "qkv", bias=True
    )
    assert role(real_names.gpt2(), "h.5.attn.bias") == TensorRole(Kind.BUFFER, 5)


@pytest.mark.fault(7, "what is not known is told")
def test_fused_layouts_are_told() -> None:
    assert classify(real_names.phi3_mini()).notes == ("fused projections: gate_up, qkv",)
    assert classify(real_names.gpt_oss_20b()).notes == ("fused projections: gate_up", "mixture of experts")


def test_shapes_are_of_any_layer() -> None:
    architecture = classify(real_names.llama3_8b())
    assert len(architecture.layer_tensors(4)) == 9
    assert len(architecture.layer_tensors(4, Module.ATTENTION)) == 4
    assert len(architecture.layer_tensors(4, Module.MLP)) == 3
    assert architecture.layer_tensors(32) == ()


def llama(**config: Any) -> Checkpoint:
    known = real_names.llama32_1b()
    return replace(known, config={**known.config, **config})


@pytest.mark.hostile("config")
@pytest.mark.fault(6, "a config that contradicts its tensors")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_hidden_layers": 32}, "the files hold 16 layers, but config.json states 32"),
        ({"num_attention_heads": 24}, "has 2048 inputs, but config.json states 24 heads"),
        ({"head_dim": 128}, "has 2048 inputs, but config.json states 32 heads of size 128"),
        ({"hidden_size": 1024}, "has 2048 outputs, but config.json states a width of 1024"),
        ({"num_key_value_heads": 4}, "has 512 outputs, but config.json states 4 key/value heads of size 64"),
    ],
)
def test_config_that_contradicts_the_tensors(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        classify(llama(**config))
    assert words in caught.value.problem
    assert "different models" in str(caught.value.remedy)


@pytest.mark.parametrize("missing", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"])
def test_config_may_be_silent(missing: str) -> None:
    known = real_names.llama32_1b()
    architecture = classify(replace(known, config={k: v for k, v in known.config.items() if k != missing}))
    assert architecture.num_layers == 16
    assert architecture.heads == {"num_attention_heads": None, "num_key_value_heads": HeadLayout(32, 32, 64)}.get(
        missing, HeadLayout(32, 8, 64)
    )


@pytest.mark.parametrize("value", [None, [16]])
def test_config_values_for_every_layer_are_no_statement(value: object) -> None:
    assert classify(llama(num_hidden_layers=value, head_dim=value)).num_layers == 16


@pytest.mark.hostile("config")
@pytest.mark.parametrize("value", ["sixteen", "16", "", 16.5, float("inf"), 0, -1, True, False, {"a": 1}])
@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"]
)
def test_config_that_states_no_number(key: str, value: object) -> None:
    with pytest.raises(ArchitectureError, match=f"states {key} .*, which is no number of anything"):
        classify(llama(**{key: value}))


@pytest.mark.fault(7, "tied and untied")
@pytest.mark.parametrize(
    ("tied", "flag", "decided", "words"),
    [
        (True, True, True, None),
        (False, False, False, None),
        (True, None, True, None),
        (False, None, False, None),
        (False, True, False, "says the head is tied to the embedding, but the files hold a head of their own"),
        (True, False, True, "says the head is not tied, but the files hold none"),
    ],
)
def test_tying_is_decided_from_the_tensors(tied: bool, flag: bool | None, decided: bool, words: str | None) -> None:
    checkpoint = real_names.llama32_1b() if tied else real_names.llama3_8b()
    config = {k: v for k, v in checkpoint.config.items() if k != "tie_word_embeddings"}
    architecture = classify(
        replace(checkpoint, config=config if flag is None else {**config, "tie_word_embeddings": flag})
    )
    assert architecture.tied is decided
    assert [words in note for note in architecture.notes if words] == ([True] if words else [])
    assert len(architecture.notes) == (0 if words is None else 1)


PROJECTION = "self_attn.q_proj.weight"


@pytest.mark.fault(7, "what is not known is told")
def test_unknown_tensors_are_listed() -> None:
    names = {f"model.layers.0.{PROJECTION}": (4, 4), "model.layers.0.mixer.strange": (3,), "odd.weight": (2,)}
    architecture = classify(header_only(names, {}))
    assert architecture.unknown == ("model.layers.0.mixer.strange", "odd.weight")
    assert architecture.roles["model.layers.0.mixer.strange"].layer == 0


def test_layer_in_which_nothing_is_known_is_an_error() -> None:
    names = {f"model.layers.0.{PROJECTION}": (4, 4), "model.layers.1.mystery.weight": (4, 4)}
    with pytest.raises(ArchitectureError, match=r"nothing is recognised in layer 1 .*'model.layers.1.mystery.weight'"):
        classify(header_only(names, {}))


@pytest.mark.hostile("config")
@pytest.mark.parametrize("name", ["encoder.block.0.layer.0.SelfAttention.q.weight", "weight", "", "model.layers.x.q"])
def test_no_decoder_layers(name: str) -> None:
    with pytest.raises(ArchitectureError, match="no decoder layers"):
        classify(header_only({name: (4, 4)}, {}))


def test_missing_layer_is_named() -> None:
    names = {f"model.layers.{layer}.{PROJECTION}": (4, 4) for layer in (0, 1, 3, 5)}
    with pytest.raises(ArchitectureError, match="2 layers have no tensors, first 2"):
        classify(header_only(names, {}))


@pytest.mark.hostile("config")
@pytest.mark.parametrize("index", ["99999999999999999999", "²", "٣", "9" * 5000, "-1", "1e3"])
def test_layer_indices_that_are_none(index: str) -> None:
    """Nothing is allocated for them, nothing is counted, and the tensor is listed."""
    names = {f"model.layers.0.{PROJECTION}": (4, 4), f"model.layers.{index}.{PROJECTION}": (4, 4)}
    architecture = classify(header_only(names, {}))
    assert architecture.num_layers == 1
    assert architecture.unknown == (f"model.layers.{index}.{PROJECTION}",)


@pytest.mark.hostile("config")
@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.experts.down_proj"],
)
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 2, 2, 2)])
def test_shapes_that_no_model_has_break_nothing(name: str, shape: tuple[int, ...]) -> None:
    names = {f"model.layers.0.{PROJECTION}": (4, 4), name: shape}
    assert classify(header_only(names, {"num_attention_heads": 2})).num_layers == 1
