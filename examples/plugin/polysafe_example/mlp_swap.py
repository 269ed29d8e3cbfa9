"""MLP swapping: all MLPs of one expert, everything else of another."""

from __future__ import annotations

from typing import ClassVar

from polysafe.checkpoint.opened import Sources
from polysafe.checkpoint.roles import Module
from polysafe.edits.edit import Edit
from polysafe.edits.operations import Copy
from polysafe.methods.agreement import require_agreement
from polysafe.methods.base import Method, SourceName
from polysafe.methods.registry import register


@register
class MlpSwap(Method):
    """Take the MLPs of every layer from the safety expert."""

    name: ClassVar[str] = "mlp_swap"
    version: ClassVar[int] = 1

    safety: SourceName
    """Source that gives the MLPs."""
    language: SourceName
    """Source that gives everything else; the edit starts from it."""

    @property
    def start(self) -> str:
        """The language expert."""
        return self.language

    @property
    def uses(self) -> tuple[str, ...]:
        """Both experts."""
        return (self.safety, self.language)

    def fit(self, sources: Sources) -> Edit:
        """Copies every tensor of an MLP."""
        require_agreement([sources[name] for name in self.uses])
        roles = sources[self.language].architecture.roles
        mlps = [tensor for tensor, role in roles.items() if role.module is Module.MLP]
        return self.make_edit(sources, {tensor: Copy(source=self.safety) for tensor in mlps})
