"""Tokenizers with the special tokens and chat templates of real families, over bytes: no real vocabulary is needed.

Special tokens, their roles and the wording of the templates are those of SmolLM2-Instruct (whose beginning of sequences
is ChatML's turn marker), of Qwen2.5-Instruct (which has none) and of models that put ChatML behind a beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

_TURNS = (
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class ChatMl:
    """What sets families with ChatML apart.

    Attributes:
        bos: What the tokenizer calls the beginning of a sequence.
        eos: What ends a turn.
        pad: What it pads with.
        system: The template's own system message, if it has one.
        adds_bos: Whether the tokenizer puts the beginning before plain text.
    """

    bos: str | None
    eos: str
    pad: str
    system: str | None
    adds_bos: bool = False


def chatml_tokenizer(kind: ChatMl) -> PreTrainedTokenizerFast:
    """A tokenizer of one token per byte with the special tokens and the template of a family."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = list(dict.fromkeys(filter(None, ("<|endoftext|>", "<|im_start|>", "<|im_end|>", kind.bos, kind.pad))))
    backend = Tokenizer(models.BPE({sign: number for number, sign in enumerate([*special, *signs])}, []))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevel()
    if kind.adds_bos:
        assert kind.bos is not None
        backend.post_processor = TemplateProcessing(
            single=f"{kind.bos} $A", special_tokens=[(kind.bos, special.index(kind.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=kind.bos, eos_token=kind.eos, pad_token=kind.pad, unk_token=None
    )
    tokenizer.chat_template = _template(kind.system)
    return tokenizer


def _template(system: str | None) -> str:
    """ChatML, with a system message of its own where the conversation brings none."""
    if system is None:
        return "{% for message in messages %}" + _TURNS
    own = f"{{{{ '<|im_start|>system\n{system}<|im_end|>\n' }}}}"
    return (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        + own
        + "{% endif %}"
        + _TURNS
    )
