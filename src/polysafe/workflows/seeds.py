"""What the methods did on families of other training seeds; seed 0 is the one that they were developed on."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from polysafe.findings.data import SeedRate

_FILE = Path(__file__).with_name("seeds.json")


@cache
def measured_seeds() -> tuple[SeedRate, ...]:
    """Every method on every seed that was measured, test split; the records are in `docs/*_runs.json`."""
    return tuple(SeedRate(**row) for row in json.loads(_FILE.read_bytes())["rows"])
