"""What an adapter says of itself, without a model."""

from __future__ import annotations

import json

import pytest

from polysafe.edits.adapter import adapter_config, public_origin


@pytest.mark.parametrize("transposed", [True, False])
def test_the_config_says_plain_lora_that_is_ready_to_be_used(transposed: bool) -> None:
    """As PEFT writes it: anything else than these values is another computation, or is trained on when it is loaded."""
    found = adapter_config({"m.b": 4, "m.a+": 2, "m.c": 4}, transposed=transposed, base="o/m", revision="0" * 40)
    assert json.loads(json.dumps(found)) == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "o/m",
        "revision": "0" * 40,
        "r": 4,
        "lora_alpha": 4,
        "rank_pattern": {r"^m\.a\+": 2},
        "alpha_pattern": {r"^m\.a\+": 2},
        "target_modules": ["m.a+", "m.b", "m.c"],
        "fan_in_fan_out": transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


@pytest.mark.parametrize(
    ("origin", "public"),
    [
        ("org/model-1.5@" + "0a" * 20, ("org/model-1.5", "0a" * 20)),
        ("org/model", (None, None)),
        ("org/model@main", (None, None)),
        ("org/model@" + "0" * 41, (None, None)),
        ("/home/me/org/model@" + "0" * 40, (None, None)),
        ("model", (None, None)),
    ],
)
def test_only_a_commit_on_the_hub_is_a_public_origin(origin: str, public: tuple[str | None, str | None]) -> None:
    assert public_origin(origin) == public
