"""Every parser of what other people made, each once."""

from __future__ import annotations

from tests.fuzz.models import MODELS
from tests.fuzz.runs import RUNS
from tests.fuzz.talk import TALK
from tests.fuzz.target import Target
from tests.fuzz.told import TOLD

TARGETS: tuple[Target, ...] = (*MODELS, *RUNS, *TALK, *TOLD)
