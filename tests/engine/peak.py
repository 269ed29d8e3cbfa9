"""Runs a recipe and prints how many private bytes the process had at its peak beyond those after its imports.

Called as `python peak.py RECIPE`. Private means: not shared with other processes and not backed by an unchanged file,
which is what a machine runs out of.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

import polysafe.edits.arithmetic
import polysafe.methods.norms  # noqa: F401 — these, one with torch, are imported when a run computes
from polysafe.recipe.recipe import load_recipe
from polysafe.workflows.run import run_recipe

SMAPS = Path("/proc/self/smaps_rollup")


def private_bytes() -> int:
    found = re.search(r"^Private_Dirty: +(\d+) kB$", SMAPS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


class Peak(threading.Thread):
    """Looks every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.first = self.highest = private_bytes()
        self._finished = threading.Event()

    def run(self) -> None:
        while not self._finished.wait(0.002):
            self.highest = max(self.highest, private_bytes())

    def finish(self) -> int:
        self._finished.set()
        self.join()
        return self.highest - self.first


if __name__ == "__main__":
    os.fsync = lambda fd: None  # only memory is looked at
    recipe = load_recipe(sys.argv[1])
    peak = Peak()
    peak.start()
    run_recipe(recipe)
    sys.stdout.write(f"{peak.finish()}\n")
