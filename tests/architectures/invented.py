"""Two families that nobody has released: one whose modules are called as others', one with names of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.architectures.families import Family


class BorrowedConfig(LlamaConfig):
    """A config under a name of its own."""

    model_type = "borrowed_names"


class Borrowed(LlamaForCausalLM):
    """A model whose MLP has no gate and squares what is positive."""

    config_class = BorrowedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = SquaredMlp(config, "up_proj", "down_proj")


class CoinedConfig(LlamaConfig):
    """A config under a name of its own."""

    model_type = "coined_names"


class Coined(LlamaForCausalLM):
    """The same with projections that have names of their own."""

    config_class = CoinedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = SquaredMlp(config, "rise", "fall")


class SquaredMlp(nn.Module):
    """fall(relu(rise(x))²)."""

    def __init__(self, config: Any, rise: str, fall: str) -> None:
        super().__init__()
        self.add_module(rise, nn.Linear(config.hidden_size, config.intermediate_size, bias=False))
        self.add_module(fall, nn.Linear(config.intermediate_size, config.hidden_size, bias=False))
        self._names = rise, fall

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States of tokens after the MLP."""
        rise, fall = map(self.get_submodule, self._names)
        found: torch.Tensor = fall(torch.relu(rise(states)).square())
        return found


for _config, _model in ((BorrowedConfig, Borrowed), (CoinedConfig, Coined)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForCausalLM.register(_config, _model, exist_ok=True)

BORROWED = Family("names as others have them", "borrowed_names")
COINED = Family("names of its own", "coined_names")
