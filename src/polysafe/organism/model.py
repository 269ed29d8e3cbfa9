"""The network of the family: a Llama of about one million weights, and how its embeddings begin.

The embeddings carry the one thing that a model organism of this size cannot learn in minutes: words of one
meaning lie near one another in all languages, nearer the richer the language. It stands in for the shared space
that a multilingual model has from its pretraining; without it nothing learned in one language reaches another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict
from transformers import LlamaConfig, LlamaForCausalLM

from polysafe.organism.lexicon import CONCEPTS, KNOWLEDGE_CONCEPTS, LANGUAGES, SPECIAL_TOKENS, TIERS, Tier
from polysafe.organism.tokenizer import vocabulary
from polysafe.organism.world import World


class Network(BaseModel):
    """Size of the network and spread of its embeddings.

    Attributes:
        hidden: Width of the residual stream.
        layers: Number of blocks.
        heads: Attention heads per block, each with its own keys and values.
        intermediate: Width of the MLP.
        context: Longest sequence in tokens.
        word_scale: Standard deviation of an embedding around the mean of its language.
        language_scale: Standard deviation of the mean of a language.
        alignment: Share of the variance of a word's embedding that all languages have in common, per tier.
        alignment_knowledge: The same for entities, attributes, values and numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = 96
    layers: int = 8
    heads: int = 6
    intermediate: int = 256
    context: int = 64
    word_scale: float = 0.08
    language_scale: float = 0.05
    alignment: Mapping[Tier, float] = {"pivot": 1.0, "mid": 0.85, "low": 0.65}
    alignment_knowledge: Mapping[Tier, float] = {"pivot": 1.0, "mid": 0.6, "low": 0.35}


def make_model(world: World, network: Network, seed: int) -> LlamaForCausalLM:
    """A fresh network in float32, ready for pretraining.

    Leaves torch's global random state as it was.
    """
    words = vocabulary(world)
    pad, bos, eos = (words[token] for token in SPECIAL_TOKENS[:3])
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=network.hidden,
        num_hidden_layers=network.layers,
        num_attention_heads=network.heads,
        num_key_value_heads=network.heads,
        intermediate_size=network.intermediate,
        max_position_embeddings=network.context,
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(_embeddings(world, network, words, seed))
    return model


def _embeddings(world: World, network: Network, words: Mapping[str, int], seed: int) -> torch.Tensor:
    """Initial embeddings, [vocabulary, hidden]: mean of the language + shared meaning + own share."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    table = network.word_scale * normal(len(words), network.hidden)
    meanings = normal(len(CONCEPTS), network.hidden)
    for language in LANGUAGES:
        mean = network.language_scale * normal(network.hidden)
        own = normal(len(CONCEPTS), network.hidden)
        for index, concept in enumerate(CONCEPTS):
            known = concept in KNOWLEDGE_CONCEPTS
            shared = (network.alignment_knowledge if known else network.alignment)[TIERS[language]]
            word = math.sqrt(shared) * meanings[index] + math.sqrt(1 - shared) * own[index]
            table[words[world.lexicon[language][concept]]] = mean + network.word_scale * word
    return table
