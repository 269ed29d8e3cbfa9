"""Keeps the state of a training run that may be killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


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
