"""Tiny random checkpoints in the layouts that polysafe has to know.

Everything is written as plain tensors and a config, without a model class, so that a test pays milliseconds.
`tests/methods/test_models.py` proves once per family that transformers loads what is written here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 16, 24, 4, 2, 4, 2
POSITIONS = 64
QUERY, KEY = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM

Shapes = dict[str, tuple[int, ...]]
Profile = Callable[[str], float]

_LLAMA_CONFIG: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_QKV_BIASES: Shapes = {
    "self_attn.q_proj.bias": (QUERY,),
    "self_attn.k_proj.bias": (KEY,),
    "self_attn.v_proj.bias": (KEY,),
}
_QK_NORMS: Shapes = {"self_attn.q_norm.weight": (HEAD_DIM,), "self_attn.k_norm.weight": (HEAD_DIM,)}
_ATTENTION: Shapes = {
    "self_attn.q_proj.weight": (QUERY, HIDDEN),
    "self_attn.k_proj.weight": (KEY, HIDDEN),
    "self_attn.v_proj.weight": (KEY, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, QUERY),
}
_MLP: Shapes = {
    "mlp.gate_proj.weight": (INNER, HIDDEN),
    "mlp.up_proj.weight": (INNER, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, INNER),
}
_NORMS: Shapes = {"input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
_GEMMA_NORMS: Shapes = {
    "pre_feedforward_layernorm.weight": (HIDDEN,),
    "post_feedforward_layernorm.weight": (HIDDEN,),
}


def _per_expert(prefix: str, gate: str, up: str, down: str) -> Shapes:
    slices: Shapes = {}
    for expert in range(EXPERTS):
        slices[f"{prefix}.{expert}.{gate}.weight"] = (INNER, HIDDEN)
        slices[f"{prefix}.{expert}.{up}.weight"] = (INNER, HIDDEN)
        slices[f"{prefix}.{expert}.{down}.weight"] = (HIDDEN, INNER)
    return slices


@dataclass(frozen=True)
class Family:
    """One layout: names and shapes of a layer and of what surrounds the layers."""

    config: Mapping[str, Any]
    layer: Shapes
    prefix: str = "model.layers"
    embedding: str = "model.embed_tokens.weight"
    head: str = "lm_head.weight"
    others: Mapping[str, tuple[int, ...]] | None = None
    layer_count_key: str = "num_hidden_layers"
    tied: bool = False

    def shapes(self, layers: int, vocab: int, tied: bool) -> Shapes:
        found: Shapes = {self.embedding: (vocab, HIDDEN)}
        for layer in range(layers):
            found |= {f"{self.prefix}.{layer}.{name}": shape for name, shape in self.layer.items()}
        found |= {"model.norm.weight": (HIDDEN,)} if self.others is None else dict(self.others)
        return found if tied else found | {self.head: (vocab, HIDDEN)}


def _llama_like(model_type: str, architecture: str, layer: Shapes, **config: Any) -> Family:
    tied = config.pop("tied", False)
    about = {"model_type": model_type, "architectures": [architecture]}
    return Family(config=_LLAMA_CONFIG | about | config, layer=layer, tied=tied)


_GPT2 = Family(
    config={
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": HIDDEN,
        "n_head": HEADS,
        "n_inner": INNER,
        "n_positions": POSITIONS,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    layer={
        "ln_1.weight": (HIDDEN,),
        "ln_1.bias": (HIDDEN,),
        "attn.c_attn.weight": (HIDDEN, 3 * HIDDEN),
        "attn.c_attn.bias": (3 * HIDDEN,),
        "attn.c_proj.weight": (HIDDEN, HIDDEN),
        "attn.c_proj.bias": (HIDDEN,),
        "ln_2.weight": (HIDDEN,),
        "ln_2.bias": (HIDDEN,),
        "mlp.c_fc.weight": (HIDDEN, INNER),
        "mlp.c_fc.bias": (INNER,),
        "mlp.c_proj.weight": (INNER, HIDDEN),
        "mlp.c_proj.bias": (HIDDEN,),
    },
    prefix="transformer.h",
    embedding="transformer.wte.weight",
    others={
        "transformer.wpe.weight": (POSITIONS, HIDDEN),
        "transformer.ln_f.weight": (HIDDEN,),
        "transformer.ln_f.bias": (HIDDEN,),
    },
    layer_count_key="n_layer",
    tied=True,
)
_GPT_NEOX = Family(
    config={
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    layer={
        "input_layernorm.weight": (HIDDEN,),
        "input_layernorm.bias": (HIDDEN,),
        "post_attention_layernorm.weight": (HIDDEN,),
        "post_attention_layernorm.bias": (HIDDEN,),
        "attention.query_key_value.weight": (3 * HIDDEN, HIDDEN),
        "attention.query_key_value.bias": (3 * HIDDEN,),
        "attention.dense.weight": (HIDDEN, HIDDEN),
        "attention.dense.bias": (HIDDEN,),
        "mlp.dense_h_to_4h.weight": (INNER, HIDDEN),
        "mlp.dense_h_to_4h.bias": (INNER,),
        "mlp.dense_4h_to_h.weight": (HIDDEN, INNER),
        "mlp.dense_4h_to_h.bias": (HIDDEN,),
    },
    prefix="gpt_neox.layers",
    embedding="gpt_neox.embed_in.weight",
    head="embed_out.weight",
    others={"gpt_neox.final_layer_norm.weight": (HIDDEN,), "gpt_neox.final_layer_norm.bias": (HIDDEN,)},
)

FAMILIES: dict[str, Family] = {
    "llama": _llama_like("llama", "LlamaForCausalLM", _NORMS | _ATTENTION | _MLP),
    "qwen2": _llama_like("qwen2", "Qwen2ForCausalLM", _NORMS | _ATTENTION | _QKV_BIASES | _MLP),
    "qwen3": _llama_like("qwen3", "Qwen3ForCausalLM", _NORMS | _ATTENTION | _QK_NORMS | _MLP),
    "gemma2": _llama_like("gemma2", "Gemma2ForCausalLM", _NORMS | _GEMMA_NORMS | _ATTENTION | _MLP, tied=True),
    "phi3": _llama_like(
        "phi3",
        "Phi3ForCausalLM",
        _NORMS
        | {
            "self_attn.qkv_proj.weight": (QUERY + 2 * KEY, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, QUERY),
            "mlp.gate_up_proj.weight": (2 * INNER, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, INNER),
        },
    ),
    "mixtral": _llama_like(
        "mixtral",
        "MixtralForCausalLM",
        _NORMS
        | _ATTENTION
        | {"block_sparse_moe.gate.weight": (EXPERTS, HIDDEN)}
        | _per_expert("block_sparse_moe.experts", "w1", "w3", "w2"),
        num_local_experts=EXPERTS,
        num_experts_per_tok=1,
    ),
    "qwen3_moe": _llama_like(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        _NORMS
        | _ATTENTION
        | _QK_NORMS
        | {"mlp.gate.weight": (EXPERTS, HIDDEN)}
        | _per_expert("mlp.experts", "gate_proj", "up_proj", "down_proj"),
        num_experts=EXPERTS,
        num_experts_per_tok=1,
        moe_intermediate_size=INNER,
    ),
    # gpt-oss: one 3-D tensor holds all experts of a layer
    "gpt_oss": _llama_like(
        "gpt_oss",
        "GptOssForCausalLM",
        _NORMS
        | _ATTENTION
        | _QKV_BIASES
        | {
            "self_attn.o_proj.bias": (HIDDEN,),
            "self_attn.sinks": (HEADS,),
            "mlp.router.weight": (EXPERTS, HIDDEN),
            "mlp.router.bias": (EXPERTS,),
            "mlp.experts.gate_up_proj": (EXPERTS, HIDDEN, 2 * INNER),
            "mlp.experts.gate_up_proj_bias": (EXPERTS, 2 * INNER),
            "mlp.experts.down_proj": (EXPERTS, INNER, HIDDEN),
            "mlp.experts.down_proj_bias": (EXPERTS, HIDDEN),
        },
        num_local_experts=EXPERTS,
        num_experts_per_tok=1,
    ),
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
}


@dataclass(frozen=True)
class TinyModel:
    """A model as plain tensors and a config; nothing on disk yet."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]

    def updated(self, seed: int, size: Profile) -> TinyModel:
        """The model after an update of exactly the relative Frobenius size that `size(name)` asks for."""
        generator = torch.Generator().manual_seed(seed)
        moved = {n: _moved(t, size(n), generator) for n, t in self.tensors.items()}
        return replace(self, tensors=moved)

    def to(self, dtype: torch.dtype) -> TinyModel:
        """The same values in another storage type."""
        config = self.config | {"dtype": str(dtype).removeprefix("torch.")}
        return TinyModel({name: tensor.to(dtype) for name, tensor in self.tensors.items()}, config)

    def save(self, folder: Path, *, shards: int = 1) -> Path:
        """Write config, tokenizer and weights into `folder` (made if missing) and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", self.config)
        _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
        write_tokenizer(folder, self.config["vocab_size"])
        write_weights(folder, self.tensors, shards=shards)
        return folder


@dataclass(frozen=True)
class Trio:
    """Folders of a base model and of its two specialised descendants."""

    base: Path
    safety: Path
    language: Path

    @property
    def paths(self) -> dict[str, Path]:
        """Source name (`base`, `safety`, `sw`) to folder, as the recipes in the tests name them."""
        return {"base": self.base, "safety": self.safety, "sw": self.language}


def tiny_model(
    family: str = "llama",
    *,
    seed: int = 0,
    layers: int = 4,
    tied: bool | None = None,
    vocab: int = 40,
    dtype: torch.dtype = torch.bfloat16,
) -> TinyModel:
    """A random model of one of `FAMILIES`; norms are near 1, biases small and non-zero."""
    layout = FAMILIES[family]
    tied = layout.tied if tied is None else tied
    generator = torch.Generator().manual_seed(seed)
    tensors = {n: _initial(n, s, generator) for n, s in layout.shapes(layers, vocab, tied).items()}
    config = dict(layout.config) | {
        "vocab_size": vocab,
        layout.layer_count_key: layers,
        "tie_word_embeddings": tied,
    }
    return TinyModel(tensors, config).to(dtype)


def tiny_llama(folder: Path, *, seed: int = 0, layers: int = 4, tied: bool = False, shards: int = 1) -> Path:
    """Write a random bf16 Llama checkpoint and return its folder."""
    return tiny_model("llama", seed=seed, layers=layers, tied=tied).save(folder, shards=shards)


def trio(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    layers: int = 4,
    tied: bool | None = None,
    dtype: torch.dtype = torch.bfloat16,
    safety: Profile | None = None,
    language: Profile | None = None,
    shards: int = 1,
) -> Trio:
    """Write base, safety expert and language expert into `folder` as `base`, `safety` and `sw`.

    Without profiles the safety expert moved most around 45 % depth and the language expert at both ends, so
    that all three decisions of the swapping rule occur in models of at least eight layers.
    """
    base = tiny_model(family, seed=seed, layers=layers, tied=tied, dtype=dtype)
    experts = {
        "safety": base.updated(seed + 1001, safety or bump(layers)),
        "sw": base.updated(seed + 2002, language or bowl(layers)),
    }
    paths = [model.save(folder / name, shards=shards) for name, model in {"base": base, **experts}.items()]
    return Trio(*paths)


def write_adapter(folder: Path, base: TinyModel, *, seed: int = 0, rank: int = 3, alpha: float = 6.0) -> Path:
    """Write a LoRA adapter for all projections of `base`, in PEFT's form, and return its folder."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, torch.Tensor] = {}
    for name, tensor in base.tensors.items():
        if name.endswith("_proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{module}.lora_A.weight"] = 0.05 * torch.randn(rank, tensor.shape[1], generator=generator)
            factors[f"{module}.lora_B.weight"] = 0.05 * torch.randn(tensor.shape[0], rank, generator=generator)
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none"})
    return folder


def bump(layers: int, *, size: float = 0.05, height: float = 0.25) -> Profile:
    """Update sizes of a safety expert: `size`, raised by `height` around 45 % depth, attention a bit more."""

    def profile(name: str) -> float:
        depth = _depth(name, layers)
        rise = 0.0 if depth is None else height * math.exp(-(((depth - 0.47) / 0.25) ** 2))
        return size * (1 + rise) * (1.03 if "attn" in name or "attention" in name else 1.0)

    return profile


def bowl(layers: int, *, size: float = 0.08, height: float = 0.25) -> Profile:
    """Update sizes of a language expert: `size`, raised by up to `height` towards both ends."""

    def profile(name: str) -> float:
        depth = _depth(name, layers)
        rise = 0.0 if depth is None else height * (2 * depth - 0.94) ** 2
        return size * (1 + rise)

    return profile


def layer_of(name: str) -> int | None:
    """The layer index in a tensor's name; None outside the layers."""
    found = re.search(r"\.(?:layers|h)\.(\d+)\.", name)
    return None if found is None else int(found.group(1))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint folder, in memory."""
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor], *, shards: int = 1) -> None:
    """Write one safetensors file, or `shards` files and their index."""
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {
        n: f"model-{1 + i * shards // len(names):05d}-of-{shards:05d}.safetensors" for i, n in enumerate(names)
    }
    for file in sorted(set(weight_map.values())):
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


def write_tokenizer(folder: Path, vocab: int, *, first_word: int = 3) -> None:
    """Write a word-level tokenizer of `vocab` entries: three special tokens and w3, w4, …"""
    special = ["<pad>", "<s>", "</s>"]
    words = special + [f"w{first_word + i}" for i in range(vocab - len(special))]
    added = [
        {
            "id": i,
            "content": t,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, t in enumerate(special)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words)}, "unk_token": "<pad>"},
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    _write_json(folder / "tokenizer_config.json", about)


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if "norm" in name or ".ln_" in name:
        return (0.0 if name.endswith("bias") else 1.0) + 0.1 * noise
    return noise / math.sqrt(HIDDEN)


def _moved(tensor: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    exact = tensor.double()
    step = size * exact.norm() / noise.norm()
    moved: torch.Tensor = exact + step * noise
    return moved.to(tensor.dtype)


def _depth(name: str, layers: int) -> float | None:
    layer = layer_of(name)
    return None if layer is None else layer / max(layers - 1, 1)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
