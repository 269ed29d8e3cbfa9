"""The pictures of the README can be made again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from polysafe.report import build_report
from tests.browser import chromium
from tests.report.examples import example

SCRIPT = Path(__file__).parents[1] / "docs" / "screenshots.py"


def take(folder: Path, to: Path) -> subprocess.CompletedProcess[str]:
    to.mkdir(exist_ok=True)
    return subprocess.run([sys.executable, SCRIPT, folder, "--to", to], capture_output=True, text=True, check=False)


@pytest.mark.skipif(chromium() is None, reason="this machine has no Chromium")
def test_the_same_report_gives_the_same_small_pictures(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    build_report(example(), tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    assert take(tmp_path, first).returncode == take(tmp_path, second).returncode == 0
    for name, size in (("quickstart.png", (2400, 1750)), ("quickstart-phone.png", (720, 2666))):
        content = (first / name).read_bytes()
        assert content == (second / name).read_bytes()
        assert len(content) < 300_000
        with Image.open(first / name) as picture:
            assert picture.size == size
            colours = picture.getcolors()
        assert colours is not None
        assert len(colours) > 50


def test_a_folder_without_a_report_is_said(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    done = take(tmp_path, tmp_path / "pictures")
    assert done.returncode == 2
    assert ("index.html is missing" if chromium() else "no Chromium") in done.stderr
