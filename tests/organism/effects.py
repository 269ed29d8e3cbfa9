"""Effects of the packaged base's heads take long to measure: once in a run of the tests, for all that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from polysafe.checkpoint.opened import open_source
from polysafe.methods.head_steering.method import HeadSteering
from polysafe.organism.lexicon import LOW
from polysafe.organism.packaged import packaged_family
from polysafe.threads import threads
from tests.real_models import common

ENTRY: dict[str, Any] = {
    "model": "base",
    "harmful": "harm",
    "languages": LOW,
    "tasks": "organism",
    "together": "mean",
    "prompts": 25,
}


def effects_of_heads(factory: pytest.TempPathFactory) -> Path:
    """A folder with those that `ENTRY` asks for. Its files may be read, never changed."""
    folder = common(factory) / "effects of heads"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            members = packaged_family().members
            with threads(1), open_source(members["base"]) as base, open_source(members["harm"]) as harm:
                HeadSteering.model_validate({**ENTRY, "effects": folder}).fit({"base": base, "harm": harm})
    return folder
