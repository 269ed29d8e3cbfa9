"""What each tensor of a checkpoint is for, told from its name and shape.

No model class is loaded and no list of tensors is demanded: the header is the truth, names are read by the tables
below, and the config only has to agree. A family that is not in the tables is copied and listed as unknown; a layer in
which nothing at all is recognised is an error, because a method that silently skips it would return a half edited
model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.source import Checkpoint
from polysafe.errors import ArchitectureError


class Kind(StrEnum):
    """The part that a tensor plays in a decoder."""

    PROJECTION = "projection"
    NORM = "norm"
    ROUTER = "router"
    EMBEDDING = "embedding"
    POSITION = "position"
    FINAL_NORM = "final_norm"
    HEAD = "head"
    BUFFER = "buffer"
    UNKNOWN = "unknown"


class Module(StrEnum):
    """The two blocks of a decoder layer."""

    ATTENTION = "attention"
    MLP = "mlp"


@dataclass(frozen=True, slots=True)
class TensorRole:
    """The role of one tensor.

    Attributes:
        kind: Its part.
        layer: Index of its layer, None outside the layers.
        module: The block of the layer it belongs to, None for the norms between the blocks.
        projection: `q k v o qkv gate up down gate_up fc_in fc_out`, None if it is no projection. The output of a
            mixer without attention heads (linear attention, a state space) is `mixed`, not `o`.
        bias: Whether it is the bias of that projection.
        experts: Number of experts stored along its first axis, None if it holds no stack of experts.
        expert: Index of the expert it belongs to when experts are stored as tensors of their own.
        transposed: Whether a matrix is stored input × output (GPT-2's Conv1D) instead of output × input.
    """

    kind: Kind
    layer: int | None = None
    module: Module | None = None
    projection: str | None = None
    bias: bool = False
    experts: int | None = None
    expert: int | None = None
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """Attention heads: query heads, key/value heads, and the size of one."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Architecture:
    """The roles of all tensors of a checkpoint.

    Attributes:
        prefix: What precedes the layer index in tensor names, for example `model.layers`.
        num_layers: Number of decoder layers.
        roles: The role of every tensor.
        tied: Whether the output head is the embedding.
        heads: Head layout, None where the config does not state it.
        vocabulary: Rows of the embedding, None if there is none.
        unknown: Tensors that no table knows.
        notes: Findings worth telling: tied flag and tensors that disagree, fused layouts, and so on.
        unplaced: Matrices of layers that belong to no attention or MLP that is known.
    """

    prefix: str
    num_layers: int
    roles: Mapping[str, TensorRole]
    tied: bool
    heads: HeadLayout | None
    vocabulary: int | None
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    unplaced: tuple[str, ...] = ()

    @cached_property
    def with_heads(self) -> tuple[int, ...]:
        """Layers whose attention has heads, which is all of them but in hybrids; told by their output projections."""
        outputs = {
            role.layer
            for role in self.roles.values()
            if role.layer is not None and role.module is Module.ATTENTION and role.projection == "o" and not role.bias
        }
        return tuple(sorted(outputs))

    def layer_tensors(self, layer: int, module: Module | None = None) -> tuple[str, ...]:
        """Names of the tensors of a layer, or of one of its blocks."""
        return tuple(
            name
            for name, role in self.roles.items()
            if role.layer == layer and (module is None or role.module is module)
        )


_ATTENTION_CONTAINERS = frozenset(
    {"self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer", "mamba", "conv"}
)
"""What mixes tokens; in hybrids that is also linear attention, a state space or a convolution."""
_MLP_CONTAINERS = frozenset(
    {"mlp", "feed_forward", "ffn", "block_sparse_moe", "moe", "shared_expert", "shared_mlp", "experts"}
)
_BARE_MLP = frozenset({"fc1", "fc2"})
"""Projections that some families (OPT, XGLM) have in the layer itself."""

_PROJECTIONS: dict[Module, dict[str, frozenset[str]]] = {
    Module.ATTENTION: {
        "q": frozenset({"q_proj", "wq"}),
        "k": frozenset({"k_proj", "wk"}),
        "v": frozenset({"v_proj", "wv"}),
        "o": frozenset({"o_proj", "wo", "out_proj", "dense", "c_proj"}),
        "qkv": frozenset({"qkv_proj", "query_key_value", "Wqkv", "c_attn"}),
    },
    Module.MLP: {
        "gate": frozenset({"gate_proj", "w1", "c_fc_0"}),
        "up": frozenset({"up_proj", "w3", "c_fc_1"}),
        "down": frozenset({"down_proj", "w2", "output_linear"}),
        "gate_up": frozenset({"gate_up_proj", "input_linear"}),
        "fc_in": frozenset({"fc1", "c_fc", "dense_h_to_4h", "fc_in"}),
        "fc_out": frozenset({"fc2", "c_proj", "dense_4h_to_h", "fc_out"}),
    },
}
_GATED = frozenset({"gate_proj", "up_proj", "down_proj"})
_CONV1D = frozenset({"c_attn", "c_proj", "c_fc"})
"""Names of matrices that GPT-2 stores input × output, and other families under the same names output × input."""
_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt"})
_PAIRED_HEADS = frozenset({"diffllama"})
"""Models whose heads are differences of two attentions: half as many as the config states, and twice as wide."""
_RECURRENT = frozenset({"A_log", "conv", "conv1d", "dt_bias"})
"""What a mixer without attention heads has."""
_ROUTERS = frozenset({"router", "gate", "shared_expert_gate"})
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"})
_POSITIONS = frozenset({"wpe", "embed_positions"})
_HEADS = frozenset({"lm_head", "embed_out"})
_BUFFERS = ("rotary_emb.inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")
_FETCH_BOTH = "config and weights belong to different models; fetch both again"
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)(?=\.[0-9]{1,4}\.)")
_INDEX = re.compile(r"\.([0-9]{1,4})\.")


def classify(checkpoint: Checkpoint) -> Architecture:
    """Tells the role of every tensor and cross-checks layers, heads and tying with the config.

    Raises:
        ArchitectureError: No layers are found, the config contradicts the tensors, or a layer has no tensor that is
            recognised.
    """
    specs = checkpoint.tensors
    prefix = _layer_prefix(checkpoint)
    roles = {name: _role(name, spec, prefix) for name, spec in specs.items()}
    roles = _stored_as_made(checkpoint, _headless(checkpoint, roles, prefix))
    layers = sorted({role.layer for role in roles.values() if role.layer is not None})
    num_layers = _check_layers(checkpoint, roles, layers)
    tied, tie_notes = _tied(checkpoint, roles)
    unknown = tuple(name for name, role in roles.items() if role.kind is Kind.UNKNOWN)
    vocabulary = next((specs[n].shape[0] for n, role in roles.items() if _is_table(specs[n], role)), None)
    notes = (*checkpoint.notes, *tie_notes, *_layout_notes(roles))
    unplaced = tuple(name for name in unknown if _is_left(specs[name], roles[name]))
    return Architecture(
        prefix, num_layers, roles, tied, _heads(checkpoint, roles), vocabulary, unknown, notes, unplaced
    )


def _is_left(spec: TensorSpec, role: TensorRole) -> bool:
    return role.layer is not None and role.module is None and len(spec.shape) > 1


def _is_table(spec: TensorSpec, role: TensorRole) -> bool:
    return role.kind is Kind.EMBEDDING and len(spec.shape) == 2


def _layer_prefix(checkpoint: Checkpoint) -> str:
    """The numbered container with the most tensors: towers of other modalities are smaller and stay unknown."""
    counts: dict[str, int] = {}
    for name in checkpoint.tensors:
        found = _LAYER.search(name)
        if found:
            prefix = name[: found.end()]
            counts[prefix] = counts.get(prefix, 0) + 1
    text = {prefix: n for prefix, n in counts.items() if not re.search(r"vision|visual|audio|encoder", prefix)}
    if not text:
        raise ArchitectureError(
            "no decoder layers are recognised in the tensor names",
            where=checkpoint.root,
            remedy="polysafe looks for names such as model.layers.0.… or transformer.h.0.…",
        )
    return max(text, key=lambda prefix: text[prefix])


def _role(name: str, spec: TensorSpec, prefix: str) -> TensorRole:
    if name.endswith(_BUFFERS):
        return TensorRole(Kind.BUFFER, _layer_of(name, prefix))
    layer = _layer_of(name, prefix)
    if layer is None:
        return _outside_role(name, prefix)
    return _inside_role(name[len(prefix) + 1 :].split(".")[1:], spec, layer)


def _layer_of(name: str, prefix: str) -> int | None:
    found = _INDEX.match(name, len(prefix)) if name.startswith(prefix) else None
    return int(found[1]) if found else None


def _outside_role(name: str, prefix: str) -> TensorRole:
    path, _, owner = re.sub(r"\.(weight|bias)$", "", name).rpartition(".")
    if owner in _HEADS:
        return TensorRole(Kind.HEAD)
    if path != prefix.rpartition(".")[0] or ("embed" in owner and "norm" in owner):
        return TensorRole(Kind.UNKNOWN)  # of another tower, or a norm that is not the final one
    if owner in _EMBEDDINGS:
        return TensorRole(Kind.EMBEDDING)
    if owner in _POSITIONS:
        return TensorRole(Kind.POSITION)
    if "norm" in owner or owner == "ln_f":
        return TensorRole(Kind.FINAL_NORM)
    return TensorRole(Kind.UNKNOWN)


def _inside_role(parts: list[str], spec: TensorSpec, layer: int) -> TensorRole:
    """`parts` is the name below the layer, for example `["self_attn", "q_proj", "weight"]`."""
    bias = parts[-1] == "bias" or parts[-1].endswith("_bias")
    owner = parts[-2] if parts[-1] in {"weight", "bias"} and len(parts) > 1 else parts[-1].removesuffix("_bias")
    module = _module(parts[:-1]) or (Module.MLP if owner in _BARE_MLP else None)
    if parts[0] == "mixer" and owner in _GATED:  # Nemotron-H has one mixer a layer, which may be an MLP
        module = Module.MLP
    if "norm" in owner or owner.startswith("ln_"):
        return TensorRole(Kind.NORM, layer, module)
    if module is None:
        return TensorRole(Kind.UNKNOWN, layer)
    projection = next((name for name, owners in _PROJECTIONS[module].items() if owner in owners), None)
    if projection is None:
        kind = Kind.ROUTER if module is Module.MLP and owner in _ROUTERS else Kind.UNKNOWN
        return TensorRole(kind, layer, module, bias=bias)
    stacked = len(spec.shape) == 3 - int(bias) and ("experts" in parts or (module is Module.MLP and not bias))
    stack = spec.shape[0] if stacked else None
    return TensorRole(
        Kind.PROJECTION,
        layer,
        module,
        projection,
        bias,
        stack,
        _expert(parts) if stack is None else None,
    )


def _headless(checkpoint: Checkpoint, roles: Mapping[str, TensorRole], prefix: str) -> dict[str, TensorRole]:
    """The roles, with `mixed` for outputs of mixers that have no attention heads; a layer may have one beside heads."""
    kinds = checkpoint.text_config.get("layer_types")
    stated = kinds if isinstance(kinds, list) else []
    layers = {layer for layer, kind in enumerate(stated) if str(kind).partition("_")[0] in {"linear", "mamba", "conv"}}

    def container(name: str) -> tuple[str, ...]:
        return tuple(name[len(prefix) + 1 :].split(".")[:2])

    outputs = {name for name, role in roles.items() if role.module is Module.ATTENTION and role.projection == "o"}
    recurrent = {
        container(name)
        for name, role in roles.items()
        if role.module is Module.ATTENTION and not _RECURRENT.isdisjoint(name.split("."))
    }
    mixed = {name for name in outputs if roles[name].layer in layers or container(name) in recurrent}
    return {name: replace(role, projection="mixed") if name in mixed else role for name, role in roles.items()}


def _stored_as_made(checkpoint: Checkpoint, roles: Mapping[str, TensorRole]) -> dict[str, TensorRole]:
    """The roles, `transposed` where matrices are stored input × output.

    The name alone does not say: a matrix that is not square does, by which side is as wide as the model.
    """
    named = [name for name in roles if not _CONV1D.isdisjoint(name.split("."))]
    specs = checkpoint.tensors
    matrices = [name for name in named if roles[name].kind is Kind.PROJECTION and len(specs[name].shape) == 2]
    if not matrices or not _inputs_first(checkpoint, roles, matrices):
        return dict(roles)
    return {**roles, **{name: replace(roles[name], transposed=True) for name in matrices}}


def _inputs_first(checkpoint: Checkpoint, roles: Mapping[str, TensorRole], matrices: list[str]) -> bool:
    table = next((n for n, role in roles.items() if _is_table(checkpoint.tensors[n], role)), None)
    for name in matrices:
        rows, columns = checkpoint.tensors[name].shape
        if rows != columns and roles[name].projection in {"qkv", "fc_in"}:
            return rows == (min(rows, columns) if table is None else checkpoint.tensors[table].shape[1])
    return checkpoint.text_config.get("model_type") in _CONV1D_MODELS


def _module(containers: list[str]) -> Module | None:
    """By the innermost container that is known: experts may lie in what is called a mixer."""
    for part in reversed(containers):
        if part in _ATTENTION_CONTAINERS:
            return Module.ATTENTION
        if part in _MLP_CONTAINERS:
            return Module.MLP
    return None


def _expert(parts: list[str]) -> int | None:
    if "experts" not in parts:
        return None
    index = parts[parts.index("experts") + 1]
    return int(index) if index.isdigit() else None


def _check_layers(checkpoint: Checkpoint, roles: Mapping[str, TensorRole], layers: list[int]) -> int:
    if layers != list(range(len(layers))):
        missing = sorted(set(range(layers[-1] + 1)) - set(layers))
        raise ArchitectureError(
            f"{len(missing)} layers have no tensors, first {missing[0]}", where=checkpoint.root, remedy=_FETCH_BOTH
        )
    stated = _stated(checkpoint, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if stated not in (None, len(layers)):
        raise _contradiction(checkpoint, f"the files hold {len(layers)} layers", str(stated))
    known = {role.layer for role in roles.values() if role.kind is Kind.PROJECTION}
    blank = [layer for layer in layers if layer not in known]
    if blank:
        raise ArchitectureError(
            f"nothing is recognised in layer {blank[0]} (of {len(blank)} such layers), "
            f"for example {next(n for n, r in roles.items() if r.layer == blank[0])!r}",
            where=checkpoint.root,
            remedy="this architecture is not known yet; please open an issue with the tensor names",
        )
    return len(layers)


def _tied(checkpoint: Checkpoint, roles: Mapping[str, TensorRole]) -> tuple[bool, list[str]]:
    """Tied means that no head of its own is stored; the config's flag is only compared."""
    stored = any(role.kind is Kind.HEAD for role in roles.values())
    flag = checkpoint.config.get("tie_word_embeddings", checkpoint.text_config.get("tie_word_embeddings"))
    if stored and flag is True:
        return False, ["config.json says the head is tied to the embedding, but the files hold a head of their own"]
    if not stored and flag is False:
        return True, ["config.json says the head is not tied, but the files hold none; it is treated as tied"]
    return not stored, []


def _layout_notes(roles: Mapping[str, TensorRole]) -> Iterator[str]:
    fused = sorted({r.projection for r in roles.values() if r.projection in {"qkv", "gate_up"}})
    if fused:
        yield f"fused projections: {', '.join(str(f) for f in fused)}"
    if any(role.experts is not None or role.expert is not None for role in roles.values()):
        yield "mixture of experts"


def _heads(checkpoint: Checkpoint, roles: Mapping[str, TensorRole]) -> HeadLayout | None:
    """Head size comes from the config or from the output projection, never from width / heads."""
    heads = _stated(checkpoint, "num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
    kv_heads = _stated(checkpoint, "num_key_value_heads")
    size = _stated(checkpoint, "v_head_dim", "head_dim")  # heads of values may have a size of their own
    pair = 2 if checkpoint.text_config.get("model_type") in _PAIRED_HEADS else 1
    output = _first_matrix(checkpoint, roles, "o")
    if output is None:
        return None
    outputs, inputs = reversed(output.shape) if roles[output.name].transposed else output.shape
    if (width := _stated(checkpoint, "hidden_size", "n_embd", "d_model")) not in (None, outputs):
        raise _contradiction(checkpoint, f"tensor {output.name!r} has {outputs} outputs", f"a width of {width}")
    if heads is None:
        return None
    if inputs % heads or size not in (None, inputs // heads):
        stated = f"{heads} heads" + (f" of size {size}" if size else "")
        raise _contradiction(checkpoint, f"tensor {output.name!r} has {inputs} inputs", stated)
    keys = _first_matrix(checkpoint, roles, "k")
    if kv_heads is not None and keys is not None and keys.shape[0] != kv_heads * (inputs // heads):
        stated = f"{kv_heads} key/value heads of size {inputs // heads}"
        raise _contradiction(checkpoint, f"tensor {keys.name!r} has {keys.shape[0]} outputs", stated)
    return HeadLayout(heads // pair, (kv_heads or heads) // pair, pair * inputs // heads)


def _stated(checkpoint: Checkpoint, *keys: str) -> int | None:
    """The number that the config states under the first of some keys; None where it is silent, or says it per layer.

    Raises:
        ArchitectureError: It states something that is no such number.
    """
    key = next((key for key in keys if checkpoint.text_config.get(key) is not None), None)
    value = None if key is None else checkpoint.text_config[key]
    if isinstance(value, list):
        return None
    if value is not None and (type(value) is not int or value < 1):
        raise ArchitectureError(
            f"config.json states {key} {value!r:.40}, which is no number of anything",
            where=checkpoint.root,
            remedy=_FETCH_BOTH,
        )
    return value


def _first_matrix(checkpoint: Checkpoint, roles: Mapping[str, TensorRole], projection: str) -> TensorSpec | None:
    """The first such projection of the attention."""
    return next(
        (
            checkpoint.tensors[name]
            for name, role in roles.items()
            if role.projection == projection and role.module is Module.ATTENTION
            if not role.bias and len(checkpoint.tensors[name].shape) == 2
        ),
        None,
    )


def _contradiction(checkpoint: Checkpoint, found: str, stated: str) -> ArchitectureError:
    return ArchitectureError(f"{found}, but config.json states {stated}", where=checkpoint.root, remedy=_FETCH_BOTH)
