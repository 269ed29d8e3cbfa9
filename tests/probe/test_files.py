from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from polysafe.errors import CheckpointError, DataError, MismatchError, OutputError
from polysafe.probe.capture import load_captured
from polysafe.probe.files import ProbeRecord, read_probe, write_probe

RECORD = ProbeRecord(
    model="m" * 64,
    tokenizer="t" * 64,
    data="d" * 64,
    kind="rows",
    site="mlp",
    layers=(0, 2),
    modules=("layers.0.mlp", "layers.2.mlp"),
    pooling="last",
    dtype="float32",
    prompts=2,
    tokens=9,
)
IDS = ("a", "b")
CHANGES: dict[str, Any] = {
    "model": "n" * 64,
    "tokenizer": "u" * 64,
    "data": "e" * 64,
    "pairs": "f" * 64,
    "kind": "moments",
    "site": "heads",
    "layers": (0, 1),
    "modules": ("layers.0.mlp", "layers.1.mlp"),
    "pooling": "mean",
    "dtype": "bfloat16",
    "prompts": 3,
    "tokens": 10,
}


def _written(path: Path) -> Path:
    write_probe(path, RECORD, IDS, {"0": torch.arange(6.0).view(2, 3), "done": torch.tensor([True, False])})
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = _written(tmp_path / "new" / "harmful.probe")
    record, ids, tensors = read_probe(path, ProbeRecord, RECORD)
    assert (record, ids) == (RECORD, IDS)
    assert torch.equal(tensors["0"], torch.arange(6.0).view(2, 3))
    assert tensors["done"].tolist() == [True, False]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.fault(14, "the umask")
def test_the_umask_decides_the_mode(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = _written(tmp_path / "a.probe")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_every_field_is_compared() -> None:
    assert CHANGES.keys() == ProbeRecord.model_fields.keys()


@pytest.mark.hostile("probe")
@pytest.mark.parametrize("field", CHANGES)
def test_a_mismatch_names_the_field(tmp_path: Path, field: str) -> None:
    path = _written(tmp_path / "a.probe")
    expected = RECORD.model_copy(update={field: CHANGES[field]})
    with pytest.raises(MismatchError, match=rf"a\.probe: was recorded with another {field}: "):
        read_probe(path, ProbeRecord, expected)


@pytest.mark.hostile("probe")
def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="is no probe file"):
        read_probe(path, ProbeRecord)
    content = {"polysafe_probe": 99, "record": RECORD.model_dump(mode="json"), "ids": IDS}
    save_file({"x": torch.zeros(1)}, path, metadata={"polysafe_probe": json.dumps(content)})
    with pytest.raises(DataError, match="schema 99"):
        read_probe(path, ProbeRecord)
    save_file({"x": torch.zeros(1)}, path, metadata={"polysafe_probe": json.dumps({"polysafe_probe": 1})})
    with pytest.raises(DataError, match="is no valid probe file"):
        read_probe(path, ProbeRecord)
    save_file({"x": torch.zeros(1)}, path, metadata={"polysafe_probe": "[" * 10})
    with pytest.raises(DataError, match="is not valid JSON"):
        read_probe(path, ProbeRecord)


@pytest.mark.hostile("probe")
def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.probe")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        read_probe(path, ProbeRecord)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path / "a.probe")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"a\.probe: cannot be written.*No space"):
            write_probe(path, RECORD, IDS, {"x": torch.zeros(4)[::2]})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputError, match="cannot be written"):
        write_probe(path / "below-a-file", RECORD, IDS, {})


WIDE = torch.ones(3, dtype=torch.float64)
STATISTICS = {"store.0.count": torch.tensor(2), "store.0.mean": WIDE, "store.0.deviation": WIDE.clone()}
ROWS = {"store.0": torch.ones(2, 3)}
DONE = {"done": torch.ones(2, dtype=torch.bool)}
UNFIT: dict[str, tuple[str, dict[str, torch.Tensor]]] = {
    "another kind": ("sums", {**ROWS, **DONE}),
    "nothing is done": ("rows", ROWS),
    "done in numbers": ("rows", {**ROWS, "done": torch.ones(2)}),
    "done of other prompts": ("rows", {**ROWS, "done": torch.ones(3, dtype=torch.bool)}),
    "rows of other prompts": ("rows", {"store.0": torch.ones(3, 3), **DONE}),
    "a row": ("rows", {"store.0": torch.ones(3), **DONE}),
    "another layer": ("rows", {"store.7": torch.ones(2, 3), **DONE}),
    "a layer in words": ("rows", {"store.first": torch.ones(2, 3), **DONE}),
    "no spread": ("statistics", {**STATISTICS, "store.0.deviation": torch.ones(2, dtype=torch.float64), **DONE}),
    "several counts": ("statistics", {**STATISTICS, "store.0.count": torch.tensor([1, 2]), **DONE}),
    "moments without sums": ("moments", {**{f"store.0.x.{k[8:]}": v for k, v in STATISTICS.items()}, **DONE}),
}


@pytest.mark.parametrize("case", UNFIT)
def test_tensors_that_are_not_those_of_the_record_are_refused(case: str, tmp_path: Path) -> None:
    kind, tensors = UNFIT[case]
    write_probe(tmp_path / "p", RECORD.model_copy(update={"kind": kind}), IDS, tensors)
    with pytest.raises(DataError, match=r"is no valid probe file|knows nothing") as caught:
        load_captured(tmp_path / "p")
    assert caught.value.where == tmp_path / "p"


@pytest.mark.parametrize(("kind", "tensors"), [("rows", ROWS), ("statistics", STATISTICS)])
def test_what_fits_is_read(kind: str, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    write_probe(tmp_path / "p", RECORD.model_copy(update={"kind": kind}), IDS, {**tensors, **DONE})
    assert load_captured(tmp_path / "p").ids == IDS
