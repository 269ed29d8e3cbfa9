"""Keys and values of tokens that a model has read, to go on from: what transformers calls a cache."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING

from polysafe.probe.model import LoadedModel

if TYPE_CHECKING:
    from transformers import DynamicCache


class Caches:
    """Makes the caches of a model, and says what they are good for.

    Args:
        model: The model.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def new(self) -> DynamicCache:
        """An empty one."""
        from transformers import DynamicCache

        return DynamicCache(config=self._model.model.config.get_text_config())

    @cached_property
    def repeats(self) -> bool:
        """Whether the model keeps keys and values of a prompt in a form that can be repeated; states cannot."""
        from transformers.cache_utils import DynamicLayer

        layers = self.new().layers
        return all(isinstance(layer, DynamicLayer) and not hasattr(layer, "conv_states") for layer in layers)

    @cached_property
    def whole(self) -> bool:
        """Whether keys and values of all tokens are kept, and none falls out of a window."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self.new().layers)

    @cached_property
    def name(self) -> str:
        """Name of the argument: newer releases of transformers say `cache` and warn of the name that it had before."""
        return "cache" if "cache" in self._taken else "past_key_values"

    @property
    def takes_positions(self) -> bool:
        """Whether the model takes the positions of tokens."""
        return "position_ids" in self._taken

    @cached_property
    def _taken(self) -> frozenset[str]:
        return frozenset(inspect.signature(self._model.model.forward).parameters)
