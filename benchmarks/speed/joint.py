"""A sparse edit of many layers: recorded from the layer below each, beside from the first layer every time.

    python -m benchmarks.speed.joint [--runs 3]                       # the packaged toy family
    python -m benchmarks.speed.joint --model MODEL --data DATA [--anchors 48]

Every layer of a joint edit is fitted on the model as edited so far. Both sides make the same edit, which is checked bit
for bit, in turn in one process; CPU seconds of one thread. Layers are counted where their MLP is entered.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch

from benchmarks.frame.markdown import table
from polysafe.checkpoint.opened import Source, open_source
from polysafe.data.anchors import Anchors
from polysafe.data.organism import organism_of
from polysafe.data.prompts import Kind
from polysafe.methods.anchor_options import AnchorSet
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.methods.sparse_edit.solve import LayerEdit, Workbench
from polysafe.organism.lexicon import LOW
from polysafe.organism.packaged import packaged_family
from polysafe.probe.model import LoadedModel, Site, load_model
from polysafe.probe.residual import Residuals
from polysafe.threads import threads


@contextmanager
def counted(model: LoadedModel) -> Iterator[list[int]]:
    """How often the MLP of any layer is entered."""
    entered = [0]

    def count(*_: object) -> None:
        entered[0] += 1

    layers = range(model.architecture.num_layers)
    handles = [model.module(layer, Site.MLP)[1].register_forward_pre_hook(count) for layer in layers]
    yield entered
    for handle in handles:
        handle.remove()


def solved(model: LoadedModel, options: SparseEdit, anchors: Anchors) -> tuple[tuple[LayerEdit, ...], float, int]:
    """The edit of all layers, its CPU seconds, and how many layers were run."""
    layers = range(model.architecture.num_layers)
    with counted(model) as entered:
        bench = Workbench(options, model, anchors, layers)
        began = time.process_time()
        found = bench.solve(layers, 1.0)
        return found, time.process_time() - began, entered[0]


def same(first: tuple[LayerEdit, ...], second: tuple[LayerEdit, ...]) -> bool:
    """Whether two edits are equal bit for bit."""
    pairs = zip((p for layer in first for p in layer.parts), (p for layer in second for p in layer.parts), strict=True)
    return all(a.low_rank.dense.equal(b.low_rank.dense) for a, b in pairs)


def anchors_of(given: argparse.Namespace, source: Source) -> Anchors:
    """Anchors of the toy family, or of PolyRefuse in English and Chinese."""
    if given.model is None:
        return organism_of(source.checkpoint).anchors(("en", *LOW))
    kinds: tuple[tuple[Kind, str], ...] = (("harmful", "polyrefuse.train"), ("harmless", "polyrefuse.train.harmless"))
    rows = (AnchorSet(set=name, limit=given.anchors).rows(kind, ("en", "zh"), given.data) for kind, name in kinds)
    return Anchors(*(each.parallel for each in rows))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--anchors", type=int, default=48)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    model_folder = given.model or packaged_family().members["base"]
    options = SparseEdit(model="model", pivot="en", languages=("zh",) if given.model else LOW, anchors="organism")
    times: dict[str, list[tuple[float, int]]] = {"from the first layer": [], "from the layer below": []}
    whole = mock.patch.object(Residuals, "of", return_value=None)
    with threads(1), torch.no_grad(), open_source(model_folder) as source:
        model, edits = load_model(source), []
        anchors = anchors_of(given, source)
        for _ in range(given.runs):
            for side, measured in times.items():
                with whole if side == "from the first layer" else nullcontext():
                    edit, seconds, layers = solved(model, options, anchors)
                edits.append(edit)
                measured.append((seconds, layers))
        if not all(same(edits[0], edit) for edit in edits):
            raise SystemExit("the sides do not make the same edit")
    lines = [
        [side, f"{statistics.median(seconds for seconds, _ in each):.1f}", str(each[0][1])]
        for side, each in times.items()
    ]
    print(table(["side", "CPU s", "passes of a batch through a layer"], lines))


if __name__ == "__main__":
    main()
