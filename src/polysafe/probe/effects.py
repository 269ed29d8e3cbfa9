"""The causal effect of every attention head on in-context tasks.

For head h of layer l, with ā its mean output at the last position of prompts that show a task, and p̃ a prompt whose
demonstrations do not show it:

    CIE(l, h) = P(answer | p̃, head output ← ā) − P(answer | p̃)

(Todd et al., *Function Vectors in Large Language Models*, ICLR 2024; Banerjee et al., *Soteria*, EMNLP 2025, per
language). The result keeps every prompt, so that tasks can be combined, and the noise be judged, after the run.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from polysafe._version import __version__
from polysafe.data.trials import Trials
from polysafe.errors import ArchitectureError, DataError, ResourceError
from polysafe.probe.answers import Score, ScoredPrompt, ScoredTokens, TaskPrompts, task_prompts
from polysafe.probe.capture import capture
from polysafe.probe.files import FORMAT, Record, read_probe, write_probe
from polysafe.probe.hands import hands_for
from polysafe.probe.kept import effects_key
from polysafe.probe.model import LoadedModel, Site
from polysafe.probe.moments import Tensors, below
from polysafe.probe.scorers import RowScorer, patched_scores
from polysafe.probe.stores import Statistics
from polysafe.progress import Meter, counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOLERANCE: Mapping[torch.dtype, float] = {torch.float64: 1e-8, torch.float32: 1e-5}
"""Largest difference between a score and the same score of a plain forward pass; 16-bit types are given 2e-2."""
_COARSE = 2e-2
_SAVE_SECONDS = 30.0


class EffectsRecord(Record):
    """What effects were measured on.

    Attributes:
        kind: `effects`.
        model: Identity of the weights (`LoadedModel.sha256`).
        tokenizer: SHA-256 of the tokenizer.
        data: SHA-256 of the drawn prompts, by task.
        language: Their language.
        score: What is compared.
        layers: Number of layers that have heads.
        heads: Number of query heads per layer.
        dtype: Type that the model computed in.
    """

    kind: Literal["effects"] = "effects"
    model: str
    tokenizer: str
    data: dict[str, str]
    language: str
    score: Score
    layers: int
    heads: int
    dtype: str


@dataclass(frozen=True)
class TaskEffects:
    """Effects on one task.

    Attributes:
        task: Name of the task.
        effects: CIE, float32 [prompts, layers, heads]; a difference of probabilities, or of log-probabilities for the
            score `full`.
        before: The score without a patch, float32 [prompts].
        tokens: How much the scored tokens say about the answers.
        still_correct: Share of demonstrations in the corrupted prompts that are right all the same.
        too_long: Prompts left out because they do not fit the model's positions.
    """

    task: str
    effects: torch.Tensor
    before: torch.Tensor
    tokens: ScoredTokens
    still_correct: float = 0.0
    too_long: int = 0


@dataclass(frozen=True)
class HeadEffects:
    """Effects of all heads in one language.

    Attributes:
        record: On what they were measured.
        tasks: Task -> its effects.
        notes: How they were measured, where that is not the usual way.
    """

    record: EffectsRecord
    tasks: Mapping[str, TaskEffects]
    notes: tuple[str, ...] = ()

    @property
    def language(self) -> str:
        """The language of the tasks."""
        return self.record.language

    @property
    def per_task(self) -> torch.Tensor:
        """Mean over the prompts of each task, float64 [tasks, layers, heads]."""
        return torch.stack([task.effects.to(torch.float64).mean(0) for task in self.tasks.values()])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Tasks whose scored token is nearly always the same, so that the score does not see the task."""
        return tuple(
            f"{self.language}, {name}: the scored token is the same in {task.tokens.modal_share:.0%} of the prompts, "
            f"the commonest answer in {task.tokens.answer_share:.0%}; the score does not see the task. "
            "Use `score: separating` or `full`"
            for name, task in self.tasks.items()
            if task.tokens.blind
        )


def head_effects(
    model: LoadedModel,
    tokenizer: PreTrainedTokenizerBase,
    trials: Sequence[Trials],
    *,
    score: Score = "separating",
    batch_size: int = 16,
    file: Path | None = None,
    folder: Path | None = None,
    checks: int = 2,
) -> HeadEffects:
    """Measures the effect of every head on every prompt, exactly.

    Costs about 1 + heads·(layers + 1) / (2·tokens) forward passes for each corrupted prompt, and one for each clean
    prompt. Where the architecture does not allow that, heads are patched a layer at a time, with a note.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        trials: Drawn prompts of one language, one entry per task.
        score: What is compared.
        batch_size: Clean prompts in a forward pass.
        file: Where results are kept; an interrupted run goes on from it, and a complete one is read.
        folder: The same without a name: a file of this folder that is called after all that the results depend on.
        checks: Runs that are compared with a plain forward pass before the first prompt.

    Raises:
        ArchitectureError: The config states no heads.
        DataError: There is no task, prompts are of several languages, an answer is empty after tokenization, or an
            effect is not finite.
        MismatchError: `file` was measured on something else, or the tokenizer is not the model's.
        ResourceError: A prompt does not fit the device.
        OutputError: `file` cannot be written.
    """
    language = _language(trials)
    prompts = {each.task: task_prompts(tokenizer, each, score, model.max_tokens) for each in trials}
    record = _record(model, prompts, trials, language, score)
    if file is None and folder is not None:
        name = hashlib.sha256(f"{__version__} {effects_key(record, batch_size)}".encode()).hexdigest()
        file = folder / f"{name}.safetensors"
    state = _State.start(record, prompts, file)
    before = state.done()
    advance = counted("head effects", len(state.ids), before)
    for task in prompts.values():
        _measure(model, task, state, batch_size, 0 if state.done() > before else checks, advance)
    state.save()
    given = {each.task: each for each in trials}
    found = {name: state.effects(task, given[name].still_correct) for name, task in prompts.items()}
    return HeadEffects(record, found, state.notes)


def _language(trials: Sequence[Trials]) -> str:
    languages = sorted({each.language for each in trials})
    if len(languages) != 1:
        raise DataError(
            "there is no task to measure heads on" if not languages else f"tasks are of {', '.join(languages)}",
            remedy="name tasks of one language at a time",
        )
    return languages[0]


def _record(
    model: LoadedModel, prompts: Mapping[str, TaskPrompts], trials: Sequence[Trials], language: str, score: Score
) -> EffectsRecord:
    layout = _layout(model)
    return EffectsRecord(
        model=model.sha256,
        tokenizer=next(iter(prompts.values())).clean.tokenizer,
        data={each.task: each.sha256 for each in trials},
        language=language,
        score=score,
        layers=len(layout.layers),
        heads=layout.heads,
        dtype=model.dtype,
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    layers: tuple[int, ...]
    heads: int
    size: int


def _layout(model: LoadedModel) -> _Layout:
    heads = model.architecture.heads
    if heads is None:
        raise ArchitectureError(
            "the config does not state how many attention heads there are",
            where=model.source.name,
            remedy="head effects need num_attention_heads in config.json",
        )
    return _Layout(model.parameters.with_heads, heads.num_heads, heads.head_dim)


@dataclass
class _State:
    """What is measured so far, in the form in which it is saved: effects are NaN until they are."""

    record: EffectsRecord
    tensors: dict[str, torch.Tensor]
    ids: tuple[str, ...]
    file: Path | None
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, record: EffectsRecord, prompts: Mapping[str, TaskPrompts], file: Path | None) -> _State:
        ids = tuple(f"{task.task}/{prompt.id}" for task in prompts.values() for prompt in task.scored)
        tensors: Tensors = {}
        for name, task in prompts.items():
            shape = (len(task.scored), record.layers, record.heads)
            tensors[f"effects.{name}"] = torch.full(shape, torch.nan)
            tensors[f"before.{name}"] = torch.full(shape[:1], torch.nan)
        if file is not None and file.exists():
            tensors = _kept(file, read_probe(file, EffectsRecord, record)[2], tensors)
        return cls(record, tensors, ids, file)

    def waiting(self, task: str) -> list[int]:
        return torch.nonzero(self.tensors[f"before.{task}"].isnan()).flatten().tolist()

    def put(self, task: str, index: int, scores: torch.Tensor) -> None:
        """Takes the scores of all rows of one prompt, [1 + layers·heads]."""
        effects = self.tensors[f"effects.{task}"]
        effects[index] = (scores[1:] - scores[0]).view(effects.shape[1:])
        self.tensors[f"before.{task}"][index] = scores[0]
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self.save()

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be said of the measurement; it is kept with it, so that a second reading says it too."""
        kept = self.tensors.get("notes")
        return () if kept is None else tuple(bytes(kept.tolist()).decode().split("\0"))

    @notes.setter
    def notes(self, notes: tuple[str, ...]) -> None:
        if notes:
            self.tensors["notes"] = torch.tensor(list("\0".join(notes).encode()), dtype=torch.uint8)

    def save(self) -> None:
        if self.file is not None:
            write_probe(self.file, self.record, self.ids, self.tensors)
        self.saved = time.monotonic()

    def done(self) -> int:
        return sum(int((~kept.isnan()).sum()) for kept in below(self.tensors, "before").values())

    def effects(self, task: TaskPrompts, still_correct: float) -> TaskEffects:
        effects, before = self.tensors[f"effects.{task.task}"], self.tensors[f"before.{task.task}"]
        return TaskEffects(task.task, effects, before, task.tokens, still_correct, task.too_long)


def _kept(file: Path, found: Tensors, wanted: Tensors) -> Tensors:
    """What a file holds, if it is of the tensors that are measured, with notes or without."""

    def build(stored: Tensors) -> Tensors:
        notes = stored.get("notes", torch.empty(0, dtype=torch.uint8))
        if notes.dtype != torch.uint8 or notes.ndim != 1:
            raise ValueError("its notes are no text")
        bytes(notes.tolist()).decode()
        if any((stored[name].shape, stored[name].dtype) != (each.shape, each.dtype) for name, each in wanted.items()):
            raise ValueError("it holds the effects of other prompts")
        return stored

    return FORMAT.built(build, found, file)


def _measure(
    model: LoadedModel,
    task: TaskPrompts,
    state: _State,
    batch_size: int,
    checks: int,
    advance: Meter,
) -> None:
    """Measures what is missing of a task, and notes where the usual way does not work."""
    waiting = state.waiting(task.task)
    if not waiting:
        return
    means = mean_outputs(model, task, batch_size)
    if checks and not state.notes:
        state.notes = _check(model, task.scored[waiting[0]], means, task.score, checks)
    prompts, hands = [task.scored[index] for index in waiting], hands_for(model)
    try:
        for place, scores in hands.scores(model, prompts, means=means, score=task.score, by_rows=not state.notes):
            _require_finite(scores, task, waiting[place])
            state.put(task.task, waiting[place], scores)
            advance()
    except torch.OutOfMemoryError as error:
        raise ResourceError(f"a prompt of task {task.task!r} does not fit the device: {error}") from error
    finally:
        state.save()


def mean_outputs(model: LoadedModel, task: TaskPrompts, batch_size: int = 16) -> torch.Tensor:
    """Mean output of every head at the last position of the clean prompts, float32 [layers, heads, size].

    The first axis has the layers that have heads (`Architecture.with_heads`), as in everything about effects.

    Raises:
        DataError: An activation is not finite, or a prompt does not fit the model.
        MismatchError: The tokenizer is not the model's.
        ResourceError: A batch does not fit the device.
    """
    layout = _layout(model)
    captured = capture(model, task.clean, layout.layers, into=Statistics(), site=Site.HEADS, batch_size=batch_size)
    means = [captured[layer].mean for layer in layout.layers]
    return torch.stack(means).view(-1, layout.heads, layout.size).to(torch.float32)


def _require_finite(scores: torch.Tensor, task: TaskPrompts, index: int) -> None:
    if not scores.isfinite().all():
        raise DataError(
            "the score of a patched run is NaN or infinite",
            where=f"task {task.task!r}, prompt {task.scored[index].id!r}",
            remedy="load the model in a wider type (float32), or check its weights",
        )


def _check(model: LoadedModel, prompt: ScoredPrompt, means: torch.Tensor, score: Score, checks: int) -> tuple[str, ...]:
    """Compares some runs with the model as it is; says what is wrong, if anything is."""
    layers, heads, _ = means.shape
    draw = random.Random(f"polysafe {prompt.id}")  # noqa: S311 (any heads will do)
    cells = [(draw.randrange(layers), draw.randrange(heads)) for _ in range(checks)]
    wanted = torch.cat([patched_scores(model, means, prompt, score, part) for part in ([], *([c] for c in cells))])
    try:
        with RowScorer(model, means) as rows:
            found = rows.scores(prompt, score)[[0, *(1 + layer * heads + head for layer, head in cells)]]
    except Exception as error:  # noqa: BLE001 — a model's own code may fail in any way
        return (_fallback(f"rows cannot pass through this architecture ({getattr(error, 'problem', error)})"),)
    worst, allowed = float((found - wanted).abs().max()), TOLERANCE.get(model.model.dtype, _COARSE)
    if worst > allowed * max(1.0, float(wanted.abs().max())):
        return (_fallback(f"rows differ from the model as it is by {worst:.2g}"),)
    return ()


def _fallback(reason: str) -> str:
    return (
        f"{reason}; heads were patched a layer at a time in full forward passes, which gives the same and takes longer"
    )
