from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint import source
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.source import INDEX, SINGLE, is_complete, open_checkpoint
from polysafe.errors import CheckpointError
from tests.checkpoint.raw import entry, one_tensor, raw, write_config, write_index, write_raw
from tests.models import FAMILIES, read_weights, tiny_llama, tiny_model


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_are_those_of_the_files(shards: int, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=shards)
    checkpoint = open_checkpoint(folder)
    weights = read_weights(folder)
    assert {n: s.shape for n, s in checkpoint.tensors.items()} == {n: tuple(t.shape) for n, t in weights.items()}
    assert checkpoint.total_bytes == sum(tensor.nbytes for tensor in weights.values())
    assert [file.name for file in checkpoint.files] == sorted(p.name for p in folder.glob("*.safetensors"))
    assert checkpoint.folders == (folder,)
    assert checkpoint.origin == str(folder)
    assert open_checkpoint(folder, origin="org/name").origin == "org/name"
    assert checkpoint.notes == ()


@pytest.mark.fault(11, "long and non-ASCII names")
def test_paths_with_spaces_and_other_alphabets(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "modèle 安全 ነጻ")
    assert open_checkpoint(folder).root == folder
    assert open_checkpoint(str(folder)).origin == str(folder)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny_llama(tmp_path / "m")
    assert open_checkpoint("~/m").root == tmp_path / "m"


@pytest.mark.parametrize("name", ["absent", "x" * 300, "a\0b", "~no-such-user/m"])
def test_no_such_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        open_checkpoint(os.path.join(tmp_path, name) if not name.startswith("~") else name)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = write_raw(tmp_path / SINGLE, {"w": entry()}, bytes(4))
    with pytest.raises(CheckpointError, match="is a file, not a checkpoint folder"):
        open_checkpoint(path)


def test_single_file_and_index_contradict(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=2)
    (folder / SINGLE).write_bytes(one_tensor())
    with pytest.raises(CheckpointError, match="holds both") as caught:
        open_checkpoint(folder)
    assert caught.value.remedy == "move the stale one away"


def test_shards_without_their_index_are_not_guessed(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=2)
    (folder / INDEX).unlink()
    with pytest.raises(CheckpointError, match="holds neither"):
        open_checkpoint(folder)


@pytest.mark.fault(4, "refused with the way out")
@pytest.mark.hostile("folder")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.ckpt", "weights.pkl"])
def test_pickles_are_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / name).write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match="pickled weights") as caught:
        open_checkpoint(folder)
    assert "safe_serialization=True" in str(caught.value.remedy)


def test_an_adapter_is_recognised_even_beside_pickles(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(one_tensor())
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match="is a LoRA adapter"):
        open_checkpoint(tmp_path)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=3)
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match="is missing") as caught:
        open_checkpoint(folder)
    assert caught.value.where == lost


@pytest.mark.fault(3, "cut short")
def test_truncated_shard_is_named_with_both_sizes(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=3)
    short = sorted(folder.glob("*.safetensors"))[1]
    size = short.stat().st_size
    os.truncate(short, size - 100)
    with pytest.raises(CheckpointError, match=rf"describes {size} bytes, the file has {size - 100}") as caught:
        open_checkpoint(folder)
    assert caught.value.where == short


def test_tensor_that_the_index_does_not_know_is_kept_and_told(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / "a.safetensors").write_bytes(raw({"w": entry(), "extra": entry(start=4)}, bytes(8)))
    write_index(folder, {"w": "a.safetensors"})
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.tensors) == {"w", "extra"}
    assert checkpoint.notes == ("1 tensors are in the files but not in the index, first extra",)


@pytest.mark.hostile("folder")
@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": 1}'])
def test_index_without_a_map(content: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        open_checkpoint(folder)


def test_checkpoint_without_tensors(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / SINGLE).write_bytes(raw({}))
    with pytest.raises(CheckpointError, match="holds no tensor"):
        open_checkpoint(folder)


@pytest.mark.hostile("config")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing"),
        ("[]", "not a JSON object"),
        ("{", "valid JSON"),
        ('{"model_type": []}', "model_type is no text"),
        ('{"text_config": {"model_type": {}}}', "model_type is no text"),
    ],
)
def test_config_that_is_none(content: str | None, words: str, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(folder)
    assert caught.value.where == folder / "config.json"


def test_text_config_of_a_multimodal_model(tmp_path: Path) -> None:
    folder = write_config(tmp_path, text_config={"num_hidden_layers": 7})
    (folder / SINGLE).write_bytes(one_tensor())
    assert open_checkpoint(folder).text_config == {"num_hidden_layers": 7}


def hub_layout(cache: Path, folder: Path) -> Path:
    """The files of a folder as the hub's cache keeps them: links into a store of blobs."""
    snapshot = cache / "models--org--name" / "snapshots" / ("0" * 40)
    blobs = cache / "models--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in sorted(folder.iterdir()):
        name = hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blobs / name)
        (snapshot / file.name).symlink_to(Path("../..") / "blobs" / name)
    return snapshot


def test_links_within_a_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot = hub_layout(tmp_path / "hub", tiny_llama(tmp_path / "m", shards=2))
    checkpoint = open_checkpoint(snapshot)
    assert checkpoint.root == snapshot
    assert checkpoint.folders == (snapshot,)
    assert is_complete(snapshot)
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()
    assert not is_complete(snapshot)
    with pytest.raises(CheckpointError, match="broken link"):
        open_checkpoint(snapshot)


def test_completeness(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    assert not is_complete(folder)
    (folder / SINGLE).write_bytes(b"")
    assert is_complete(folder)
    (folder / "config.json").unlink()
    assert not is_complete(folder)


def test_a_link_to_a_whole_checkpoint_may_be_named(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    (tmp_path / "link").symlink_to(folder)
    assert open_checkpoint(tmp_path / "link").root == folder


@pytest.mark.fault(15, "while it is read")
def test_changes_during_a_run_are_seen(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    checkpoint = open_checkpoint(folder)
    checkpoint.check_unchanged()
    status = (folder / SINGLE).stat()
    os.utime(folder / SINGLE, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        checkpoint.check_unchanged()
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="vanished"):
        checkpoint.check_unchanged()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_ordinary_family_is_editable(family: str, tmp_path: Path) -> None:
    check_editable(open_checkpoint(tiny_model(family, layers=1).save(tmp_path / "m")))


@pytest.mark.fault(8, "by their config")
@pytest.mark.hostile("config")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "mxfp4", None])
def test_quantised_by_config(method: str | None, nested: bool, tmp_path: Path) -> None:
    settings = {"quantization_config": {"bits": 4} | ({"quant_method": method} if method else {})}
    folder = write_config(tmp_path, **({"text_config": settings} if nested else settings))
    (folder / SINGLE).write_bytes(one_tensor())
    with pytest.raises(CheckpointError, match=f"config.json says {method or 'unknown'!r}") as caught:
        check_editable(open_checkpoint(folder))
    assert "unquantised" in str(caught.value.remedy)


@pytest.mark.fault(8, "by types and names")
@pytest.mark.hostile("folder")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.0.mlp.up_proj.weight", "U8"),
        ("model.layers.0.mlp.up_proj.weight", "I8"),
        ("model.layers.0.mlp.up_proj.weight", "F8_E4M3"),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "U8"),
        ("model.layers.0.mlp.up_proj.weight", "F4"),
        ("model.layers.0.mlp.up_proj.qweight", "I32"),
    ],
)
def test_quantised_by_type_or_name(name: str, dtype: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    described = entry(dtype, (4, 8))
    (folder / SINGLE).write_bytes(raw({name: described}, bytes(described["data_offsets"][1])))
    with pytest.raises(CheckpointError, match=f"is stored as {dtype}"):
        check_editable(open_checkpoint(folder))


@pytest.mark.parametrize("name", ["h.0.attn.bias", "gpt_neox.layers.0.attention.bias"])
def test_causal_masks_are_no_quantised_weights(name: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / SINGLE).write_bytes(raw({name: entry("U8", (1, 1, 4, 4))}, bytes(16)))
    check_editable(open_checkpoint(folder))


def test_opening_reads_headers_only(tmp_path: Path) -> None:
    """A terabyte of zeros that takes no disk space opens at once."""
    folder = write_config(tmp_path)
    described = {"dtype": "BF16", "shape": [2**29, 2**10], "data_offsets": [0, 2**40]}
    (folder / SINGLE).write_bytes(raw({"w": described}))
    try:
        os.truncate(folder / SINGLE, (folder / SINGLE).stat().st_size + 2**40)
    except OSError as error:
        pytest.skip(f"this file system has no sparse files of that size: {error}")
    assert open_checkpoint(folder).total_bytes == 2**40


def test_index_of_many_tensors(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    names = [f"model.layers.{i}.w" for i in range(20_000)]
    zero = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    (folder / "a.safetensors").write_bytes(raw(dict.fromkeys(names, zero)))
    write_index(folder, dict.fromkeys(names, "a.safetensors"))
    assert len(open_checkpoint(folder).tensors) == 20_000


@pytest.mark.hostile("folder")
def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_config(tmp_path)
    zero = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    shards = {shard: [f"{shard}.{number}" for number in range(30)] for shard in "abcd"}
    for shard, names in shards.items():
        (folder / f"{shard}.safetensors").write_bytes(raw(dict.fromkeys(names, zero)))
    write_index(folder, {name: f"{shard}.safetensors" for shard, names in shards.items() for name in names})
    monkeypatch.setattr(source, "MAX_TENSORS", 120)
    assert len(open_checkpoint(folder).tensors) == 120
    monkeypatch.setattr(source, "MAX_TENSORS", 119)
    for named, where in ((30, folder / source.INDEX), (29, folder)):
        write_index(folder, {name: f"{shard}.safetensors" for shard, names in shards.items() for name in names[:named]})
        with pytest.raises(CheckpointError, match="holds more than 119 tensors, more than any model") as caught:
            open_checkpoint(folder)
        assert caught.value.where == where


def test_an_adapter_beside_a_full_model_is_told(tmp_path: Path) -> None:
    folder = write_config(tmp_path)
    (folder / SINGLE).write_bytes(one_tensor())
    assert open_checkpoint(folder).notes == ()
    (folder / "adapter_config.json").write_text("{}")
    assert "an adapter lies in the folder too" in open_checkpoint(folder).notes[0]


def test_a_config_may_hold_infinity_but_not_half_a_character(tmp_path: Path) -> None:
    folder = write_config(tmp_path, time_step_limit=[0.0, float("inf")])
    (folder / SINGLE).write_bytes(one_tensor())
    assert open_checkpoint(folder).config["time_step_limit"][1] == float("inf")
    (folder / "config.json").write_text(json.dumps({"a": "\ud800"}))
    with pytest.raises(CheckpointError, match="not valid JSON"):
        open_checkpoint(folder)


def test_every_tensor_type_of_torch_opens(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    types = [torch.bool, torch.uint16, torch.int64, torch.float8_e5m2fnuz, torch.complex64, torch.float64]
    folder = write_config(tmp_path)
    save_file({str(dtype): torch.zeros(2, dtype=dtype) for dtype in types}, folder / SINGLE)
    assert len(open_checkpoint(folder).tensors) == len(types)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("https://example.org/v1", "NAME@URL"),
        ("organisation/model", "hf download organisation/model"),
        ("./model", None),
    ],
)
def test_a_model_that_is_somewhere_else_is_told_so(
    name: str, remedy: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such folder") as refusal:
        open_checkpoint(name)
    assert refusal.value.remedy is None if remedy is None else remedy in str(refusal.value.remedy)
