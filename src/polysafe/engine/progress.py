"""How long work tells whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done of it, and its total."""


class Meter:
    """Adds up amounts that are done and reports the sum.

    Args:
        progress: Who is told.
        stage: Name of the stage.
        total: What there is to do; amounts beyond it are not shown.
    """

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total, self._done = progress, stage, total, 0
        progress(stage, 0, total)

    def __call__(self, amount: int) -> None:
        """Adds an amount."""
        self._done = min(self._done + amount, self._total)
        self._progress(self._stage, self._done, self._total)

    def finish(self) -> None:
        """Shows the stage as done, however much there was."""
        self._progress(self._stage, self._total, self._total)
