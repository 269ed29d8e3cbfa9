"""Sparse edits of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polysafe.checkpoint.opened import Sources
from polysafe.edits.edit import Edit
from polysafe.edits.operations import AddLowRank
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.methods.validation import Standing, Standings
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import RenderedPrompts, load_tokenizer, render
from tests.methods.helpers import State, differing

LAYERS = 4
SMALL = {"layers": (2,), "tau_mag": 0.7, "tau_stat": 0.3, "cap": 0.3, "rank": 4, "template": "raw"}


def entry(anchors: object, **options: object) -> SparseEdit:
    """A recipe entry for a tiny model."""
    fields = {"model": "model", "languages": ("aa", "bb"), "anchors": anchors, **SMALL, **options}
    return SparseEdit.model_validate(fields)


def touched(edit: Edit) -> dict[str, AddLowRank]:
    found = {name: operation for name, (operation,) in edit.steps.items()}
    assert all(isinstance(operation, AddLowRank) for operation in found.values())
    return {name: operation for name, operation in found.items() if isinstance(operation, AddLowRank)}


def evidence(edit: Edit) -> dict[str, Any]:
    return edit.provenance[0].evidence


def gate(layer: int) -> str:
    return f"model.layers.{layer}.mlp.gate_proj.weight"


class FakeValidator:
    """Judges a model by the layers that differ from the original, as a table says."""

    def __init__(self, refused: dict[tuple[int, ...], float], languages: tuple[str, ...] = ("en", "aa", "bb")) -> None:
        self.refused = refused
        self.languages = languages
        self.asked: list[tuple[str, ...]] = []
        self.original: State = {}

    def __call__(self, model: LoadedModel, languages: Sequence[str]) -> Standings:
        weights = {name: value.detach().clone() for name, value in model.model.named_parameters()}
        self.original = self.original or weights
        changed = tuple(sorted({int(name.split(".")[2]) for name in differing(self.original, weights)}))
        self.asked.append(tuple(languages))
        return {name: Standing(self.refused.get(changed, 0.0), 0.0, 1.0) for name in languages}


def prompts_of(sources: Sources, anchors: Any, language: str, kind: str = "harmful") -> RenderedPrompts:
    rows = [json.loads(line) for line in Path(anchors[kind]).read_text().splitlines()]
    tokenizer = load_tokenizer(sources["model"].checkpoint.root)
    return render(tokenizer, {row["id"]: row[language] for row in rows}, template="raw")
