from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Polysafe
from tests.gguf_files import needs_gguf, write_gguf

pytestmark = needs_gguf()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))


def test_a_file_becomes_a_folder(polysafe: Polysafe, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", type="Q8_0", metadata={"general.license": "mit"})
    result = polysafe("import", file, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "the weights were quantised (Q8_0) before; dequantised from m.gguf" in result.stdout
    assert "licence: mit" in result.stdout
    assert polysafe("verify", tmp_path / "out").exit_code == 0
    again = polysafe("import", file, "--output", tmp_path / "out")
    assert again.exit_code == 2
    assert "already holds a finished output" in again.stderr


def test_json_is_one_document(polysafe: Polysafe, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    result = polysafe("import", file, "-o", tmp_path / "out", "--dtype", "f32", "--shard-size", "50kB", "--json")
    content = json.loads(result.stdout)
    assert content["output"] == str(tmp_path / "out")
    assert content["imported"]["dtype"] == "F32"
    assert sum(entry["path"].endswith(".safetensors") for entry in content["manifest"]["files"]) > 1


@pytest.mark.parametrize("place", ["none.gguf", "package:no-such-model", "broken.gguf", "."])
def test_what_cannot_be_imported_is_said(place: str, polysafe: Polysafe, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(20))
    source = place if place.startswith("package:") else tmp_path / place
    result = polysafe("import", source, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_plan_says_that_weights_were_quantised(polysafe: Polysafe, tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", type="Q4_0")
    write_gguf(tmp_path / "b.gguf", seed=1)
    (tmp_path / "recipe.yaml").write_text(
        """\
polysafe: 1
sources: {a: {gguf: ./a.gguf}, b: {gguf: ./b.gguf}}
edits:
  - {method: soup, weights: {a: 0.5, b: 0.5}}
output: {path: ./out}
"""
    )
    result = polysafe("plan", tmp_path / "recipe.yaml")
    assert result.exit_code == 0, result.output
    assert "note: a: the weights were quantised (Q4_0) before; dequantised from a.gguf" in result.stdout
    assert polysafe("run", tmp_path / "recipe.yaml").exit_code == 0
    assert polysafe("verify", tmp_path / "out").exit_code == 0
