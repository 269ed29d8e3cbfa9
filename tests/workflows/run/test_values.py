"""Numbers of sources that are none: what is computed of them is refused, what is copied is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import Blend, Copy
from polysafe.errors import EditError
from polysafe.progress import hearing
from polysafe.workflows.apply import apply_edit
from tests.models import Trio, read_weights, trio, write_weights

NAMES = [f"model.layers.0.mlp.{kind}_proj.weight" for kind in ("up", "gate", "down")]


@pytest.fixture
def models(tmp_path: Path) -> Trio:
    return trio(tmp_path / "models", layers=2)


@pytest.fixture
def broken(models: Trio) -> dict[str, Path]:
    """The safety expert has NaN in one tensor, zeros in another, and 10⁶ in a third, which the start has too."""
    for folder, values in ((models.safety, (float("nan"), 0.0, 1e6)), (models.language, (None, None, 1e6))):
        weights = read_weights(folder)
        for name, value in zip(NAMES, values, strict=True):
            if value is not None:
                weights[name][-1] = value
                weights[name][:] = 0 if value == 0 else weights[name]
        write_weights(folder, weights)
    return {"sw": models.language, "safety": models.safety}


def edit_of(*names: str, operation: Copy | Blend) -> Edit:
    sources = {name: SourceRecord(origin=name) for name in ("sw", "safety")}
    return Edit(start="sw", steps=dict.fromkeys(names, (operation,)), sources=sources)


def test_what_is_copied_is_told(broken: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    with hearing(said.append):
        apply_edit(edit_of(*NAMES[:2], operation=Copy(source="safety")), broken, tmp_path / "out")
    assert bool(read_weights(tmp_path / "out")[NAMES[0]].isnan().any())
    assert set(said) == {
        f"model.safetensors has 1 tensor with NaN or infinity: {NAMES[0]}",
        f"model.safetensors has 1 tensor of nothing but zeros: {NAMES[1]}",
        f"model.safetensors has 1 tensor with numbers above 10000: {NAMES[2]}",
    }


def test_what_is_computed_is_refused(broken: dict[str, Path], tmp_path: Path) -> None:
    blend = Blend(weights={"sw": 0.5, "safety": 0.5})
    with pytest.raises(EditError, match="'safety' holds NaN or infinity") as caught:
        apply_edit(edit_of(NAMES[0], operation=blend), broken, tmp_path / "out")
    assert caught.value.where == NAMES[0]
    assert not (tmp_path / "out").exists()


def test_sound_models_give_no_cause(models: Trio, tmp_path: Path) -> None:
    said: list[str] = []
    with hearing(said.append):
        folders = {"sw": models.language, "safety": models.safety}
        apply_edit(edit_of(*NAMES, operation=Copy(source="safety")), folders, tmp_path / "out")
    assert said == []
