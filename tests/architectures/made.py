"""Tiny models of the architectures that transformers has: a config of few numbers, random weights, a small tokenizer.

The model is saved as transformers saves it, so that names, layouts and fused tensors are those of released files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
"""What every config is given that has such a field, under that name or another."""

State = dict[str, torch.Tensor]
_MIXERS = re.compile("Attention|Attn|Mixer|GatedDelta|Mamba|Conv|Recurrent")
_NORMS = re.compile("norm|ln_")
_TOWERS = re.compile("vision|visual|audio")


def text_config(model_type: str, given: Mapping[str, Any]) -> Any:
    """The config of a language model: `SIZES` where it has such fields, and what is given."""
    known = AutoConfig.for_model(model_type)
    fields = {name for name in SIZES if hasattr(known, name) or name in known.attribute_map}
    return AutoConfig.for_model(model_type, **({name: SIZES[name] for name in fields} | dict(given)))


def wrapper_config(
    model_type: str, text: Mapping[str, Any], vision: Mapping[str, Any], given: Mapping[str, Any]
) -> Any:
    """The config of a language model inside a wrapper for pictures."""
    known = AutoConfig.for_model(model_type).text_config
    fields = {name: SIZES[name] for name in SIZES if hasattr(known, name) or name in known.attribute_map}
    described = {"model_type": known.model_type, **fields, **text}
    return AutoConfig.for_model(model_type, text_config=described, vision_config=dict(vision), **given)


def random_model(config: Any) -> PreTrainedModel:
    """A model whose every weight matters: matrices that keep the size of what goes through them, norms near one."""
    family: Any = AutoModelForCausalLM if config.get_text_config() is config else AutoModelForImageTextToText
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers says of a config is not what is tested
        model: PreTrainedModel = family.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.1 * noise)
    return model


@dataclass(frozen=True)
class Block:
    """Tensors of one layer that belong together, as the modules of the model say.

    Attributes:
        layer: The layer.
        mixes: Whether it mixes tokens (attention, a state space, a convolution) or is the MLP.
        matrices: Names in the files of the weights that are no norms.
    """

    layer: int
    mixes: bool
    matrices: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """A base model and two descendants in folders.

    Attributes:
        folders: `base`, `safety` and `sw`, and the folder of each.
        model: The base, as transformers made it.
    """

    folders: Mapping[str, Path]
    model: PreTrainedModel

    @cached_property
    def states(self) -> dict[str, State]:
        """All tensors of each folder."""
        return {name: read_state(folder) for name, folder in self.folders.items()}

    @cached_property
    def layers(self) -> tuple[str, torch.nn.ModuleList]:
        """Name and modules of the decoder's layers."""
        lists = [
            (name, module)
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.ModuleList) and re.search(r"(^|\.)(layers|h|blocks)$", name)
        ]
        return next(item for item in lists if not re.search(_TOWERS, item[0]))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The two halves of every layer, told from classes of modules and not from names of tensors."""
        return tuple(block for layer in range(len(self.layers[1])) for block in self._halves(layer))

    def _halves(self, layer: int) -> Iterator[Block]:
        children = dict(self.layers[1][layer].named_children())
        mixing = {name for name, child in children.items() if _MIXERS.search(type(child).__name__)}
        found: dict[bool, list[str]] = {True: [], False: []}
        for tensor, values in self.states["base"].items():
            inside = re.search(rf"\.(?:layers|h|blocks)\.{layer}\.(.*)", "." + tensor)
            if inside and not _NORMS.search(inside[1]) and not re.search(_TOWERS, tensor):
                child, *below = inside[1].split(".")
                if below and bool(values.isfinite().all()):  # limits of Gemma 4, which are constants
                    found[child in mixing].append(tensor)
        yield from (Block(layer, mixes, tuple(names)) for mixes, names in found.items() if names)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each sign of `Q: w17`: bytes without merges, which the tokenizer class of every family reads."""
    words = ["<pad>", "<s>", "</s>", *"w0123456789QA:ĠĊ"]
    words += [f"<{number}>" for number in range(VOCABULARY - len(words))]
    backend = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def read_state(folder: Path) -> State:
    """All tensors of a folder."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def make(config: Any, folder: Path) -> Made:
    """Writes a model of a config and two descendants.

    In every layer one half has moved further in the safety expert and the other in the language expert, by turns.
    """
    model = random_model(config)
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    made = Made({name: folder / name for name in ("base", "safety", "sw")}, model)
    base = read_state(folder / "base")
    made.__dict__["states"] = {"base": base}
    further = {name: (block.layer + block.mixes) % 2 for block in made.blocks for name in block.matrices}
    for seed, (expert, parity) in enumerate({"safety": 1, "sw": 0}.items(), 1):
        generator = torch.Generator().manual_seed(seed)
        moved = {
            name: _moved(tensor, 0.3 if further.get(name) == parity else 0.15, generator)
            for name, tensor in base.items()
        }
        made.states[expert] = moved
        (folder / expert).mkdir()
        for file in (folder / "base").iterdir():
            if file.suffix != ".safetensors":
                (folder / expert / file.name).write_bytes(file.read_bytes())
        save_file(moved, folder / expert / "model.safetensors", {"format": "pt"})
    return made


def _moved(tensor: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        return tensor.clone()
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    scale = max(float(tensor.norm()), 1e-2) / max(float(noise.norm()), 1e-9)
    return (tensor + size * scale * noise).to(tensor.dtype)


def matrix_modules(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Modules that hold one matrix: Linear and Conv1D."""
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)}
