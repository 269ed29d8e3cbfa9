"""Fixtures of the tests of running and applying: those of the engine."""

from tests.engine.conftest import _own_cache, _quick_disk, llama

__all__ = ["_own_cache", "_quick_disk", "llama"]
