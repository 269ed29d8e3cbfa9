"""Anchor files for the tiny models, whose vocabulary is w3, w4, …"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = 40  # words that every tiny vocabulary has
LANGUAGES = ("en", "aa", "bb")
HARMFUL, HARMLESS = ("w3", "w4", "w5"), ("w6", "w7", "w8")


def write_anchors(
    folder: Path,
    *,
    harmful: int = 24,
    harmless: int = 40,
    languages: Sequence[str] = LANGUAGES,
    same: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes both files and returns the entry `anchors` of a recipe.

    Harmful prompts end in other words than harmless ones, so that a random model responds to them in its own way.
    With `same`, all languages have the pivot's text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for name, count, endings in (("harmful", harmful, HARMFUL), ("harmless", harmless, HARMLESS)):
        lines = []
        for number in range(count):
            pivot = _prompt(draw, draw.choice(endings))
            other = {language: pivot if same else _prompt(draw, draw.choice(endings)) for language in languages[1:]}
            lines.append(json.dumps({"id": f"{name}-{number}", languages[0]: pivot, **other}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"harmful": str(folder / "harmful.jsonl"), "harmless": str(folder / "harmless.jsonl")}


def _prompt(draw: random.Random, ending: str) -> str:
    words = [f"w{draw.randrange(9, WORDS)}" for _ in range(draw.randrange(2, 7))]
    return " ".join([*words, ending])
