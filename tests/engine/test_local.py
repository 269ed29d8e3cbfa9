from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.dtypes import bytes_of
from polysafe.checkpoint.reader import BLOCK_BYTES, COPY_BYTES
from polysafe.edits.operations import AddDelta, Blend, Dare, Operation
from polysafe.edits.reader import EditedReader
from polysafe.engine.local import READ_AHEAD, LocalEngine, tensor_blocks
from polysafe.errors import EditError
from tests.edits.memory import MemoryReader, edit_of

SHAPE = (5 * (COPY_BYTES // 2000), 1000)  # five blocks of bfloat16


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def reader(operation: Operation | tuple[()], *, broken: bool = False) -> EditedReader:
    tensor = torch.arange(SHAPE[0] * SHAPE[1]).remainder(251).to(torch.bfloat16).view(SHAPE)
    tensor[-1, -1] = float("nan") if broken else 0
    return EditedReader(edit_of({"w": operation}), {name: MemoryReader({"w": tensor}) for name in "abcd"})


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ((), COPY_BYTES),
        (Blend(weights={"a": 0.5, "b": 0.5}), COPY_BYTES),
        (AddDelta(of="b", minus="c", scale=1.0), BLOCK_BYTES),
    ],
)
def test_blocks_make_up_the_tensor(operation: Operation | tuple[()], size: int, pool: ThreadPoolExecutor) -> None:
    edited = reader(operation)
    blocks = [bytes(block) for block in tensor_blocks(edited, "w", pool)]
    assert len(blocks) == math.ceil(5 * COPY_BYTES / size)
    assert b"".join(blocks) == bytes(bytes_of(edited.whole("w")))


def test_only_a_few_blocks_are_made_ahead(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted, submit = [0], pool.submit

    def counted(*arguments: Any) -> Future[Any]:
        submitted[0] += 1
        return submit(*arguments)

    monkeypatch.setattr(pool, "submit", counted)
    for taken, _ in enumerate(tensor_blocks(reader(()), "w", pool), start=1):
        assert submitted[0] <= taken + READ_AHEAD


def test_rules_are_evaluated_in_smaller_blocks(pool: ThreadPoolExecutor) -> None:
    ruled = reader(Blend(weights={"b": 1.0}, rule=Dare(base="a", drop=0.5, seed=0)))
    sizes = [block.nbytes for block in tensor_blocks(ruled, "w", pool)]
    assert max(sizes) <= BLOCK_BYTES // 2
    assert sum(sizes) == ruled.spec("w").nbytes


def test_an_error_in_a_block_reaches_the_writer(pool: ThreadPoolExecutor) -> None:
    blocks = tensor_blocks(reader(Blend(weights={"a": 0.5, "b": 0.5}), broken=True), "w", pool)
    for _ in range(4):
        next(blocks)
    with pytest.raises(EditError, match="holds NaN"):
        next(blocks)


class Task:
    """Notes that it was executed; one of them fails."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.computes = name, log, True

    def execute(self, advance: Any) -> str:
        self.log.append(self.name)
        if self.name == "bad":
            raise EditError("bad", where=Path("w"))
        return f"hash of {self.name}"


def test_tasks_in_order_and_the_first_failure_ends_them() -> None:
    log: list[str] = []
    tasks: Any = [Task(name, log) for name in ("one", "two")]
    assert LocalEngine().execute(tasks, lambda _: None) == ["hash of one", "hash of two"]
    tasks = [Task(name, log) for name in ("three", "bad", "four")]
    with pytest.raises(EditError, match="bad"):
        LocalEngine().execute(tasks, lambda _: None)
    assert log == ["one", "two", "three", "bad"]
