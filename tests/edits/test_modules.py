"""Names of tensors in the model that transformers makes of a checkpoint, told by their roles."""

from __future__ import annotations

import pytest

from polysafe.checkpoint.roles import Architecture, Kind, Module, TensorRole
from polysafe.edits.modules import moved


def architecture(prefix: str, modules: dict[str, tuple[Module, str]]) -> Architecture:
    """Two layers of linear layers with a bias, and a head."""
    roles = {
        f"{prefix}.{layer}.{name}.{part}": TensorRole(Kind.PROJECTION, layer, module, projection, part == "bias")
        for layer in range(2)
        for name, (module, projection) in modules.items()
        for part in ("weight", "bias")
    }
    return Architecture(prefix, 2, {**roles, "lm_head.weight": TensorRole(Kind.HEAD)}, False, None, None)


FILES = architecture(
    "transformer.h",
    {
        "attn.q_proj": (Module.ATTENTION, "q"),
        "attn.out_proj": (Module.ATTENTION, "o"),
        "mlp.c_fc_0": (Module.MLP, "gate"),
        "mlp.c_fc": (Module.MLP, "fc_in"),
        "mlp.c_proj": (Module.MLP, "fc_out"),
        "mlp.w2": (Module.MLP, "other"),
    },
)
MODEL = architecture(
    "model.layers",
    {
        "attn.q_proj": (Module.ATTENTION, "q"),
        "self_attn.o_proj": (Module.ATTENTION, "o"),
        "mlp.gate_proj": (Module.MLP, "gate"),
        "mlp.up_proj": (Module.MLP, "up"),
        "mlp.down_proj": (Module.MLP, "down"),
        "mlp.one": (Module.MLP, "other"),
        "mlp.two": (Module.MLP, "other"),
    },
)


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize(
    ("stored", "running"),
    [
        ("attn.q_proj", "attn.q_proj"),  # called the same
        ("attn.out_proj", "self_attn.o_proj"),
        ("mlp.c_fc_0", "mlp.gate_proj"),
        ("mlp.c_fc", "mlp.up_proj"),  # without a gate beside it, and with
        ("mlp.c_proj", "mlp.down_proj"),
        ("mlp.w2", "mlp.w2"),  # either of two: nothing tells which
    ],
)
def test_a_projection_is_found_by_its_role_in_the_same_layer(stored: str, running: str, part: str) -> None:
    for layer in range(2):
        wanted = f"model.layers.{layer}.{running}.{part}"
        assert moved(f"transformer.h.{layer}.{stored}.{part}", FILES, MODEL) == wanted


def test_what_is_in_no_layer_is_called_as_in_the_files() -> None:
    assert moved("lm_head.weight", FILES, MODEL) == "lm_head.weight"
