"""A short bootstrap: its length is no part of what these tests look at."""

from __future__ import annotations

import pytest

from polysafe.stats import agreement


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "RESAMPLES", 20)
