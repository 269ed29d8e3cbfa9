"""Quantised models are asked as transformers loads them, and edited by nobody."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.errors import CheckpointError, ResourceError
from polysafe.probe.asked import opened_model
from polysafe.probe.render import load_tokenizer
from polysafe.progress import hearing
from tests.byte_level import VOCABULARY
from tests.checkpoint.quantised import save_bitsandbytes
from tests.real_models import needs

pytestmark = [
    needs("bitsandbytes"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:bitsandbytes"),
]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
HOW = ("4 bits", "8 bits")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a random Llama over bytes, in so many bits, once."""
    made: dict[str, Path] = {}

    def make(bits: str) -> Path:
        if bits not in made:
            made[bits] = save_bitsandbytes(tmp_path_factory.mktemp("models") / "small", bits, **SIZES)
        return made[bits]

    return make


@pytest.mark.parametrize("bits", HOW)
def test_logits_are_those_of_transformers(quantised: Callable[[str], Path], bits: str) -> None:
    folder = quantised(bits)
    tokens = torch.tensor([load_tokenizer(folder)("how do I")["input_ids"]])
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    said: list[str] = []
    with torch.no_grad(), hearing(said.append), opened_model(folder) as ours:
        assert torch.equal(ours.model(tokens).logits, theirs(tokens).logits)
        assert any("bitsandbytes" in type(module).__module__ for module in ours.model.modules())
        assert ours.architecture.num_layers == theirs.config.num_hidden_layers
    assert said == [f"small is quantised (bitsandbytes, {bits}); it is asked as transformers loads it"]


def test_an_audit_asks_it(quantised: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "asked.csv").write_text("en\nask this\nask that\n")
    found = []
    for bits in HOW:
        options = ["--safety", str(tmp_path / "asked.csv"), "--answers-only", "--template", "raw", "--max-tokens", "4"]
        told = CliRunner().invoke(app, ["audit", str(quantised(bits)), *options, "--output", str(tmp_path / bits)])
        assert told.exit_code == 0, told.output
        rows = [json.loads(line) for line in (tmp_path / bits / "records.jsonl").read_text().splitlines()]
        found.append([row["answer"] for row in rows])
        run = json.loads((tmp_path / bits / "run.json").read_text())
        assert run["generator"]["quantised"] == f"bitsandbytes, {bits}"
        assert f"bitsandbytes, {bits}" in next((tmp_path / bits / "report").glob("*.html")).read_text()
    assert len(found[0]) == len(found[1]) == 2
    assert found[0] != found[1]  # and neither was taken from what was kept of the other


def test_it_is_not_edited(quantised: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = {
        "polysafe": 1,
        "sources": {"a": {"path": str(quantised("8 bits"))}, "b": {"path": str(quantised("4 bits"))}},
        "edits": [{"method": "soup", "weights": {"a": 0.5, "b": 0.5}}],
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    found = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml")])
    assert found.exit_code != 0
    assert "bitsandbytes, 8 bits" in found.output
    assert "only asked" in " ".join(found.output.split())


def test_a_missing_library_is_named(quantised: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = quantised("8 bits")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    found = CliRunner().invoke(app, ["chat", str(folder)], input="hello\n")
    assert found.exit_code != 0
    assert "pip install 'polysafe[quantised]'" in found.output


def test_what_it_is_refused_for(quantised: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(quantised("8 bits"), tmp_path / "adapted")
    (tmp_path / "adapted" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="with an adapter"), opened_model(tmp_path / "adapted"):
        pytest.fail("was loaded")
    with pytest.raises(ResourceError, match="no device"), opened_model(quantised("8 bits"), "nowhere"):
        pytest.fail("was loaded")
    broken = shutil.copytree(quantised("8 bits"), tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ResourceError, match="cannot be loaded"), opened_model(broken):
        pytest.fail("was loaded")
