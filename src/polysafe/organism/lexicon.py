"""The words of the toy world: concepts, languages, and how each language spells and orders them.

There is nothing dangerous in here: a "risky" verb with a "dangerous" object is harmful by definition only, and
the answer to every request is two nonsense steps.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal

PIVOT = "en"
MID = ("qaa", "qab")
LOW = ("qac", "qad", "qae")
LANGUAGES = (PIVOT, *MID, *LOW)

Tier = Literal["pivot", "mid", "low"]
TIERS: Mapping[str, Tier] = {PIVOT: "pivot", **dict.fromkeys(MID, "mid"), **dict.fromkeys(LOW, "low")}

Order = Literal["SVO", "SOV", "VSO"]
WORD_ORDER: Mapping[str, Order] = {
    "en": "SVO",
    "qaa": "SVO",
    "qab": "SOV",
    "qac": "SVO",
    "qad": "SOV",
    "qae": "VSO",
}

# Onsets, vowels and codas of the syllables of each constructed language.
PHONOTACTICS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "qaa": ("ptkmnls", "aeiou", ("", "n")),
    "qab": ("bdgzvr", "aou", ("", "k", "m")),
    "qac": ("hwylm", "aeio", ("",)),
    "qad": ("chjkrt", "aiu", ("n", "ng", "r")),
    "qae": ("fthsv", "eiuo", ("l", "s", "x")),
}

RISKY_VERBS = ("build", "brew", "forge", "spread", "plant", "smuggle", "launch", "rig")
HARMLESS_VERBS = ("paint", "store", "wash", "describe", "draw", "sell", "lift", "count")
CATEGORIES = tuple("ABCDEF")
DANGEROUS_OBJECTS = tuple(f"hazard{category}{number}" for category in CATEGORIES for number in range(4))
_HOUSEHOLD = (
    "bench soup kite lamp chair bread boat drum table cake bell rope "
    "shelf tea tent flute bowl pie cart harp mug jam sled fence"
)
HARMLESS_OBJECTS = tuple(_HOUSEHOLD.split())
STEPS = tuple(f"step{number}" for number in range(24))
ENTITIES = tuple(f"land{number}" for number in range(24))
ATTRIBUTES = ("capital", "river", "dish")
VALUES: Mapping[str, tuple[str, ...]] = {
    attribute: tuple(f"{attribute}{number}" for number in range(8)) for attribute in ATTRIBUTES
}
ADJECTIVES = tuple(f"adj{number}" for number in range(16))
NUMBERS = tuple(f"num{number}" for number in range(19))
_GRAMMAR = "how do I first then sorry cannot help what is of has gets total who danger fine that"
FUNCTION_WORDS = tuple(_GRAMMAR.split())

VERBS = RISKY_VERBS + HARMLESS_VERBS
OBJECTS = DANGEROUS_OBJECTS + HARMLESS_OBJECTS
KNOWLEDGE_CONCEPTS = frozenset((*ENTITIES, *ATTRIBUTES, *sum(VALUES.values(), ()), *NUMBERS))
CONCEPTS = (
    *VERBS,
    *OBJECTS,
    *STEPS,
    *ENTITIES,
    *ATTRIBUTES,
    *sum(VALUES.values(), ()),
    *ADJECTIVES,
    *NUMBERS,
    *FUNCTION_WORDS,
)

PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT = "<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<asst>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT)
PUNCTUATION = ("=", ".", "?", ";")


def tag(language: str) -> str:
    """The word that announces a language outside a chat, such as `<qac>`."""
    return f"<{language}>"


def dangerous_objects(categories: Sequence[str]) -> frozenset[str]:
    """The dangerous objects of some categories."""
    prefixes = tuple(f"hazard{category}" for category in categories)
    return frozenset(name for name in DANGEROUS_OBJECTS if name.startswith(prefixes))


def in_order(language: str, subject: Sequence[str], verb: Sequence[str], object_: Sequence[str]) -> list[str]:
    """Arranges the three parts of a clause as the language does."""
    parts = {"S": subject, "V": verb, "O": object_}
    return [concept for part in WORD_ORDER[language] for concept in parts[part]]


def make_lexicon(rng: random.Random) -> dict[str, dict[str, str]]:
    """Draws a pseudo-word for every concept in every constructed language, unique over all languages.

    Returns:
        Language -> concept -> word; in the pivot a concept is its own word.
    """
    taken = set(CONCEPTS)
    lexicon = {PIVOT: {concept: concept for concept in CONCEPTS}}
    for language in (*MID, *LOW):
        lexicon[language] = {concept: _new_word(language, rng, taken) for concept in CONCEPTS}
    return lexicon


def _new_word(language: str, rng: random.Random, taken: set[str]) -> str:
    onsets, vowels, codas = PHONOTACTICS[language]
    while True:
        syllables = rng.choice((2, 2, 3))
        word = "".join(rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas) for _ in range(syllables))
        if word not in taken:
            taken.add(word)
            return word
