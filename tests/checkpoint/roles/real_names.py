"""Names and shapes of released models, as their files state them."""

from __future__ import annotations

from polysafe.checkpoint.source import Checkpoint
from tests.checkpoint.raw import Json, Shapes, header_only


def _layers(prefix: str, count: int, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{layer}.{name}": shape for layer in range(count) for name, shape in shapes.items()}


def _decoder(
    hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int, *, norms: tuple[str, ...] = ()
) -> dict[str, tuple[int, ...]]:
    between = ("input_layernorm", "post_attention_layernorm", *norms)
    return {
        "self_attn.q_proj.weight": (heads * head_dim, hidden),
        "self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.o_proj.weight": (hidden, heads * head_dim),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        **{f"{norm}.weight": (hidden,) for norm in between},
    }


def _around(vocabulary: int, hidden: int, *, tied: bool = False, root: str = "model") -> dict[str, tuple[int, ...]]:
    ends = {f"{root}.embed_tokens.weight": (vocabulary, hidden), f"{root}.norm.weight": (hidden,)}
    return ends if tied else ends | {"lm_head.weight": (vocabulary, hidden)}


def _config(layers: int, heads: int, kv_heads: int, **others: object) -> Json:
    return {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, **others}


def llama3_8b() -> Checkpoint:
    layers = _layers("model.layers", 32, _decoder(4096, 14336, 32, 8, 128))
    return header_only(layers | _around(128256, 4096), _config(32, 32, 8, tie_word_embeddings=False))


def llama32_1b() -> Checkpoint:
    layers = _layers("model.layers", 16, _decoder(2048, 8192, 32, 8, 64))
    config = _config(16, 32, 8, head_dim=64, tie_word_embeddings=True)
    return header_only(layers | _around(128256, 2048, tied=True), config)


def qwen2_7b() -> Checkpoint:
    biases = {f"self_attn.{p}_proj.bias": (size,) for p, size in (("q", 3584), ("k", 512), ("v", 512))}
    layers = _layers("model.layers", 28, _decoder(3584, 18944, 28, 4, 128) | biases)
    return header_only(layers | _around(152064, 3584), _config(28, 28, 4, tie_word_embeddings=False))


def qwen3_8b() -> Checkpoint:
    norms = {"self_attn.q_norm.weight": (128,), "self_attn.k_norm.weight": (128,)}
    layers = _layers("model.layers", 36, _decoder(4096, 12288, 32, 8, 128) | norms)
    return header_only(layers | _around(151936, 4096), _config(36, 32, 8, head_dim=128, tie_word_embeddings=False))


def gemma2_9b() -> Checkpoint:
    """Head size 256 although width / heads is 224."""
    shapes = _decoder(3584, 14336, 16, 8, 256, norms=("pre_feedforward_layernorm", "post_feedforward_layernorm"))
    layers = _layers("model.layers", 42, shapes)
    return header_only(layers | _around(256000, 3584, tied=True), _config(42, 16, 8, head_dim=256))


def phi3_mini() -> Checkpoint:
    shapes = {
        "self_attn.qkv_proj.weight": (9216, 3072),
        "self_attn.o_proj.weight": (3072, 3072),
        "mlp.gate_up_proj.weight": (16384, 3072),
        "mlp.down_proj.weight": (3072, 8192),
        "input_layernorm.weight": (3072,),
        "post_attention_layernorm.weight": (3072,),
    }
    return header_only(_layers("model.layers", 32, shapes) | _around(32064, 3072), _config(32, 32, 32))


def mixtral_8x7b() -> Checkpoint:
    experts = {
        f"block_sparse_moe.experts.{expert}.{w}.weight": (4096, 14336) if w == "w2" else (14336, 4096)
        for expert in range(8)
        for w in ("w1", "w2", "w3")
    }
    attention = {n: s for n, s in _decoder(4096, 1, 32, 8, 128).items() if not n.startswith("mlp")}
    shapes = attention | experts | {"block_sparse_moe.gate.weight": (8, 4096)}
    return header_only(_layers("model.layers", 32, shapes) | _around(32000, 4096), _config(32, 32, 8))


def qwen3_30b_a3b() -> Checkpoint:
    experts = {
        f"mlp.experts.{expert}.{part}_proj.weight": (2048, 768) if part == "down" else (768, 2048)
        for expert in range(128)
        for part in ("gate", "up", "down")
    }
    attention = {n: s for n, s in _decoder(2048, 1, 32, 4, 128).items() if not n.startswith("mlp")}
    norms = {"self_attn.q_norm.weight": (128,), "self_attn.k_norm.weight": (128,)}
    shapes = attention | norms | experts | {"mlp.gate.weight": (128, 2048)}
    layers = _layers("model.layers", 4, shapes)  # of 48
    return header_only(layers | _around(151936, 2048), _config(4, 32, 4, head_dim=128))


def llama4_scout() -> Checkpoint:
    """Fused experts and a shared one, under `feed_forward`, in a multimodal wrapper."""
    attention = {n: s for n, s in _decoder(5120, 1, 40, 8, 128).items() if not n.startswith("mlp")}
    mixture = {
        "feed_forward.router.weight": (16, 5120),
        "feed_forward.experts.gate_up_proj": (16, 5120, 16384),
        "feed_forward.experts.down_proj": (16, 8192, 5120),
        "feed_forward.shared_expert.gate_proj.weight": (8192, 5120),
        "feed_forward.shared_expert.up_proj.weight": (8192, 5120),
        "feed_forward.shared_expert.down_proj.weight": (5120, 8192),
    }
    text = _layers("language_model.model.layers", 48, attention | mixture)
    outside = {f"language_model.{name}": shape for name, shape in _around(202048, 5120).items()}
    vision = _layers("vision_model.model.layers", 34, {"self_attn.q_proj.weight": (1408, 1408), "mlp.fc1.bias": (1,)})
    wrapper = {"multi_modal_projector.linear_1.weight": (5120, 4096), "vision_model.layernorm_post.weight": (1408,)}
    return header_only(text | outside | vision | wrapper, {"text_config": _config(48, 40, 8, head_dim=128)})


def gpt_oss_20b() -> Checkpoint:
    """Fused experts with biases, in their unquantised form."""
    shapes = {
        "self_attn.q_proj.weight": (4096, 2880),
        "self_attn.q_proj.bias": (4096,),
        "self_attn.k_proj.weight": (512, 2880),
        "self_attn.k_proj.bias": (512,),
        "self_attn.v_proj.weight": (512, 2880),
        "self_attn.v_proj.bias": (512,),
        "self_attn.o_proj.weight": (2880, 4096),
        "self_attn.o_proj.bias": (2880,),
        "self_attn.sinks": (64,),
        "mlp.router.weight": (32, 2880),
        "mlp.router.bias": (32,),
        "mlp.experts.gate_up_proj": (32, 2880, 5760),
        "mlp.experts.gate_up_proj_bias": (32, 5760),
        "mlp.experts.down_proj": (32, 2880, 2880),
        "mlp.experts.down_proj_bias": (32, 2880),
        "input_layernorm.weight": (2880,),
        "post_attention_layernorm.weight": (2880,),
    }
    layers = _layers("model.layers", 24, shapes)
    return header_only(layers | _around(201088, 2880), _config(24, 64, 8, head_dim=64))


def gpt2() -> Checkpoint:
    """The published file has no `transformer.` before its names and stores the causal mask."""
    shapes = {
        "attn.bias": (1, 1, 1024, 1024),
        "attn.c_attn.weight": (768, 2304),
        "attn.c_attn.bias": (2304,),
        "attn.c_proj.weight": (768, 768),
        "attn.c_proj.bias": (768,),
        "mlp.c_fc.weight": (768, 3072),
        "mlp.c_fc.bias": (3072,),
        "mlp.c_proj.weight": (3072, 768),
        "mlp.c_proj.bias": (768,),
        "ln_1.weight": (768,),
        "ln_1.bias": (768,),
        "ln_2.weight": (768,),
        "ln_2.bias": (768,),
    }
    outside = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768), "ln_f.weight": (768,), "ln_f.bias": (768,)}
    return header_only(_layers("h", 12, shapes) | outside, {"n_layer": 12, "n_head": 12}, dtype="F32")


def pythia_160m() -> Checkpoint:
    shapes = {
        "attention.bias": (1, 1, 2048, 2048),
        "attention.masked_bias": (),
        "attention.rotary_emb.inv_freq": (8,),
        "attention.query_key_value.weight": (2304, 768),
        "attention.query_key_value.bias": (2304,),
        "attention.dense.weight": (768, 768),
        "attention.dense.bias": (768,),
        "mlp.dense_h_to_4h.weight": (3072, 768),
        "mlp.dense_h_to_4h.bias": (3072,),
        "mlp.dense_4h_to_h.weight": (768, 3072),
        "mlp.dense_4h_to_h.bias": (768,),
        "input_layernorm.weight": (768,),
        "input_layernorm.bias": (768,),
        "post_attention_layernorm.weight": (768,),
        "post_attention_layernorm.bias": (768,),
    }
    outside = {
        "gpt_neox.embed_in.weight": (50304, 768),
        "gpt_neox.final_layer_norm.weight": (768,),
        "gpt_neox.final_layer_norm.bias": (768,),
        "embed_out.weight": (50304, 768),
    }
    config = {"num_hidden_layers": 12, "num_attention_heads": 12, "tie_word_embeddings": False}
    return header_only(_layers("gpt_neox.layers", 12, shapes) | outside, config, dtype="F16")


def llava_15() -> Checkpoint:
    """The tower lies below the same root as the layers, and its own norm is not the model's last."""
    text = _layers("model.layers", 32, _decoder(4096, 11008, 32, 32, 128)) | _around(32064, 4096)
    tower = "model.vision_tower.vision_model"
    vision = _layers(f"{tower}.encoder.layers", 24, {"self_attn.q_proj.weight": (1024, 1024), "mlp.fc1.bias": (4096,)})
    others = {
        f"{tower}.embeddings.position_embedding.weight": (577, 1024),
        f"{tower}.post_layernorm.weight": (1024,),
        "model.mm_projector.0.weight": (4096, 1024),
    }
    return header_only(text | vision | others, {"text_config": _config(32, 32, 32)})


def qwen25_vl_7b() -> Checkpoint:
    text = _layers("model.language_model.layers", 28, _decoder(3584, 18944, 28, 4, 128))
    outside = _around(152064, 3584, root="model.language_model")
    vision = _layers("model.visual.blocks", 32, {"attn.qkv.weight": (3840, 1280), "mlp.gate_proj.weight": (3420, 1280)})
    merger = {"model.visual.merger.ln_q.weight": (1280,), "model.visual.merger.mlp.0.weight": (5120, 5120)}
    return header_only(text | outside | vision | merger, {"text_config": _config(28, 28, 4)})


def bloom_560m() -> Checkpoint:
    """Its embedding has a norm of its own."""
    shapes = {
        "self_attention.query_key_value.weight": (3072, 1024),
        "self_attention.dense.weight": (1024, 1024),
        "mlp.dense_h_to_4h.weight": (4096, 1024),
        "mlp.dense_4h_to_h.weight": (1024, 4096),
        "input_layernorm.weight": (1024,),
        "post_attention_layernorm.weight": (1024,),
    }
    outside = {
        "transformer.word_embeddings.weight": (250880, 1024),
        "transformer.word_embeddings_layernorm.weight": (1024,),
        "transformer.ln_f.weight": (1024,),
    }
    return header_only(_layers("transformer.h", 24, shapes) | outside, {"n_layer": 24, "n_head": 16})


def qwen3_next() -> Checkpoint:
    """Three of four layers have linear attention, with heads of another size."""
    linear = {
        "linear_attn.in_proj_qkvz.weight": (12288, 2048),
        "linear_attn.out_proj.weight": (2048, 4096),
        "linear_attn.norm.weight": (128,),
        "linear_attn.A_log": (32,),
    }
    mlp = {n: s for n, s in _decoder(2048, 512, 1, 1, 1).items() if not n.startswith("self_attn")}
    full = {n: s for n, s in _decoder(2048, 512, 8, 2, 256).items() if n.startswith("self_attn")}
    layers = _layers("model.layers", 3, linear | mlp)
    layers |= {f"model.layers.3.{name}": shape for name, shape in (full | mlp).items()}
    return header_only(layers | _around(151936, 2048), _config(4, 8, 2, head_dim=256))
