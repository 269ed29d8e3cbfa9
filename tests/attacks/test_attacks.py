from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from polysafe.checkpoint.hub import hub_snapshot
from polysafe.checkpoint.lora import open_adapter
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import PolysafeError
from tests.attacks.hostile import ATTACKS, PWNED, SECRET, payload, write_attack
from tests.checkpoint.raw import entry, one_tensor, write_raw
from tests.checkpoint.test_source import hub_layout
from tests.models import tiny_llama

README = Path(__file__).with_name("README.md")


def look_at(folder: Path) -> None:
    """What every command does with a source before anything else."""
    checkpoint = open_checkpoint(folder)
    check_editable(checkpoint)
    classify(checkpoint)


@pytest.mark.fault(
    2,
    "names that lead out of the folder",
    "links and cycles",
    "folders and other suffixes",
    "tensors absent or in two shards",
)
@pytest.mark.fault(4, "a malicious pickle does not run")
@pytest.mark.hostile("folder")
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_with_file_and_reason(name: str, tmp_path: Path) -> None:
    folder = write_attack(ATTACKS[name], tmp_path)
    with pytest.raises(PolysafeError, match=ATTACKS[name].refusal) as caught:
        look_at(folder)
    assert Path(str(caught.value.where)).is_relative_to(folder)
    assert not (folder / PWNED).exists()


@pytest.mark.fault(4, "a malicious pickle does not run")
def test_the_payload_would_leave_a_mark(tmp_path: Path) -> None:
    """Else the check above could not fail."""
    program = f"import pickle; pickle.loads({payload(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / PWNED).exists()


def test_a_sound_folder_at_the_same_place_is_accepted(tmp_path: Path) -> None:
    assert classify(open_checkpoint(tiny_llama(tmp_path / "checkpoint"))).num_layers == 4


@pytest.mark.fault(9, "never run for editing", "never copied")
@pytest.mark.hostile("folder")
def test_code_in_a_model_folder_is_neither_run_nor_copied(tmp_path: Path) -> None:
    from polysafe.checkpoint.sidecar import side_files

    folder = tiny_llama(tmp_path / "m")
    mark = f"import os; os.mkdir({str(folder / PWNED)!r})"
    for name in ("modeling_evil.py", "configuration_evil.py", "__init__.py", "sitecustomize.py", "conftest.py"):
        (folder / name).write_text(mark)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("{", '{"auto_map": {"AutoModel": "modeling_evil.E"},', 1))
    checkpoint = open_checkpoint(folder)
    assert classify(checkpoint).num_layers == 4
    assert not [file.name for file in side_files(checkpoint, checkpoint) if file.name.endswith(".py")]
    assert not (folder / PWNED).exists()


@pytest.mark.hostile("folder")
def test_only_the_store_of_the_same_model_may_be_linked_to(tmp_path: Path) -> None:
    """A snapshot of one model must not read the blobs of another, which may be private."""
    theirs = hub_layout(tmp_path / "a", tiny_llama(tmp_path / "private"))
    mine = hub_layout(tmp_path / "b", tiny_llama(tmp_path / "public"))
    (mine / "model.safetensors").unlink()
    (mine / "model.safetensors").symlink_to((theirs / "model.safetensors").resolve())
    with pytest.raises(PolysafeError, match="leads out of the checkpoint folder"):
        open_checkpoint(mine)


@pytest.mark.hostile("adapter")
@pytest.mark.parametrize(
    ("damage", "refusal"),
    [
        (lambda f: link_out(f / "adapter_model.safetensors"), "leads out of the checkpoint folder"),
        (lambda f: link_out(f / "adapter_config.json"), "leads out of the checkpoint folder"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"<html>"), "is a web page"),
        (lambda f: configure(f, lora_alpha="six"), "states no usable scale"),
        (lambda f: configure(f, lora_alpha=[1]), "states no usable scale"),
        (lambda f: configure(f, alpha_pattern=["q_proj"]), "states no usable scale"),
        (lambda f: configure(f, alpha_pattern={"(": 1}), "states no usable scale"),
        (lambda f: write_factors(f, rank=0), "do not fit"),
    ],
)
def test_hostile_adapters(damage: Callable[[Path], object], refusal: str, tmp_path: Path) -> None:
    base = open_checkpoint(tiny_llama(tmp_path / "base"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    write_factors(adapter, rank=2)
    open_adapter(adapter, base)
    damage(adapter)
    with pytest.raises(PolysafeError, match=refusal):
        open_adapter(adapter, base)


def link_out(path: Path) -> None:
    outside = path.parents[1] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def configure(adapter: Path, **settings: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def write_factors(adapter: Path, *, rank: int) -> None:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    header = {f"{module}.lora_A.weight": entry("F32", (rank, 16)), f"{module}.lora_B.weight": entry("F32", (16, rank))}
    header[f"{module}.lora_B.weight"]["data_offsets"] = [64 * rank, 128 * rank]
    write_raw(adapter / "adapter_model.safetensors", header, bytes(128 * rank))


@pytest.mark.fault(26, "a revision is a commit")
def test_a_branch_is_no_pin() -> None:
    with pytest.raises(PolysafeError, match="is not a commit"):
        hub_snapshot("org/name", "main")


def test_the_list_of_threats_is_complete() -> None:
    listed = re.findall(r"^\| ([a-z]+: [^|]+?) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == list(ATTACKS)


def test_the_folders_can_be_written_for_other_programs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.attacks", str(tmp_path)]
    written = subprocess.run(command, check=True, capture_output=True, text=True, cwd=README.parents[2]).stdout
    assert len(written.splitlines()) == len(ATTACKS)
    assert all((Path(line).parent / SECRET).read_bytes() == one_tensor() for line in written.splitlines())
