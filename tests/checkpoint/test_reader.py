from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polysafe.checkpoint import reader as reader_module
from polysafe.checkpoint.dtypes import BITS, torch_dtype
from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.reader import BLOCK_BYTES, CheckpointReader, Copies, row_blocks
from polysafe.checkpoint.source import SINGLE, open_checkpoint
from polysafe.errors import CheckpointError
from tests.checkpoint.raw import entry, raw, write_config
from tests.models import read_weights, tiny_llama


def reader_of(folder: Path, tensors: dict[str, torch.Tensor]) -> CheckpointReader:
    save_file(tensors, write_config(folder) / SINGLE)
    return CheckpointReader(open_checkpoint(folder))


@pytest.mark.parametrize("shards", [1, 3])
def test_whole_tensors(shards: int, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=shards)
    with CheckpointReader(open_checkpoint(folder)) as reader:
        for name, tensor in read_weights(folder).items():
            assert reader.whole(name).dtype == tensor.dtype
            assert torch.equal(reader.whole(name), tensor)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (3, 4), (0, 4), (3, 0), (2, 3, 4), (2, 0, 3)])
@pytest.mark.parametrize("step", [1, 2, 100])
def test_blocks_of_rows_make_up_the_tensor(shape: tuple[int, ...], step: int, tmp_path: Path) -> None:
    tensor = torch.randn(shape).to(torch.bfloat16)
    with reader_of(tmp_path, {"before": torch.zeros(3), "w": tensor, "after": torch.ones(3)}) as reader:
        spec = reader.spec("w")
        parts = [reader.rows("w", i, min(i + step, spec.rows)) for i in range(0, spec.rows, step)]
        assert all(part.shape[1] == spec.columns for part in parts)
        assert torch.equal(torch.cat([part.reshape(-1) for part in parts or [tensor.reshape(-1)]]), tensor.reshape(-1))
        assert reader.rows("w", 0, 0).numel() == 0
        assert reader.whole("w").shape == shape


def test_copied_bytes_are_those_of_the_file_while_the_last_few_blocks_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "COPY_BYTES", 64)
    tensor, unfinished = torch.arange(200, dtype=torch.int64), 3
    with reader_of(tmp_path, {"w": tensor, "none": torch.zeros(0)}) as reader:
        copies, kept, found = Copies(unfinished), deque[memoryview](maxlen=unfinished + 1), b""
        for block in copies.of(reader, "w"):
            if len(kept) == kept.maxlen:
                found += bytes(kept[0])  # still as it was read, with so many blocks after it
            kept.append(block)
        assert found + b"".join(kept) == tensor.numpy().tobytes()
        assert list(copies.of(reader, "none")) == []


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_type_is_read_byte_for_byte(dtype: str, tmp_path: Path) -> None:
    described = entry(dtype, (4, 8))
    data = os.urandom(described["data_offsets"][1])
    (write_config(tmp_path) / SINGLE).write_bytes(raw({"w": described}, data))
    with CheckpointReader(open_checkpoint(tmp_path)) as reader:
        spec = reader.spec("w")
        rows = [reader.rows("w", row, row + 1).contiguous().view(-1).view(torch.uint8) for row in range(spec.rows)]
        assert bytes(torch.cat(rows).tolist()) == data
        assert reader.rows("w", 0, 1).dtype == torch_dtype(dtype)


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_llama(tmp_path / "m")
    whole_read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: whole_read(fd, [buffers[0][:7]], offset))
    with CheckpointReader(open_checkpoint(folder)) as reader:
        assert all(torch.equal(reader.whole(name), tensor) for name, tensor in read_weights(folder).items())


def test_file_that_becomes_shorter(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    checkpoint = open_checkpoint(folder)
    last = list(checkpoint.tensors)[-1]
    os.truncate(folder / SINGLE, (folder / SINGLE).stat().st_size - 1)
    with CheckpointReader(checkpoint) as reader, pytest.raises(CheckpointError, match="became shorter") as caught:
        reader.whole(last)
    assert caught.value.where == folder / SINGLE


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_llama(tmp_path / "m")
    checkpoint = open_checkpoint(folder)
    name = next(iter(checkpoint.tensors))

    def broken_disk(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken_disk)
    with CheckpointReader(checkpoint) as reader, pytest.raises(CheckpointError, match="Input/output error"):
        reader.whole(name)
    (folder / SINGLE).unlink()
    with CheckpointReader(checkpoint) as reader, pytest.raises(CheckpointError, match="cannot be opened"):
        reader.whole(name)


def test_unknown_tensor(tmp_path: Path) -> None:
    with (
        CheckpointReader(open_checkpoint(tiny_llama(tmp_path / "m"))) as reader,
        pytest.raises(CheckpointError, match="no tensor 'w'"),
    ):
        reader.spec("w")


def test_bytes_are_counted_and_files_closed(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_llama(tmp_path / "m", shards=2))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with CheckpointReader(checkpoint) as reader:
        for name in reader.names():
            reader.whole(name)
    assert reader.bytes_read == checkpoint.total_bytes
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_several_threads_share_a_reader(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m", shards=3)
    weights = read_weights(folder)
    with CheckpointReader(open_checkpoint(folder)) as reader, ThreadPoolExecutor(8) as pool:
        for name, tensor in zip(weights, pool.map(reader.whole, weights), strict=True):
            assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize("shape", [(), (7,), (1000, 3), (3, 10**6), (0, 5), (5, 0), (2, 3, 4)])
@pytest.mark.parametrize("block", [1, 64, BLOCK_BYTES])
def test_row_blocks_cover_every_row_once(shape: tuple[int, ...], block: int) -> None:
    spec = TensorSpec("w", "F32", shape, Path("f"), 0, tensor_bytes("F32", shape))
    blocks = list(row_blocks(spec, block))
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(spec.rows))
    assert all((stop - start) * spec.row_bytes <= max(block, spec.row_bytes) for start, stop in blocks)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not say which files are open")
def test_more_files_than_a_process_opens_at_first_are_read(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    folder = tiny_llama(tmp_path / "m", shards=3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    try:
        with CheckpointReader(open_checkpoint(folder)) as reader:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
            found = {name: reader.whole(name) for name in reader.names()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.keys() == read_weights(folder).keys()
    assert len(list(folder.glob("*.safetensors"))) == 3
