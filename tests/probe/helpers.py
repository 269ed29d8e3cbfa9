"""Small tools of the tests of probes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from polysafe.probe.forward import first_tensor
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import RenderedPrompts


def prompts(
    lengths: Sequence[int] = (5, 1, 9, 3, 7, 2, 4, 8, 6, 12), seed: int = 0, prefix: str = "p"
) -> RenderedPrompts:
    """Random token ids of the given lengths, from the vocabulary of the tiny models."""
    draw = random.Random(seed)
    tokens = tuple((1, *(draw.randrange(3, 40) for _ in range(length - 1))) for length in lengths)
    ids = tuple(f"{prefix}{number}" for number in range(len(lengths)))
    return RenderedPrompts(ids, ids, tokens, 0, "raw", "tokenizer")


def plainly(model: LoadedModel, rendered: RenderedPrompts, name: str, *, output: bool = False) -> list[torch.Tensor]:
    """Input (or output) of a module for every prompt alone, [tokens, width] each: a plain loop."""
    seen: list[torch.Tensor] = []

    def hook(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], result: object) -> None:
        seen.append(first_tensor(result if output else args).detach().flatten(0, -2))

    handle = model.model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        for tokens in rendered.tokens:
            model.model(torch.tensor([tokens]), use_cache=False)
    handle.remove()
    return seen


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Agreement as far as float32 forward passes of different shapes can agree."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
