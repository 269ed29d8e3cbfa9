"""Executes write tasks in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from polysafe.checkpoint.dtypes import bytes_of
from polysafe.checkpoint.layout import Shard
from polysafe.checkpoint.lora import AdaptedCheckpoint, open_reader
from polysafe.checkpoint.reader import Copies, TensorReader, row_blocks
from polysafe.checkpoint.source import Checkpoint
from polysafe.checkpoint.values import Survey
from polysafe.checkpoint.writer import HASH_AHEAD, write_shard
from polysafe.edits.edit import Edit
from polysafe.edits.operations import Copy
from polysafe.edits.reader import EditedReader
from polysafe.progress import say
from polysafe.threads import threads

READ_AHEAD = 2
"""Blocks that are evaluated ahead of the one being written: reading, arithmetic and writing overlap."""


@dataclass(frozen=True)
class ShardTask:
    """Everything that is needed to write one output file, in any process that sees the same files.

    Attributes:
        edit: What to apply.
        sources: The checkpoints that the edit's source names stand for.
        shard: The file to write.
        folder: Where it goes.
        progress_file: Where its durable progress is kept.
    """

    edit: Edit
    sources: Mapping[str, Checkpoint]
    shard: Shard
    folder: Path
    progress_file: Path

    @property
    def computes(self) -> bool:
        """Whether numbers of the file are computed: copies of files need no torch, which takes a second to import."""
        edited = self.edit.dtype or any(not isinstance(operation, Copy) for _, operation in self.edit.operations())
        return bool(edited) or any(isinstance(each, AdaptedCheckpoint) for each in self.sources.values())

    def execute(self, advance: Callable[[int], None]) -> str:
        """Writes the file, says which tensors in it look broken, and returns its SHA-256."""
        survey = Survey()
        with ExitStack() as stack:
            readers = {name: stack.enter_context(open_reader(checkpoint)) for name, checkpoint in self.sources.items()}
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluate"))
            edited, copies = EditedReader(self.edit, readers), Copies(HASH_AHEAD)

            def produce(name: str) -> Iterator[memoryview]:
                files = edited.copied_from(name)
                blocks = tensor_blocks(edited, name, pool) if files is None else copies.of(files, name)
                return survey.seen(edited.spec(name), blocks)

            digest = write_shard(self.shard, self.folder, self.progress_file, produce, advance)
        for line in survey.lines():
            say(f"{self.shard.name} has {line}")
        return digest


class Engine(Protocol):
    """Where tasks are executed, and models are read."""

    def probing(self) -> AbstractContextManager[None]:
        """Within it, what a model has to be run for to decide is done there as far as it can be shared."""

    def execute(self, tasks: Sequence[ShardTask], advance: Callable[[int], None]) -> list[str]:
        """Executes all tasks and returns their hashes in order; the first failure ends the run."""


class LocalEngine:
    """One task after the other: a disk is the limit, and it serves one stream best."""

    def probing(self) -> AbstractContextManager[None]:
        """Nothing is shared."""
        return nullcontext()

    def execute(self, tasks: Sequence[ShardTask], advance: Callable[[int], None]) -> list[str]:
        """Executes all tasks and returns their hashes in order; the first failure ends the run."""
        with threads(1) if any(task.computes for task in tasks) else nullcontext():
            return [task.execute(advance) for task in tasks]


def tensor_blocks(reader: EditedReader, name: str, pool: ThreadPoolExecutor) -> Iterator[memoryview]:
    """The bytes of a tensor in blocks, evaluated in `pool` a little ahead of their use."""
    ranges = row_blocks(reader.spec(name), reader.block_bytes(name))
    waiting = [pool.submit(_block_bytes, reader, name, *block) for block in islice(ranges, READ_AHEAD)]
    for block in chain(ranges, [None] * len(waiting)):
        ready = waiting.pop(0).result()
        if block is not None:
            waiting.append(pool.submit(_block_bytes, reader, name, *block))
        yield ready


def _block_bytes(reader: TensorReader, name: str, start: int, stop: int) -> memoryview:
    return bytes_of(reader.rows(name, start, stop))
