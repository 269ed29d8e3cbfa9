from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint.raw import sparse_checkpoint
from tests.engine import peak
from tests.engine.recipes import LAYER_SWAP, recipe_for

MB = 1 << 20
WIDTH, INNER = 1024, 4096
LAYER = {
    "self_attn.q_proj.weight": (WIDTH, WIDTH),
    "self_attn.k_proj.weight": (WIDTH // 4, WIDTH),
    "self_attn.v_proj.weight": (WIDTH // 4, WIDTH),
    "self_attn.o_proj.weight": (WIDTH, WIDTH),
    "mlp.gate_proj.weight": (INNER, WIDTH),
    "mlp.up_proj.weight": (INNER, WIDTH),
    "mlp.down_proj.weight": (WIDTH, INNER),
    "input_layernorm.weight": (WIDTH,),
    "post_attention_layernorm.weight": (WIDTH,),
}
SIZES = {"75 MB": (2, 3_000), "300 MB": (8, 16_000)}  # layers, vocabulary


def shapes(layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    named = {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in LAYER.items()}
    ends = {"model.embed_tokens.weight": (vocabulary, WIDTH), "lm_head.weight": (vocabulary, WIDTH)}
    return named | ends | {"model.norm.weight": (WIDTH,)}


def write_recipe(folder: Path, layers: int, vocabulary: int) -> Path:
    config = {"num_hidden_layers": layers, "dtype": "bfloat16"}
    paths = {n: sparse_checkpoint(folder / n, shapes(layers, vocabulary), config) for n in ("base", "safety", "sw")}
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe_for(paths, folder / "out", LAYER_SWAP, shard_size="150MB").to_yaml())
    return recipe


def private_peak(recipe: Path) -> int:
    """Private bytes that a run adds at its peak: scoring, hashing and blending three checkpoints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, peak.__file__, str(recipe)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(recipe.parent / "out")
    return int(done.stdout)


@pytest.mark.skipif(not peak.SMAPS.exists(), reason="this system does not tell private memory")
def test_memory_is_a_constant_below_64_mb(tmp_path: Path) -> None:
    recipes = [write_recipe(tmp_path / name, *size) for name, size in SIZES.items()]
    sizes = [(recipe.parent / "base" / "model.safetensors").stat().st_size for recipe in recipes]
    assert sizes[1] - sizes[0] > 200 * MB
    small, large = (private_peak(recipe) for recipe in recipes)
    assert 4 * MB < small < 64 * MB  # the lower bound shows that something was measured
    assert 4 * MB < large < 64 * MB
    assert large - small < 24 * MB  # a ninth of what was added; what the allocator keeps varies by more than half of it
