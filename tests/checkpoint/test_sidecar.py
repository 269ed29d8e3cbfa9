from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from polysafe.checkpoint import sidecar
from polysafe.checkpoint.sidecar import left_out, side_files
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.errors import CheckpointError
from tests.checkpoint.test_header import peak_memory
from tests.checkpoint.test_source import hub_layout
from tests.models import tiny_llama

TOKENIZER = {
    "tokenizer.json": b'{"a":  1}\r\n',
    "tokenizer_config.json": b"{}",
    "tokenizer.model": b"\x00\xff",
    "special_tokens_map.json": b"{}",
    "added_tokens.json": b"{}",
    "vocab.json": b"{}",
    "merges.txt": b"#version\n",
    "spiece.model": b"\x01",
    "qwen.tiktoken": b"IQ== 0\n",
    "chat_template.jinja": "{{ '<|é|>' }}".encode(),
    "generation_config.json": b'{ "eos_token_id" : [1, 2] }',
    "additional_chat_templates/tool.jinja": b"{{ 1 }}",
}
OTHERS = {
    "README.md": b"#",
    "training_args.bin": b"\x80",
    "modeling_evil.py": b"import os",
    "model.safetensors.index.json.bak": b"{}",
    "optimizer.pt": b"\x80",
    "logs/tokenizer.json": b"{}",
    "additional_chat_templates/deep/x.jinja": b"",
}
EXECUTED = {
    "additional_chat_templates/x.py": b"import os",
    "chat_template.py": b"import os",
    "tokenizer.bin": b"\x00",
    "tokenizer.model": b"\x80\x04\x95",
    "tokenizer.py": b"import os",
    "tokenizer.so": b"\x7fELF",
    "tokenizer_fast": b"\x7fELF",
    "vocab.json": pickle.dumps(["a"]),
    "vocab.pkl": pickle.dumps(["a"]),
    "vocab.pt": b"PK\x03\x04",
    "vocab.txt": b"PK\x03\x04",
}


def with_files(folder: Path, files: dict[str, bytes]) -> Checkpoint:
    tiny_llama(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return open_checkpoint(folder)


def test_everything_that_belongs_to_the_tokenizer_comes_byte_for_byte(tmp_path: Path) -> None:
    model, donor = with_files(tmp_path / "model", {}), with_files(tmp_path / "donor", TOKENIZER | OTHERS)
    found = {file.name: file.content for file in side_files(model, donor)}
    assert found == {**TOKENIZER, "config.json": (tmp_path / "model" / "config.json").read_bytes()}


@pytest.mark.fault(9, "never copied")
@pytest.mark.hostile("config")
def test_code_and_pickles_are_not_copied_but_listed(tmp_path: Path) -> None:
    donor = with_files(tmp_path / "donor", {**EXECUTED, "tokenizer.model.v3": b"\x0a", "tokenizer.jinja": b""})
    assert {file.name for file in side_files(donor, donor)} == {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("tokenizer.model.v3", "tokenizer.jinja"),
    } & set(os.listdir(tmp_path / "donor"))
    assert left_out(donor) == sorted(EXECUTED)
    assert left_out(with_files(tmp_path / "sound", TOKENIZER | OTHERS)) == []


def test_config_comes_from_the_model_and_generation_config_from_the_donor(tmp_path: Path) -> None:
    model, donor = (with_files(tmp_path / n, {"generation_config.json": n.encode()}) for n in ("m", "d"))
    (tmp_path / "d" / "config.json").write_text("{}")
    found = {file.name: file.content for file in side_files(model, donor)}
    assert found["generation_config.json"] == b"d"
    assert found["config.json"] == (tmp_path / "m" / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("config", "dtype", "written"),
    [
        ({"dtype": "bfloat16"}, None, None),
        ({"dtype": "bfloat16"}, "BF16", None),
        ({"torch_dtype": "bfloat16"}, "BF16", None),
        ({"dtype": "bfloat16"}, "F32", {"dtype": "float32"}),
        ({"torch_dtype": "float16"}, "BF16", {"torch_dtype": "bfloat16"}),
        ({}, "F16", {"torch_dtype": "float16"}),
    ],
)
def test_config_is_rewritten_only_for_another_type(
    config: dict[str, str], dtype: str | None, written: dict[str, str] | None, tmp_path: Path
) -> None:
    model = with_files(tmp_path / "m", {"config.json": json.dumps({"é": [1], **config}).encode()})
    (content,) = (file.content for file in side_files(model, model, dtype) if file.name == "config.json")
    if written is None:
        assert content == (tmp_path / "m" / "config.json").read_bytes()
    else:
        assert json.loads(content) == {"é": [1], **written}


def test_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    model = with_files(tmp_path / "m", {})
    plain = {file.name: file.content for file in side_files(model, model)}
    snapshot = open_checkpoint(hub_layout(tmp_path / "hub", tmp_path / "m"))
    assert {file.name: file.content for file in side_files(snapshot, snapshot)} == plain


@pytest.mark.hostile("config")
def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    model = with_files(tmp_path / "m", {})
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "m" / "tokenizer.model").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="leads out of the checkpoint folder"):
        side_files(model, model)


def test_lost_tokenizer_is_an_error_not_a_gap(tmp_path: Path) -> None:
    model = with_files(tmp_path / "m", {})
    (tmp_path / "m" / "tokenizer.model").symlink_to("blob that was cleaned away")
    with pytest.raises(CheckpointError, match="broken link"):
        side_files(model, model)


@pytest.mark.hostile("config")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    model = with_files(tmp_path / "m", {})
    os.mkfifo(tmp_path / "m" / "merges.txt")
    with pytest.raises(CheckpointError, match="a folder or a device"):
        side_files(model, model)


@pytest.mark.hostile("config")
def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_files(tmp_path / "m", {"vocab.txt": bytes(2 << 20)})
    monkeypatch.setattr(sidecar, "LARGEST", 1 << 20)
    with pytest.raises(CheckpointError, match=r"vocab\.txt: is the largest of files .* larger than 1 MiB"):
        side_files(model, model)


@pytest.mark.hostile("config")
def test_many_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    model = with_files(tmp_path / "m", {f"vocab{number}.json": b"" for number in range(80)})
    for number in range(80):
        os.truncate(tmp_path / "m" / f"vocab{number}.json", 150 << 20)
    with peak_memory() as peak, pytest.raises(CheckpointError, match="are together larger than 200 MiB"):
        side_files(model, model)
    assert peak[0] < 1 << 20
