"""Guard models without options of their own, those of other packages among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from polysafe.judge.block import JudgeSpec, Place
from polysafe.judge.guards import GUARDS, make_guard

if TYPE_CHECKING:
    from polysafe.judge.opening import Opening
    from polysafe.judge.verdict import Judge

    PlainGuard = Literal["polyguard", "shieldgemma", "wildguard"]
else:
    PlainGuard = Literal[tuple(name for name in GUARDS.names() if name not in GUARDS.own or GUARDS.own[name].plain)]


class GuardSpec(Place, JudgeSpec):
    """A guard model without options."""

    kind: PlainGuard
    """Guard model's family."""

    def open(self, opening: Opening) -> Judge:
        """The guard, behind its model."""
        return make_guard(self.kind, opening.backend(self, GUARDS.get(self.kind).reply_tokens))
