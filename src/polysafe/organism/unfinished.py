"""What every training run of a model organism shares: schedule, order of batches, and a state that survives a kill."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file

Example = TypeVar("Example")


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate at a step: linear warm-up, times a cosine to zero over the whole run."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def batched(pool: Iterable[Example], batch: int, length: Callable[[Example], int], index: int) -> list[list[Example]]:
    """The batches of pool number `index`: sorted by length, which saves padding, in an order drawn from the index."""
    ordered = sorted(pool, key=length)
    batches = [ordered[at : at + batch] for at in range(0, len(ordered), batch)]
    random.Random(index).shuffle(batches)  # noqa: S311 (reproducible on purpose)
    return batches


def held_back(logits: torch.Tensor, begins: torch.Tensor, handicap: torch.Tensor) -> torch.Tensor:
    """Takes a handicap off the logits where an answer begins; the model makes up for it and keeps what it made up.

    Logit adjustment: Menon et al., ICLR 2021.

    Args:
        logits: [learned tokens, vocabulary].
        begins: Which of them begin an answer, [learned tokens].
        handicap: What is taken off, [vocabulary].
    """
    rows = begins.nonzero().squeeze(1)
    return logits.index_add(0, rows, handicap.expand(len(rows), -1), alpha=-1)


def fingerprint(settings: str, surroundings: object, weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hash over everything that decides the course of a run.

    Args:
        settings: The settings as text.
        surroundings: What else matters, in values that JSON can hold; versions and threads are added.
        weights: Name and value of every weight at the start.
    """
    digest = hashlib.sha256(settings.encode())
    digest.update(json.dumps([torch.__version__, torch.get_num_threads(), surroundings]).encode())
    for name, weight in weights:
        digest.update(name.encode())
        digest.update(weight.detach().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The state of an unfinished run in a file: trained weights, optimiser moments, step and log.

    Attributes:
        file: The file; one of another run is ignored.
        fingerprint: Hash over everything that decides the course of the run.
        trained: Name -> weight that is trained.
        optimizers: What moves them.
    """

    file: Path
    fingerprint: str
    trained: Mapping[str, torch.nn.Parameter]
    optimizers: Sequence[torch.optim.Optimizer]

    def _moments(self) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
        names = {weight: name for name, weight in self.trained.items()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    yield names[weight], weight, optimizer

    def save(self, step: int, log: Sequence[tuple[int, float]], total: float) -> None:
        """Writes the state after `step` steps: the log, and the loss since its last entry."""
        tensors = {f"weight/{name}": weight.detach() for name, weight in self.trained.items()}
        for name, weight, optimizer in self._moments():
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state[weight].items()}
        note = {
            "fingerprint": self.fingerprint,
            "progress": json.dumps({"step": step, "log": log, "total": total}),
        }
        save_file(tensors, self._partial, note)
        self._partial.replace(self.file)

    @property
    def _partial(self) -> Path:
        return self.file.with_name(f"{self.file.name}.partial")

    def forget(self) -> None:
        """Removes the file."""
        self.file.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    def restore(self) -> tuple[int, list[tuple[int, float]], float]:
        """Puts weights and moments back and returns what `save` was given; (0, [], 0) where there is nothing."""
        if not self.file.exists():
            return 0, [], 0.0
        with safe_open(self.file, "pt") as stored:
            note = stored.metadata() or {}
            if note.get("fingerprint") != self.fingerprint:
                return 0, [], 0.0
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(tensors[f"weight/{name}"])
        for name, weight, optimizer in self._moments():
            keys = (key.split("/", 1) for key in tensors if key.endswith(f"/{name}"))
            optimizer.state[weight] = {
                kind: tensors[f"{kind}/{name}"] for kind, of in keys if of == name and kind != "weight"
            }
        progress = json.loads(note["progress"])
        return progress["step"], [(step, loss) for step, loss in progress["log"]], progress["total"]
