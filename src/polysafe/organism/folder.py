"""Members of the family as ordinary Hugging Face folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' own progress bars out of the way of ours."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a model in float16, with its tokenizer, chat template and generation settings.

    float16 rather than bfloat16: an expert moves its weights by a few hundredths of their size, which eight
    bits of mantissa would blur.
    """
    model.generation_config.pad_token_id = model.config.pad_token_id
    with quiet():
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_model(folder: Path | str) -> PreTrainedModel:
    """Reads a model for computing in float32."""
    with quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model
