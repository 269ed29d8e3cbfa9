"""The families of the coverage table: a tiny config of each, and what is refused of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.architectures.made import text_config, wrapper_config

_MIXER = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
_SIGLIP = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN = {
    "depth": 1,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 16,
    "out_hidden_size": 32,
    "patch_size": 14,
    "deepstack_visual_indexes": [0],
}
_LLAMA4_PICTURES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 28,
    "patch_size": 14,
    "vision_output_dim": 16,
    "projector_input_dim": 16,
    "projector_output_dim": 16,
}

SWAP, MODULES, SPARSE, STEERING = "swap", "module swap", "sparse edit", "head steering"
UNDO, PEFT, AUDIT = "apply, undo", "PEFT export", "generation, audit"

SLOWLY = "heads were patched a layer at a time in full forward passes, which gives the same and takes longer"
SOME_LAYERS = "layers have attention heads, the others none"
NO_HEADS = "no layer has attention heads"
WIDTHS = "layers differ in the width of their heads"
OTHER_MATRICES = "belong to no attention or MLP that is recognised"
ROUTED = "is a mixture of experts without a shared one, and no expert sees all tokens"
SHARED = "its shared expert is edited, the routed ones stay as they are"
NOT_ALL = "have no units that can be edited"
STORED = "is stored input × output, so that units are no rows"
NO_MLP = "has no MLP that is recognised"
EXPERTS = "experts, which run as one tensor"
NAMESAKES = "named like an expert's, which PEFT takes it for"
STATES = "a state space's, which PEFT refuses"


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        title: What its models are called.
        model_type: What transformers calls it.
        given: Fields of its config beside the sizes.
        vision: Config of the part for pictures, None for a text model.
        around: Fields of a wrapper's own config.
        heads: Attention heads of a layer, and the size of one.
        layer: The layer that a sparse edit changes; the last one by default.
        refused: Column -> part of the message that it is refused with.
        notes: Column -> parts of what is said though it works.
    """

    title: str
    model_type: str
    given: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] | None = None
    around: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[int, int] = (4, 8)
    layer: int | Literal["auto"] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        """A tiny config."""
        if self.vision is None:
            return text_config(self.model_type, self.given)
        return wrapper_config(self.model_type, self.given, self.vision, self.around)


_H8 = {"head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_DEEPSEEK = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
}
_GEMMA4 = {
    **_H8,
    "global_head_dim": 16,
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
_SLOW: dict[str, Any] = {"notes": {STEERING: (SLOWLY,)}}
_HYBRID = {STEERING: (SLOWLY, SOME_LAYERS)}
_ROUTED: dict[str, Any] = {"refused": {SPARSE: ROUTED}, "notes": {PEFT: (EXPERTS,)}}
_SHARED: dict[str, Any] = {"notes": {SPARSE: (SHARED,), PEFT: (EXPERTS, NAMESAKES)}}
_STATES: dict[str, Any] = {"refused": {SPARSE: NO_MLP, STEERING: NO_HEADS, PEFT: STATES}}
_LLAMA4: dict[str, Any] = {"notes": {SPARSE: (SHARED,), STEERING: (SLOWLY,), PEFT: (EXPERTS,)}}
FAMILIES = (
    Family("Llama 2, 3", "llama"),
    Family(
        "Llama 4, text",
        "llama4_text",
        {**_H8, **_LOCAL, "intermediate_size_mlp": 48, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2},
        **_LLAMA4,
    ),
    Family("Mistral", "mistral", _H8),
    Family("Ministral", "ministral", _H8),
    Family("Ministral 3", "ministral3", _H8),
    Family("Qwen 2, 2.5", "qwen2"),
    Family("Qwen 3", "qwen3", _H8),
    Family("Gemma 1", "gemma", _H8),
    Family("Gemma 2", "gemma2", _H8),
    Family("Gemma 3, text", "gemma3_text", _H8),
    Family(
        "Gemma 3n, text",
        "gemma3n_text",
        {
            **_H8,
            "intermediate_size": [48, 48],
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 64,
            "laurel_rank": 4,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.0, 0.0],
            "layer_types": ["sliding_attention", "full_attention"],
        },
        refused={MODULES: OTHER_MATRICES},
        **_SLOW,
    ),
    Family(
        "Gemma 4, text",
        "gemma4_text",
        _GEMMA4,
        refused={MODULES: OTHER_MATRICES, STEERING: WIDTHS},
    ),
    Family("Phi 1, 2", "phi"),
    Family("Phi 3, 4", "phi3"),
    Family("Phi 3.5 MoE", "phimoe", _LOCAL, **_ROUTED),
    Family("OLMo", "olmo"),
    Family("OLMo 2", "olmo2"),
    Family("OLMo 3", "olmo3"),
    Family("OLMoE", "olmoe", {**_EXPERTS, "intermediate_size": 16}, **_ROUTED),
    Family("Granite", "granite"),
    Family("Granite MoE", "granitemoe", _LOCAL, **_ROUTED),
    Family(
        "Granite MoE, shared",
        "granitemoeshared",
        {**_LOCAL, "shared_intermediate_size": 24},
        notes={SPARSE: (SHARED,), PEFT: (EXPERTS,)},
    ),
    Family(
        "Granite 4, hybrid",
        "granitemoehybrid",
        {"layer_types": ["mamba", "attention"], "num_local_experts": 2, "shared_intermediate_size": 24, **_MAMBA},
        notes={SPARSE: (SHARED,), PEFT: (EXPERTS, STATES), **_HYBRID},
    ),
    Family("Cohere, Aya", "cohere"),
    Family("Cohere 2", "cohere2", _H8),
    Family("Falcon", "falcon", {"new_decoder_architecture": False, "multi_query": False}, **_SLOW),
    Family("Falcon 40B", "falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, **_SLOW),
    Family("GPT-2", "gpt2", {"n_inner": 48}, refused={SPARSE: STORED}),
    Family("GPT BigCode, StarCoder", "gpt_bigcode", {"n_inner": 48}, **_SLOW),
    Family("GPT Neo", "gpt_neo", {"attention_types": [[["global", "local"], 1]]}, **_SLOW),
    Family("GPT-NeoX, Pythia", "gpt_neox"),
    Family("GPT-J", "gptj", {"rotary_dim": 4, "n_inner": 48}),
    Family("CodeGen", "codegen", {"rotary_dim": 4, "n_inner": 48}),
    Family("BLOOM", "bloom", **_SLOW),
    Family("OPT", "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, **_SLOW),
    Family("XGLM", "xglm", {"ffn_dim": 48}, **_SLOW),
    Family("MPT", "mpt", **_SLOW),
    Family("StableLM", "stablelm"),
    Family("StarCoder 2", "starcoder2"),
    Family("SmolLM 3", "smollm3"),
    Family("GLM 4", "glm", _H8),
    Family("GLM 4 0414", "glm4", _H8),
    Family(
        "GLM 4.5",
        "glm4_moe",
        {
            **_H8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        **_SHARED,
    ),
    Family("Exaone 4", "exaone4", _H8),
    Family("Apertus", "apertus", _H8),
    Family("Nemotron", "nemotron", _H8),
    Family("Arcee", "arcee", _H8),
    Family("Helium", "helium", _H8),
    Family("Hunyuan", "hunyuan_v1_dense", _H8),
    Family("Seed OSS", "seed_oss", _H8),
    Family("Ernie 4.5", "ernie4_5", _H8),
    Family("DiffLlama", "diffllama", _H8, heads=(2, 16), **_SLOW),
    Family("Mixtral", "mixtral", {**_LOCAL, "intermediate_size": 16}, **_ROUTED),
    Family("Qwen 2 MoE", "qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 24}, **_SHARED),
    Family("Qwen 3 MoE", "qwen3_moe", {**_EXPERTS, **_H8}, **_ROUTED),
    Family("DeepSeek V2", "deepseek_v2", {**_DEEPSEEK, "head_dim": 4, "topk_method": "greedy"}, **_SHARED),
    Family("DeepSeek V3", "deepseek_v3", {**_DEEPSEEK}, **_SHARED),
    Family("gpt-oss", "gpt_oss", {**_LOCAL, **_H8, "intermediate_size": 16}, **_ROUTED),
    Family(
        "Qwen 3 Next",
        "qwen3_next",
        {**_MIXER, **_H8, **_EXPERTS, "num_hidden_layers": 4, "shared_expert_intermediate_size": 24},
        notes={SPARSE: (SHARED,), PEFT: (EXPERTS, NAMESAKES), **_HYBRID},
    ),
    Family("Qwen 3.5, text", "qwen3_5_text", {**_MIXER, **_H8, "num_hidden_layers": 4}, notes=_HYBRID),
    Family(
        "LFM 2",
        "lfm2",
        {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "block_auto_adjust_ff_dim": False},
        notes=_HYBRID,
    ),
    Family("Mamba", "mamba", {"state_size": 8}, **_STATES),
    Family(
        "Mamba 2",
        "mamba2",
        {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2, "chunk_size": 8},
        **_STATES,
    ),
    Family(
        "Jamba",
        "jamba",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            **_LOCAL,
            "num_experts": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        layer="auto",
        notes={SPARSE: (NOT_ALL,), PEFT: (EXPERTS, NAMESAKES, STATES), **_HYBRID},
    ),
    Family(
        "Falcon H1",
        "falcon_h1",
        {**_H8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
        notes={STEERING: (SLOWLY,), PEFT: (STATES,)},
    ),
    Family("Bamba", "bamba", {"attn_layer_indices": [1], **_MAMBA}, notes={PEFT: (STATES,), **_HYBRID}),
    Family("Falcon Mamba", "falcon_mamba", {"state_size": 8}, **_STATES),
    Family(
        "Nemotron H",
        "nemotron_h",
        {
            **_H8,
            "layers_block_type": ["mamba", "attention", "mlp"],
            "num_hidden_layers": 3,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
        layer="auto",
        notes={SPARSE: (NOT_ALL,), PEFT: (STATES,), **_HYBRID},
    ),
    Family(
        "OLMo hybrid", "olmo_hybrid", {**_MIXER, "layer_types": ["linear_attention", "full_attention"]}, notes=_HYBRID
    ),
    Family(
        "LFM 2 MoE",
        "lfm2_moe",
        {"layer_types": ["conv", "full_attention"], **_EXPERTS, "num_dense_layers": 1},
        layer="auto",
        notes={SPARSE: (NOT_ALL,), PEFT: (EXPERTS, NAMESAKES), **_HYBRID},
    ),
    Family("MiniMax M2", "minimax_m2", {**_H8, **_LOCAL, "intermediate_size": 16, "rotary_dim": 4}, **_ROUTED),
    Family(
        "Ernie 4.5 MoE",
        "ernie4_5_moe",
        {
            **_H8,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 16,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
        },
        **_SHARED,
    ),
    Family(
        "Hunyuan MoE",
        "hunyuan_v1_moe",
        {**_H8, "num_experts": 4, "moe_topk": [2, 2], "moe_intermediate_size": [16, 16]},
        **_SHARED,
    ),
    Family("EXAONE 3.5", "exaone", _H8),
    Family("InternLM 3", "internlm3", _H8),
    Family("Persimmon", "persimmon"),
    Family("Gemma 3", "gemma3", _H8, _SIGLIP, {"mm_tokens_per_image": 4}),
    Family(
        "Gemma 4",
        "gemma4",
        _GEMMA4,
        _SIGLIP,
        refused={MODULES: OTHER_MATRICES, STEERING: WIDTHS},
    ),
    Family("Qwen 3 VL MoE", "qwen3_vl_moe", {**_H8, **_EXPERTS}, _QWEN, **_ROUTED),
    Family(
        "Qwen 3.5 MoE",
        "qwen3_5_moe",
        {**_MIXER, **_H8, **_EXPERTS, "num_hidden_layers": 4, "shared_expert_intermediate_size": 24},
        _QWEN,
        notes={SPARSE: (SHARED,), PEFT: (EXPERTS, NAMESAKES), **_HYBRID},
    ),
    Family(
        "Qwen 2.5 VL",
        "qwen2_5_vl",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
        _QWEN,
    ),
    Family("Qwen 3 VL", "qwen3_vl", _H8, _QWEN),
    Family("Qwen 3.5", "qwen3_5", {**_MIXER, **_H8, "num_hidden_layers": 4}, _QWEN, notes=_HYBRID),
    Family(
        "Mistral 3", "mistral3", {"model_type": "mistral", **_H8}, {**_SIGLIP, "model_type": "pixtral", "head_dim": 8}
    ),
    Family(
        "Llama 4",
        "llama4",
        {**_H8, **_LOCAL, "intermediate_size_mlp": 48, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2},
        _LLAMA4_PICTURES,
        **_LLAMA4,
    ),
)
