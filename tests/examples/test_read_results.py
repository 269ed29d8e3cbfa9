"""The example notebook runs, and what is stored of it tells nothing that it should not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "read_results.ipynb"


def outputs(notebook: Any) -> list[str]:
    """What every cell shows, as text."""
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", output
            assert output.get("name") != "stderr", output
            shown.append(str(output.get("text") or output["data"]))
    return shown


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_stored_outputs_tell_no_place_and_show_no_answer(stored: Any) -> None:
    nbformat.validate(stored)
    shown = outputs(stored)
    assert shown
    for text in shown:
        assert not re.search(r"(?<![\w.<])/(home|root|tmp|var|usr|work|Users)\b", text)
        assert "before_answer" not in text
    assert "no evidence about any real model" in shown[0]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_runs_and_shows_as_much_as_is_stored(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1] / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(shutil.copy(NOTEBOOK, tmp_path), as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert len(outputs(notebook)) == len(outputs(stored))
    assert "Module-wise swapping lowered the mean unsafe rate" in outputs(notebook)[0]
    assert any("image/svg+xml" in shown for shown in outputs(notebook))
