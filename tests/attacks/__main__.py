"""Writes every hostile folder: `python -m tests.attacks FOLDER`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.attacks.hostile import ATTACKS, write_attack

if __name__ == "__main__":
    for case in ATTACKS.values():
        folder = write_attack(case, Path(sys.argv[1]) / re.sub(r"\W+", "-", case.name))
        sys.stdout.write(f"{folder}\n")
