"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# Tests check results, not timings: a busy machine must not fail a property.
settings.register_profile("polysafe", deadline=None)
settings.load_profile("polysafe")
