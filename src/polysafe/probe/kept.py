"""What was measured on a model, for work that needs it again: many edits of one model, from one measurement.

Decisions stay where they are and pass nothing on: within `with measurements:` a capture or the effects of heads that
have been measured before on the same weights, prompts and places are taken from there. Edited models are measured every
time, so that no more is held than what one decision holds.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from polysafe.probe.capture import Captured
    from polysafe.probe.files import ProbeRecord, Record
    from polysafe.probe.model import LoadedModel
    from polysafe.probe.render import RenderedPrompts
    from polysafe.probe.residual import Residuals

_current: ContextVar[Measurements | None] = ContextVar("measurements", default=None)


class Measurements:
    """Keeps what is measured within it; may be entered again and again."""

    def __init__(self) -> None:
        self.captured: dict[str, Captured[Any]] = {}
        self.effects: dict[str, Any] = {}
        self.rendered: dict[str, RenderedPrompts] = {}
        self.residuals: dict[str, Residuals] = {}
        self._tokens: list[Token[Measurements | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._tokens.pop())


def measurements(model: LoadedModel) -> Measurements:
    """Where measurements of a model are kept now: nowhere for longer, if nobody asked or if it is an edited one."""
    found = _current.get()
    return Measurements() if found is None or model.changed else found


def capture_key(record: ProbeRecord, *settings: object) -> str:
    """What has to agree but for the layers: those of a capture of more layers are the same."""
    return f"{record.model_dump_json(exclude={'layers', 'modules'})} {settings}"


def effects_key(record: Record, *settings: object) -> str:
    """What has to agree."""
    return f"{record.model_dump_json()} {settings}"
