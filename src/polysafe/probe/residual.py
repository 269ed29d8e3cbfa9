"""The residual stream of prompts at the entrance of a layer, so that a pass over them need not begin at the bottom.

An edit of a layer changes nothing below it. What lies above is recorded from the states that entered the layer: the
model's own forward pass runs, the layers below hand on what they get, and the layer is given the kept states instead.
Whether that is the same is not told from an architecture's name: the first batch is compared with a whole pass, bit for
bit (`probe.forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import torch

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_SHARE = 8
"""One part in so many of the memory that is free may be taken."""


class Residuals:
    """Hidden states of batches of prompts as they enter a layer, on the processor.

    What does not fit into an eighth of the memory that is free at first is not kept; these batches are run whole.

    Args:
        layer: The layer.

    Attributes:
        layer: The layer.
        checked: Whether a pass that went on from here was found to be that of the whole model.
    """

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.checked = False
        self._states: dict[object, torch.Tensor] = {}
        self._room = psutil.virtual_memory().available // _SHARE
        self._outputs = 0

    def __len__(self) -> int:
        return len(self._states)

    def of(self, batch: object) -> torch.Tensor | None:
        """States of a batch, [prompts, tokens, width]; None where they were not kept."""
        return self._states.get(batch)

    def forget(self) -> None:
        """Keeps nothing from now on: a pass of this model cannot go on from here."""
        self._states, self._room = {}, -1

    @contextmanager
    def kept(self, layers: torch.nn.ModuleList, batch: Callable[[], object | None]) -> Iterator[None]:
        """Within it, what enters the layer is kept for the batch that is told, if one is."""

        def entered(_layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            name, states = batch(), _states((args, kwargs))
            if name is not None and (size := states.numel() * states.element_size()) <= self._room:
                self._room -= size
                self._states[name] = states.detach().to("cpu", copy=True)

        def left(_layer: torch.nn.Module, _args: object, output: object) -> None:
            several = output if isinstance(output, tuple) else ()
            self._outputs = len(several)
            if any(value is not None for value in several[1:]):
                self.forget()  # something else than hidden states goes up, which a layer that is passed cannot give

        with ExitStack() as stack:
            if self.layer:  # all that enters the first layer is computed from the tokens anyway
                hook = layers[self.layer].register_forward_pre_hook(entered, with_kwargs=True)
                stack.callback(hook.remove)
                stack.callback(layers[self.layer - 1].register_forward_hook(left).remove)
            yield

    @contextmanager
    def going_on(self, layers: torch.nn.ModuleList, states: Callable[[], torch.Tensor | None]) -> Iterator[None]:
        """Within it, passes begin at the layer with the states that are told; they are whole while none are."""

        def given(_layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
            found = states()
            if found is None:
                return None
            found = found.to(_states((args, kwargs)).device)
            return ((found, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": found})

        with ExitStack() as stack:
            for below in layers[: self.layer]:
                stack.enter_context(self._passed(below, states))
            stack.callback(layers[self.layer].register_forward_pre_hook(given, with_kwargs=True).remove)
            yield

    @contextmanager
    def _passed(self, layer: torch.nn.Module, states: Callable[[], torch.Tensor | None]) -> Iterator[None]:
        """Within it, a layer hands on what it gets, where there are states to go on with."""
        own, instance = layer.forward, vars(layer)
        before = instance.get("forward")

        def forward(*args: Any, **kwargs: Any) -> Any:
            if states() is None:
                return own(*args, **kwargs)
            got = _states((args, kwargs))
            return (got, *[None] * (self._outputs - 1)) if self._outputs else got

        layer.forward = forward
        try:
            yield
        finally:
            instance.pop("forward") if before is None else instance.update(forward=before)


def _states(arguments: Arguments) -> torch.Tensor:
    """The hidden states among what a decoder layer is called with."""
    args, kwargs = arguments
    found: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return found
