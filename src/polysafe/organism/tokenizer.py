"""A word-level tokenizer of a world, as an ordinary Hugging Face tokenizer folder.

No beginning-of-sequence token is added to plain text: every prompt of the world spells it out, and so does
the chat template, so that a prompt has exactly one however it is tokenized.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from polysafe.organism.lexicon import ASSISTANT, BOS, EOS, PAD, SPECIAL_TOKENS, UNKNOWN, USER
from polysafe.organism.world import World

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    f"{{% if message['role'] == 'user' %}} {USER} {{{{ message['content'] }}}}"
    f"{{% elif message['role'] == 'assistant' %}} {ASSISTANT} {{{{ message['content'] }}}}"
    " {{ eos_token }}"
    "{% else %}{{ raise_exception('the toy family knows the roles user and assistant') }}"
    "{% endif %}{% endfor %}"
    f"{{% if add_generation_prompt %}} {ASSISTANT}{{% endif %}}"
)


def vocabulary(world: World) -> Mapping[str, int]:
    """Word -> token id."""
    return {word: index for index, word in enumerate(world.vocabulary)}


def make_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Builds the tokenizer; `save_pretrained` writes what `AutoTokenizer` reads."""
    backend = Tokenizer(models.WordLevel(dict(vocabulary(world)), unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
