"""Parsers of what a model's folder, an adapter, an edit or an output may hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from polysafe.files.json_file import remembered
from tests.fuzz.target import Parser, Target, folder

Made = tuple[Parser, Sequence[bytes]]

_HEADER = (b'"__metadata__"', b'"dtype"', b'"shape"', b'"data_offsets"', b'"BF16"', b'"F4"', b'"I64"', b'"F8_E8M0"')


def in_file(path: Path, read: Callable[[Path], object]) -> Parser:
    """The parser of a file, as one of its bytes."""

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parse


def _tiny(where: Path, shards: int = 1) -> Path:
    from tests.models import tiny_model

    return tiny_model().save(where, shards=shards)


def _header() -> Made:
    from polysafe.checkpoint.header import encode_header, read_header

    def read(path: Path) -> object:
        return [(spec.numel, spec.rows, spec.columns, spec.row_bytes) for spec in read_header(path).tensors.values()]

    shapes = ((("w", "BF16", (2, 3)), ("b", "F32", (2,))), (("q", "F4", (4, 2)), ("s", "I64", ())), ())
    sizes = (20, 12, 0)
    seeds = [encode_header(each) + bytes(size) for each, size in zip(shapes, sizes, strict=True)]
    stand_ins = (b"", b"version https://git-lfs.github.com/spec/v1\n", b"<!doctype html>", b"\xef\xbb\xbf <html>")
    return in_file(folder("header") / "model.safetensors", read), [*seeds, *stand_ins]


def _opened(root: Path) -> object:
    from polysafe.checkpoint.digest import identity_of
    from polysafe.checkpoint.quantised import check_editable
    from polysafe.checkpoint.roles import classify
    from polysafe.checkpoint.source import is_complete, open_checkpoint

    found = open_checkpoint(root)
    check_editable(found)
    return found.total_bytes, classify(found), identity_of(["0" * 64], found.config), is_complete(root)


def _index() -> Made:
    root = _tiny(folder("index") / "model", shards=2)
    path = root / "model.safetensors.index.json"
    return in_file(path, lambda _: _opened(root)), [path.read_bytes()]


def _config() -> Made:
    from tests.models import FAMILIES

    root = _tiny(folder("config") / "model")
    seeds = [(root / "config.json").read_bytes()]
    seeds += [json.dumps({**family.config, "num_hidden_layers": 2}).encode() for family in FAMILIES.values()]
    return in_file(root / "config.json", lambda _: _opened(root)), seeds


def _adapter(name: str) -> Made:
    """One file of an adapter on a tiny base; expressions in it are given less time than usual."""
    from polysafe.checkpoint import adapter_config
    from polysafe.checkpoint.lora import open_adapter, open_reader
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.confined import Confined
    from tests.models import tiny_model, write_adapter

    hurried = Confined("polysafe.checkpoint.patterns:first_matches", "an expression", seconds=0.5)
    place = folder("adapter")
    base = open_checkpoint(_tiny(place / "base"))
    root = write_adapter(place / "lora", tiny_model())

    def read(_: Path) -> object:
        with patch.object(adapter_config, "_MATCHES", hurried):
            adapted = open_adapter(root, base)
        with open_reader(adapted) as reader:
            return [reader.rows(tensor, 0, 1) for tensor in list(adapted.scales)[:2]]

    seeds = [(root / name).read_bytes()]
    if name.endswith(".json"):
        more = {"alpha_pattern": {"q_proj": 3, r".*\.k_proj": 2.5}, "rank_pattern": {r"layers\.\d+": 3}}
        seeds.append(json.dumps(json.loads(seeds[0]) | more | {"use_rslora": True}).encode())
    return in_file(root / name, read), seeds


def _edit_of(place: Path) -> Path:
    """The folder of an edit with every kind of operation."""
    import torch

    from polysafe.edits.edit import Decision, Edit, Provenance, SourceRecord
    from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Ties

    ties = Ties(base="base", thresholds={"a": 0.1})
    low_rank = AddLowRank(rows=torch.arange(2), a=torch.ones(2, 1), b=torch.ones(4, 1))
    steps = {
        "copied": (Copy(source="a"),),
        "blended": (Blend(weights={"a": 0.5, "base": 0.5}), AddDelta(of="a", minus="base", scale=0.5)),
        "ruled": (Blend(weights={"a": 1.0}, rule=Dare(base="base", drop=0.5, seed=1, then=ties)),),
        "updated": (low_rank,),
    }
    decision = Decision(block="layers.1", layer=1, choice="safety", safety_weight=0.5, score=1.0, detail={"x": 0.5})
    told = Provenance(method="m.v1", label="m", options={"k": [1]}, decisions=(decision,), evidence={"trials": [1]})
    sources = {name: SourceRecord(origin=name, files={"model.safetensors": "0" * 64}) for name in ("a", "base")}
    Edit(start="base", steps=steps, sources=sources, provenance=(told,)).save(place)
    return place


def _told(path: Path) -> object:
    from polysafe.edits.edit import Edit
    from polysafe.edits.explain import explain

    edit = Edit.load(path)
    return explain(edit), [edit.reads(tensor) for tensor in edit.steps], json.dumps(edit.model_dump(exclude={"steps"}))


def _edit() -> Made:
    path = _edit_of(folder("edit")) / "edit.json"
    return in_file(path, _told), [path.read_bytes()]


def _factors() -> Made:
    root = _edit_of(folder("factors"))
    content = json.loads((root / "edit.json").read_text())

    def read(path: Path) -> object:
        told = content | {"factors_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        (root / "edit.json").write_text(json.dumps(told))
        return _told(root)

    path = root / "edit.safetensors"
    return in_file(path, read), [path.read_bytes()]


def _codes() -> Made:
    """The state of a weight of four bits, which says how its codes and tables are read by a library in C."""
    import torch
    from safetensors.torch import save_file

    from polysafe.checkpoint.reader import CheckpointReader
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.engine.import_quantised import ordinary

    root, weight = folder("codes"), "model.layers.0.mlp.up_proj.weight"
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (root / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantised}))
    draw = torch.Generator().manual_seed(0)
    tables = {
        weight: torch.randint(0, 256, (8 * 64 // 2, 1), dtype=torch.uint8, generator=draw),
        f"{weight}.absmax": torch.randint(0, 256, (8,), dtype=torch.uint8, generator=draw),
        f"{weight}.quant_map": torch.linspace(-1, 1, 16),
        f"{weight}.nested_absmax": torch.ones(1),
        f"{weight}.nested_quant_map": torch.linspace(-1, 1, 256),
    }
    plain = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 64]}
    nested = plain | {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.1}

    def read(path: Path) -> object:
        state = torch.frombuffer(bytearray(path.read_bytes() or b" "), dtype=torch.uint8)
        content = {**tables, f"{weight}.quant_state.bitsandbytes__nf4": state}
        save_file(content, root / "model.safetensors", metadata={"format": "pt"})
        with CheckpointReader(open_checkpoint(root)) as reader:
            found = ordinary(reader, "BF16")
            return [len(block) for spec in found.specs for block in found.blocks(spec.name)]

    return in_file(root / "state", read), [json.dumps(each).encode() for each in (nested, plain)]


def _scheme() -> Made:
    """What a config says of codes of four bits with zero points, beside tensors that stay as they are."""
    import torch
    from safetensors.torch import save_file

    from polysafe.checkpoint.reader import CheckpointReader
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.engine.import_quantised import ordinary

    root, module = folder("scheme"), "model.layers.0.mlp.up_proj"
    tensors = {
        f"{module}.weight_packed": torch.arange(64, dtype=torch.int32).reshape(8, 8),
        f"{module}.weight_scale": torch.ones(8, 4),
        f"{module}.weight_shape": torch.tensor([8, 64]),
        f"{module}.weight_zero_point": torch.ones(1, 4, dtype=torch.int32),
    }
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 16}
    sound = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
        "sparsity_config": {},
    }

    def read(path: Path) -> object:
        said = b'{"model_type": "llama", "quantization_config": ' + path.read_bytes() + b"}"
        (root / "config.json").write_bytes(said)
        with CheckpointReader(open_checkpoint(root)) as reader:
            found = ordinary(reader, "BF16")
            return [len(block) for spec in found.specs for block in found.blocks(spec.name)]

    return in_file(root / "settings", read), [json.dumps(sound).encode()]


def _gguf() -> Made:
    import numpy as np
    from gguf import GGUFWriter

    from polysafe.checkpoint.gguf.header import read_gguf_header

    path = folder("gguf") / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_custom_alignment(32)
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float32))
    writer.add_tensor("blk.0.attn_norm.weight", np.zeros(4, np.float16))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    return in_file(path, lambda file: read_gguf_header(file).types), [path.read_bytes()]


def _output(place: Path) -> Path:
    """A folder that looks like an output, with a manifest of one small file."""
    from polysafe.checkpoint.output import MANIFEST
    from polysafe.checkpoint.verify import manifest

    root = place / "out"
    (root / "polysafe").mkdir(parents=True)
    (root / "README.md").write_text("old\n")
    files = {"README.md": (4, hashlib.sha256(b"old\n").hexdigest()), "model.safetensors": (1, "0" * 64)}
    (root / MANIFEST).write_text(json.dumps(manifest("0" * 64, files, {"a": {"origin": "a", "files": {}}})))
    return root


def _manifest() -> Made:
    from polysafe.checkpoint.output import MANIFEST
    from polysafe.checkpoint.verify import is_whole, read_manifest, verify_output

    root = _output(folder("manifest"))

    def read(_: Path) -> object:
        return verify_output(root).to_json(), is_whole(root, read_manifest(root))

    return in_file(root / MANIFEST, read), [(root / MANIFEST).read_bytes()]


def _update() -> Made:
    """An update that is left over; it may write the card and records, and must leave every other file alone."""
    from polysafe.checkpoint import update
    from polysafe.checkpoint.output import MANIFEST
    from polysafe.checkpoint.update import finish_update, replace_files
    from polysafe.checkpoint.verify import UPDATE

    root = _output(folder("update"))
    before = (root / MANIFEST).read_bytes()
    carry_out = update._carry_out
    update._carry_out = lambda *_: None
    replace_files(root, {"README.md": b"new\n", "polysafe/card.json": b"{}"})
    update._carry_out = carry_out
    seed = (root / UPDATE).read_bytes()
    victim = root.parent / "victim"
    victim.write_text("untouched")

    def read(_: Path) -> object:
        (root / MANIFEST).write_bytes(before)
        try:
            return finish_update(root)
        finally:
            assert victim.read_text() == "untouched"
            assert set(os.listdir(root.parent)) == {"out", "victim"}

    return in_file(root / UPDATE, read), [seed]


def _remembered() -> Made:
    def read(path: Path) -> Any:
        return remembered(path).get("job")

    return in_file(folder("remembered") / "job.json", read), [b'{"job": "a"}', b'{"key": [1, "x"], "sha256": "0"}']


MODELS = (
    Target("header", _header, "safetensors", _HEADER, inputs=3000),
    Target("index", _index, "json", (b'"weight_map"', b".safetensors", b"../"), inputs=600),
    Target("config", _config, "json", (b'"text_config"', b'"num_hidden_layers"', b"Infinity", b'"quant_method"'), 400),
    Target("adapter_config", lambda: _adapter("adapter_config.json"), "json", (b"(a+)+$", b"[", b"*", b"{9999}"), 300),
    Target("adapter_factors", lambda: _adapter("adapter_model.safetensors"), "safetensors", _HEADER, 400),
    Target("edit", _edit, "json", (b'"op"', b'"add_low_rank"', b'"blend"', b'"add_delta"', b'"rows"'), 800),
    Target("edit_factors", _factors, "safetensors", _HEADER, 800),
    Target("codes", _codes, "json", (b'"shape"', b'"blocksize"', b'"nested_blocksize"', b'"dtype"', b'"fp4"'), 300),
    Target("scheme", _scheme, "json", (b'"num_bits"', b'"strategy"', b'"channel"', b'"group_size"', b'"dense"'), 600),
    Target("gguf", _gguf, "bytes", (b"GGUF", b"general.alignment", b"general.architecture", b"split.count"), 3000),
    Target("manifest", _manifest, "json", (b'"path"', b'"size"', b'"sha256"'), 1000),
    Target("update", _update, "json", (b"polysafe/", b"README.md", b"manifest.json"), 600),
    Target("remembered", _remembered, "json", (), 1000),
)
