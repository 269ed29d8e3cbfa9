"""The scripts of a text, and which scripts a language is written in.

The standard library knows no scripts, but the name of every letter begins with that of its script; that is enough, and
needs no table of ranges that ages.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

# First word of a letter's Unicode name -> ISO 15924 code.
_CODES: Mapping[str, str] = {
    "LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARABIC": "Arab",
    "HEBREW": "Hebr",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "KHMER": "Khmr",
    "GEORGIAN": "Geor",
    "ARMENIAN": "Armn",
    "ETHIOPIC": "Ethi",
    "HANGUL": "Hang",
    "HIRAGANA": "Hira",
    "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana",
    "IDEOGRAPHIC": "Hani",
    "CJK": "Hani",
    "JAVANESE": "Java",
    "SUNDANESE": "Sund",
    "MONGOLIAN": "Mong",
    "THAANA": "Thaa",
    "SYRIAC": "Syrc",
    "TIFINAGH": "Tfng",
    "CHEROKEE": "Cher",
    "NKO": "Nkoo",
}

# Scripts of languages that are not written in Latin letters alone. Where a language has two, both are its own.
_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("ar", "ary", "arz", "fa", "ps", "ur", "ug", "ckb", "sdh", "sd"), ("Arab",)),
    **dict.fromkeys(("he", "hbo", "yi"), ("Hebr",)),
    **dict.fromkeys(("ru", "uk", "be", "bg", "mk", "kk", "ky", "tg", "tt", "ba", "mn"), ("Cyrl",)),
    **dict.fromkeys(("hi", "mr", "ne", "sa", "gom", "bho", "mai"), ("Deva",)),
    **dict.fromkeys(("bn", "as"), ("Beng",)),
    **dict.fromkeys(("am", "ti"), ("Ethi",)),
    **dict.fromkeys(("el", "grc"), ("Grek",)),
    **dict.fromkeys(("zh", "wuu", "yue"), ("Hani",)),
    "ja": ("Hani", "Hira", "Kana"),
    "ko": ("Hang", "Hani"),
    "th": ("Thai",),
    "lo": ("Laoo",),
    "km": ("Khmr",),
    "my": ("Mymr",),
    "te": ("Telu",),
    "ta": ("Taml",),
    "kn": ("Knda",),
    "ml": ("Mlym",),
    "si": ("Sinh",),
    "gu": ("Gujr",),
    "pa": ("Guru", "Arab"),
    "or": ("Orya",),
    "ka": ("Geor",),
    "hy": ("Armn",),
    "bo": ("Tibt",),
    "dz": ("Tibt",),
    "dv": ("Thaa",),
    "sr": ("Cyrl", "Latn"),
    "uz": ("Latn", "Cyrl"),
    "uzs": ("Arab",),
    "az": ("Latn", "Cyrl"),
    "ku": ("Latn", "Arab"),
    "jv": ("Latn", "Java"),
    "su": ("Latn", "Sund"),
    "ms": ("Latn", "Arab"),
    "ha": ("Latn", "Arab"),
    "kab": ("Latn", "Tfng"),
}

DENSE = frozenset({"Hani", "Hira", "Kana", "Hang"})
"""Scripts whose letters carry about three times as much as those of an alphabet."""


def scripts_of(language: str) -> tuple[str, ...]:
    """ISO 15924 codes of the scripts that a language is written in; Latin where nothing else is known."""
    return _SCRIPTS.get(language, ("Latn",))


@lru_cache(maxsize=65536)
def script_of(char: str) -> str | None:
    """ISO 15924 code of a letter's or mark's script; None for what belongs to none or to all."""
    if unicodedata.category(char)[0] not in "LM":
        return None
    words = unicodedata.name(char, "").split()
    if words and words[0] in {"FULLWIDTH", "HALFWIDTH"}:
        words = words[1:]
    return _CODES.get(words[0], "Zzzz") if words and words[0] not in _SHARED else None


_SHARED = frozenset({"COMBINING", "MODIFIER", "VARIATION", "FEMININE", "MASCULINE", "MATHEMATICAL", "MICRO"})


def script_counts(text: str) -> Counter[str]:
    """How many letters and marks of each script a text has."""
    return Counter(script for script in map(script_of, text) if script is not None)


def script_shares(text: str) -> dict[str, float]:
    """Script -> its share of the letters and marks of a text, the largest first; empty without letters."""
    counts = script_counts(unicodedata.normalize("NFC", text))
    total = counts.total()
    return {script: count / total for script, count in counts.most_common()}


def weight(text: str) -> int:
    """How much a text says, in letters of an alphabet: letters of dense scripts count three, marks and the rest none.

    A length that means about the same in Thai, Chinese and English, which neither words nor bytes do.
    """
    total = 0
    for char in text:
        if unicodedata.category(char)[0] == "L":
            total += 3 if script_of(char) in DENSE else 1
    return total
