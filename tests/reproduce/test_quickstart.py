"""The quickstart's own record, made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polysafe.workflows import quickstart
from polysafe.workflows.quickstart import run_quickstart
from polysafe.workflows.quickstart_recipes import METHODS
from polysafe.workflows.reproduce import reproduce


@pytest.mark.slow
def test_the_quickstart_is_made_again_to_identical_edits_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(quickstart, "METHODS", METHODS[1:2])
    monkeypatch.setattr(quickstart, "SPARSE_EDITS", ())
    monkeypatch.setattr(quickstart, "HEAD_EDITS", ())
    done = run_quickstart(tmp_path / "results")
    found = reproduce(tmp_path / "results", tmp_path / "again")
    assert found.findings == ()
    assert found.found is not None
    assert found.found.rows == list(done.rows)
    assert len(found.recorded.about.steps) == 3
    assert len(found.recorded.about.runs) == 2 + 3 + 3
    assert {each.packaged for each in found.recorded.about.inputs.values()} >= {"base", "safety", "harm"}
    for step in found.recorded.about.steps:
        for file in (step.recipe, f"{step.edit}/edit.json"):
            assert (found.recorded.root / file).read_bytes() == (found.found.root / file).read_bytes()
    for path in found.recorded.root.rglob("*"):
        assert not path.is_file() or str(tmp_path) not in path.read_text(errors="replace")
