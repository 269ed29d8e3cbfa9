from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polysafe.checkpoint.imported import FILE, Imported, imported_bytes, is_terms, read_imported
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from tests.models import tiny_llama

RECORD = Imported("gguf", "m.gguf", "0" * 64, 7, "llama", {"Q4_1": 3, "F32": 2, "Q8_0": 1}, "BF16", terms=("LICENSE",))


def write(folder: Path, content: bytes) -> Path:
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(content)
    return folder


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_imported(tmp_path) == ()
    assert read_imported(write(tmp_path, imported_bytes([RECORD, RECORD]))) == (RECORD, RECORD)
    assert FILE.startswith(f"{RECORDS}/")


def test_a_checkpoint_says_that_its_weights_were_quantised(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    write(folder, imported_bytes([RECORD]))
    assert open_checkpoint(folder).notes == ("the weights were quantised (Q4_1, Q8_0) before; dequantised from m.gguf",)
    plain = replace(RECORD, types={"F16": 3}, package="p", version="1")
    assert plain.sentence == "the weights were converted from m.gguf of the package p 1 (F16)"


@pytest.mark.hostile("folder")
@pytest.mark.parametrize(
    "change",
    [
        {"polysafe_imported": 2},
        {"weights": None},
        {"weights": [{"format": "gguf"}]},
        {"weights": [json.loads(imported_bytes([RECORD]))["weights"][0] | {"terms": ["../../etc/passwd"]}]},
        {"weights": [json.loads(imported_bytes([RECORD]))["weights"][0] | {"terms": ["config.json"]}]},
    ],
)
def test_a_hostile_record_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    content = json.loads(imported_bytes([RECORD])) | change
    with pytest.raises(CheckpointError) as caught:
        read_imported(write(tmp_path, json.dumps(content).encode()))
    assert FILE in str(caught.value)


@pytest.mark.parametrize(
    "name", ["LICENSE", "license.txt", "LICENCE-MODEL", "NOTICE.md", "GEMMA_TERMS.html", "USE_POLICY.md"]
)
def test_names_of_terms(name: str) -> None:
    assert is_terms(name)


@pytest.mark.hostile("folder")
@pytest.mark.parametrize(
    "name", ["README.md", "config.json", "determs", "LICENSE/x", "../LICENSE", "license.py", "TERMS.json"]
)
def test_names_of_other_files(name: str) -> None:
    assert not is_terms(name)
