"""Something that happens in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable


class At:
    """A progress callback that does something once, when writing has come to a given share."""

    def __init__(self, share: float, do: Callable[[], object]) -> None:
        self._share, self._do, self.done = share, do, False

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self.done and stage == "writing" and done >= self._share * total:
            self.done = True
            self._do()
