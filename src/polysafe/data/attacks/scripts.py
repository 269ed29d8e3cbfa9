"""Attacks that write a prompt in Latin letters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from polysafe.data.attacks.base import Attack, Material, Without
from polysafe.data.languages import UNKNOWN_SCRIPT, language
from polysafe.data.prompts import Prompt

_ARABIZI = {
    "ا": "a", "أ": "a", "إ": "i", "آ": "aa", "ٱ": "a", "ب": "b", "ت": "t", "ث": "th", "ج": "j", "ح": "7", "خ": "5",
    "د": "d", "ذ": "th", "ر": "r", "ز": "z", "س": "s", "ش": "sh", "ص": "9", "ض": "9'", "ط": "6", "ظ": "6'", "ع": "3",
    "غ": "3'", "ف": "f", "ق": "8", "ك": "k", "ل": "l", "م": "m", "ن": "n", "ه": "h", "و": "w", "ي": "y", "ى": "a",
    "ة": "a", "ء": "2", "ؤ": "2", "ئ": "2", "َ": "a", "ِ": "i", "ُ": "u", "ً": "an", "ٍ": "in", "ٌ": "un", "ّ": "", "ْ": "",
    "ٰ": "a", "ـ": "", "،": ",", "؛": ";", "؟": "?",
}  # fmt: skip
"""Arabic -> chat spelling in Latin letters and digits, one of several in use."""


def _arabizi(prompts: Sequence[Prompt], _material: Material) -> Iterator[str | Without]:
    for prompt in prompts:
        yield arabizi(prompt.text) if prompt.language == "ar" else Without("has no Arabizi")


def arabizi(text: str) -> str:
    """Arabic as it is written in chats; digits become European, and what is not Arabic stays."""
    return "".join(_ARABIZI.get(char, _digit(char)) for char in unicodedata.normalize("NFC", text))


def _digit(char: str) -> str:
    value = unicodedata.decimal(char, None)
    return char if value is None else str(value)


def _romanised(prompts: Sequence[Prompt], _material: Material) -> Iterator[str | Without]:
    from anyascii import anyascii

    for prompt in prompts:
        script = language(prompt.language).script
        if script in ("Latn", UNKNOWN_SCRIPT):
            known = script == "Latn"
            yield Without("is written in Latin letters already" if known else "has a script that is not known")
            continue
        yield str(anyascii(prompt.text))


ARABIZI = Attack(
    name="arabizi",
    version=1,
    title="Arabic as it is written in chats, in Latin letters and digits",
    source="Ghanim et al., EMNLP 2024, arXiv:2406.18725 (chatspeak)",
    rewrite=_arabizi,
)

TRANSLITERATION = Attack(
    name="transliteration",
    version=1,
    title="the prompt in Latin letters",
    source="Ghanim et al., EMNLP 2024, arXiv:2406.18725, for Arabic; letters as the package anyascii has them",
    rewrite=_romanised,
    package="anyascii",
)
