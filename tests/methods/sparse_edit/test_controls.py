"""What the method has to beat: each control takes one thing away and leaves the rest."""

from __future__ import annotations

import pytest
import torch

from polysafe.checkpoint.opened import Sources
from polysafe.edits.operations import AddLowRank
from tests.methods.sparse_edit.tiny import entry, gate, touched

UP = gate(2).replace("gate", "up")


def sizes(operation: AddLowRank) -> torch.Tensor:
    """‖Δ‖ of every unit, [m]."""
    found: torch.Tensor = torch.linalg.vector_norm(operation.a.double() @ operation.b.double().mT, dim=1)
    return found


def test_every_control_once_for_each_draw(sources: Sources, anchors: object) -> None:
    method = entry(anchors)
    found = [each.label for each in method.settled(method.fit(sources)).controls(draws=2)]
    drawn = [f"{kind}.{seed}" for kind in ("random", "random_labels", "random_directions") for seed in (0, 1)]
    assert found == [f"control.sparse_edit.{kind}" for kind in (*drawn, "all", "gate", "up")]


def test_all_units_and_either_projection(sources: Sources, anchors: object) -> None:
    assert all(len(operation.rows) == 24 for operation in touched(entry(anchors, control="all").fit(sources)).values())
    assert list(touched(entry(anchors, control="gate").fit(sources))) == [gate(2)]
    assert list(touched(entry(anchors, control="up").fit(sources))) == [UP]


@pytest.mark.parametrize("kind", ["random", "random_labels"])
def test_as_many_other_units(kind: str, sources: Sources, anchors: object) -> None:
    chosen = touched(entry(anchors).fit(sources))
    drawn = [touched(entry(anchors, control=kind, control_seed=seed).fit(sources)) for seed in range(2)]
    for name, operation in chosen.items():
        assert {len(other[name].rows) for other in drawn} == {len(operation.rows)}
        assert len({tuple(other[name].rows.tolist()) for other in (*drawn, chosen)}) == 3


def test_as_large_an_edit_along_other_directions(sources: Sources, anchors: object) -> None:
    chosen = touched(entry(anchors).fit(sources))
    drawn = [touched(entry(anchors, control="random_directions", control_seed=seed).fit(sources)) for seed in range(2)]
    for name, operation in chosen.items():
        own = operation.a @ operation.b.mT
        for other in drawn:
            assert other[name].rows.tolist() == operation.rows.tolist()
            assert torch.allclose(sizes(other[name]), sizes(operation), rtol=1e-4)
            turned = other[name].a @ other[name].b.mT
            assert torch.linalg.matrix_rank(turned) == torch.linalg.matrix_rank(own)
            assert float(((turned * own).sum() / own.square().sum()).abs()) < 0.9
        first, second = (other[name].b for other in drawn)
        assert not torch.allclose(first, second)


def test_random_labels_fit_another_edit_to_the_same_prompts(sources: Sources, anchors: object) -> None:
    fits = [entry(anchors, control="random_labels", control_seed=seed).fit(sources) for seed in (0, 0, 1)]
    assert fits[0].sha256 == fits[1].sha256
    assert fits[0].sha256 != fits[2].sha256
    own, drawn = (entry(anchors, control=kind).fit(sources) for kind in (None, "random_labels"))
    first, second = (each.provenance[0].evidence["anchors"]["sha256"] for each in (own, drawn))
    assert first == second
