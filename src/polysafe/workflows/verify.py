"""Whether an output computes what its edit promises: its logits beside those of its sources with the edit on them.

A manifest says that files are as they were written. Here the model is made again, in memory, from the sources that the
edit names by their hashes, and both models read the same tokens. What passes was not changed together with its
manifest, and was written as the edit says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from polysafe.checkpoint.dtypes import bytes_of, torch_dtype
from polysafe.checkpoint.lora import is_adapter, open_reader
from polysafe.checkpoint.opened import Source, open_source
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.reader import row_blocks
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint
from polysafe.checkpoint.values import Survey
from polysafe.checkpoint.verify import VerifyReport, verify_output
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.edits.reader import EditedReader
from polysafe.engine.given import check_given, open_given, open_recorded
from polysafe.errors import CheckpointError, PolysafeError
from polysafe.probe.model import load_model
from polysafe.progress import counted
from polysafe.workflows.apply import load_edit

PROMPTS, TOKENS = 8, 16
_SUMS = 64 * torch.finfo(torch.float32).eps
"""What the order of sums in float32 can change, as a share of the largest logit."""


@dataclass(frozen=True)
class Depth:
    """How far a model is from what its edit promises.

    Attributes:
        ok: Whether the largest difference is within the tolerance.
        largest: Largest difference of two logits; NaN where one is no number.
        tolerance: What is still right.
        reason: Why that much, in words.
        logit: Largest absolute logit that was expected.
        prompts: Number of prompts.
        tokens: Tokens of a prompt.
        tensors: What looks broken in the output, whose sources may have been so too.
    """

    ok: bool
    largest: float
    tolerance: float
    reason: str
    logit: float
    prompts: int
    tokens: int
    tensors: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The finding as plain data; no number where there is none."""
        return {name: None if value != value else value for name, value in asdict(self).items()}  # noqa: PLR0124


def verify_deep(
    output: Path,
    sources: Mapping[str, Path] | None = None,
    *,
    advance: Callable[[int], None] = lambda _: None,
    device: str | None = None,
) -> tuple[VerifyReport, Depth | None]:
    """Checks an output against its manifest, and then its logits against its edit.

    Args:
        output: The output.
        sources: Folder of every source of the edit; by default those that the recipe in the output names.
        advance: Told the bytes that are read for the manifest.
        device: Where both models run, one after the other.

    Returns:
        The report on its files, and how far its logits are from the expected ones; None where files are wrong already.

    Raises:
        CheckpointError: There is no manifest, no edit made it, or a source is not there.
        MismatchError: A source is not the one that the edit was made of.
        PolysafeError: As for loading a model.
    """
    report = verify_output(output, advance)
    if not report.ok:
        return report, None
    edit = _edit_of(output)
    checkpoints = open_given(edit, sources) if sources else _recorded(edit, output)
    expected = _expected(edit, checkpoints, device)
    with open_source(output) as source:
        found, tensors = _logits(source, device), tuple(_broken(source))
    return report, _compare(expected, found, _coarsest(checkpoints[edit.start], edit), tensors)


def _edit_of(output: Path) -> Edit:
    if is_adapter(output):
        raise CheckpointError("is an adapter; only full models are compared with their edit", where=output)
    if not (output / RECORDS / JSON_FILE).is_file():
        raise CheckpointError(
            "was made by no edit, so nothing says what its logits should be",
            where=output,
            remedy="leave out --deep",
        )
    return load_edit(output / RECORDS)


def _recorded(edit: Edit, output: Path) -> dict[str, Checkpoint]:
    try:
        checkpoints = open_recorded(edit, output)
    except PolysafeError as error:
        raise CheckpointError(
            f"the models that it was made of are needed, and are not where its recipe says: {error.problem}",
            where=error.where,
            remedy=f"name them: {' '.join(f'--source {name}=FOLDER' for name in edit.sources)}",
        ) from error
    check_given(edit, checkpoints)
    return checkpoints


def _expected(edit: Edit, checkpoints: Mapping[str, Checkpoint], device: str | None) -> torch.Tensor:
    with ExitStack() as stack:
        readers = {name: stack.enter_context(open_reader(checkpoints[name])) for name in edit.sources}
        start = checkpoints[edit.start]
        return _logits(Source(edit.start, start, classify(start), EditedReader(edit, readers)), device)


def _logits(source: Source, device: str | None) -> torch.Tensor:
    """Logits of the model of a source on the prompts, float32 [prompts, tokens, vocabulary]."""
    model = load_model(source, device, dtype=torch.float32)
    embeddings: Any = model.model.get_input_embeddings()
    advance = counted(f"logits of {source.name}", PROMPTS)
    found = []
    with torch.inference_mode():
        for prompt in _prompts(embeddings.num_embeddings):
            found.append(model.model(prompt[None].to(model.device), use_cache=False).logits[0].float().cpu())
            advance()
    return torch.stack(found)


def _prompts(vocabulary: int) -> torch.Tensor:
    """The same tokens for every model of a vocabulary, int64 [prompts, tokens]."""
    return torch.randint(0, vocabulary, (PROMPTS, TOKENS), generator=torch.Generator().manual_seed(0))


def _broken(source: Source) -> tuple[str, ...]:
    survey = Survey()
    for name in source.reader.names():
        spec = source.reader.spec(name)
        for _ in survey.seen(spec, (bytes_of(source.reader.rows(name, *block)) for block in row_blocks(spec))):
            pass
    return tuple(survey.lines())


def _coarsest(start: Checkpoint, edit: Edit) -> str:
    """The storage type that most numbers of the result are rounded to."""
    return edit.dtype or max(start.tensors.values(), key=lambda spec: spec.numel).dtype


def _compare(expected: torch.Tensor, found: torch.Tensor, dtype: str, tensors: tuple[str, ...]) -> Depth:
    logit = float(expected.abs().max())
    step = torch.finfo(torch_dtype(dtype)).eps
    share, reason = max(
        (step, f"one step of {dtype}, to which an edit on another processor may round a number otherwise"),
        (_SUMS, "64 steps of float32, in which both are computed"),
    )
    largest = float((expected - found).abs().max()) if expected.shape == found.shape else float("nan")
    return Depth(
        largest <= share * logit, largest, share * logit, f"{share:.1e} of the largest logit: {reason}", logit,
        PROMPTS, TOKENS, tensors,
    )  # fmt: skip
