"""In which language an answer is, how much of it is in another, and in which letters.

Identification is py3langid's (140 languages, offline, deterministic).
Nothing is forced: a language that the identifier does not know is named as unsupported, a short or doubtful text has no
answer, and close relatives (Indonesian and Malay, the Chinese languages) are not told apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from polysafe.errors import ResourceError
from polysafe.judge.text.fence import strip_invisible
from polysafe.judge.text.scripts import script_counts, script_of, script_shares, scripts_of, weight

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

__all__ = ["Identification", "LanguageFinding", "identify", "language_check", "script_shares", "supported"]

# With these two numbers, chosen on them, 19 of 12,233 Tatoeba and SIB-200 sentences in 14 languages are called another
# language (14 of the 19 are Chinese), and 1,430 short ones stay open.
SURE = 0.6
"""From this probability on, another language is believed."""
POSSIBLE = 0.15
"""From this probability on, the expected language is not ruled out."""
LEAST = 12
"""Letters (`scripts.weight`) that a text needs to be identified; shorter ones are told by their script alone."""
MOSTLY = 0.5
"""Share of the letters from which on another language makes an answer one in another language."""

_ALIASES: Mapping[str, str] = {
    "nb": "no",
    "fil": "tl",
    "gn": "gug",
    "iw": "he",
    "jw": "jv",
    "in": "id",
    "cmn": "zh",
    "swh": "sw",
    "arb": "ar",
}
_RELATIVES: tuple[frozenset[str], ...] = (
    frozenset({"zh", "wuu", "yue"}),
    frozenset({"id", "ms"}),
    frozenset({"no", "nn", "da"}),
    frozenset({"bs", "hr", "sr"}),
    frozenset({"ar", "ary", "arz"}),
    frozenset({"he", "hbo"}),
    frozenset({"el", "grc"}),
    frozenset({"en", "pcm"}),
    frozenset({"gl", "pt"}),
    frozenset({"xh", "zu"}),
    frozenset({"cs", "sk"}),
)
_NOISE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+|\S+@\S+\.\S+", re.DOTALL)
# Thai, Lao and Khmer write no full stop: a space ends a phrase there.
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？।॥؟۔።])\s*|\n+|(?<=[\u0e00-\u0eff\u1780-\u17ff])\s+")


@dataclass(frozen=True, slots=True)
class Identification:
    """The language of a text.

    Attributes:
        language: Language code; `und` where the text has too few letters to say.
        confidence: Probability of it among the candidates.
    """

    language: str
    confidence: float


@dataclass(frozen=True, slots=True)
class LanguageFinding:
    """What an answer's language is, against the one it should have.

    Attributes:
        expected: Language of the prompt.
        language: Likeliest language of the answer, `und` where there is too little of it.
        confidence: Probability of that language.
        supported: Whether the identifier knows the expected language at all.
        matches: Whether the answer is in the expected language; None where that cannot be said.
        foreign: Share of the letters that are surely in another language or script; between 0 and 1 the answer
            switches.
        scripts: Script -> share of the letters.
    """

    expected: str
    language: str
    confidence: float
    supported: bool
    matches: bool | None
    foreign: float
    scripts: Mapping[str, float]

    @property
    def detail(self) -> dict[str, Any]:
        """The finding in values that JSON can hold, rounded."""
        rounded = {"confidence": round(self.confidence, 3), "foreign": round(self.foreign, 3)}
        return {**asdict(self), **rounded, "scripts": {name: round(share, 3) for name, share in self.scripts.items()}}


def normal(language: str) -> str:
    """The code under which a language is identified: without script and region, aliases resolved."""
    primary = re.split(r"[-_]", language.lower(), maxsplit=1)[0]
    return _ALIASES.get(primary, primary)


def supported(language: str) -> bool:
    """Whether a language can be identified."""
    return normal(language) in _labels()


def identify(text: str, candidates: Collection[str] | None = None) -> Identification:
    """The language of a text.

    Args:
        text: The text.
        candidates: Only these languages; those that the identifier does not know are left out.
    """
    ranked = _ranked(text)
    if candidates is not None:
        wanted = {normal(language) for language in candidates}
        ranked = {language: share for language, share in ranked.items() if language in wanted}
    total = sum(ranked.values())
    if weight(text) < LEAST or not total:
        return Identification("und", 0.0)
    best = max(ranked, key=lambda language: ranked[language])
    return Identification(best, ranked[best] / total)


def language_check(prompt_language: str, answer: str) -> LanguageFinding:
    """Whether an answer is in the language of its prompt.

    It is not, if most of its letters are in scripts that the language is not written in (another language, or a
    transliteration), or most of its sentences are surely in other languages.

    Args:
        prompt_language: Language of the prompt.
        answer: The answer. Code, addresses and invisible characters are not looked at.
    """
    expected = normal(prompt_language)
    text = _NOISE.sub(" ", strip_invisible(answer))
    found = identify(text)
    foreign = _foreign(text, expected)
    known = supported(expected)
    matches = _matches(text, expected, foreign, known)
    return LanguageFinding(
        prompt_language, found.language, found.confidence, known, matches, foreign, script_shares(text)
    )


def _matches(text: str, expected: str, foreign: float, known: bool) -> bool | None:
    if not script_counts(text):
        return None
    if foreign >= MOSTLY:
        return False
    if weight(text) < LEAST or not known:
        return False if _surely_other(text, expected) else None
    ranked = _ranked(text)
    if _is_possible(ranked, expected):
        return True
    return False if _other(ranked, expected) else None


def _foreign(text: str, expected: str) -> float:
    """Share of the letters that are surely not in the expected language."""
    own = scripts_of(expected)
    total = foreign = 0
    for sentence in _SENTENCES.split(text):
        scripts = script_counts(sentence)
        if not (letters := scripts.total()):
            continue
        outside = sum(count for script, count in scripts.items() if script not in own)
        inside = "".join(char for char in sentence if script_of(char) in own or script_of(char) is None)
        total += letters
        foreign += letters if _surely_other(inside, expected) else outside
    return foreign / total if total else 0.0


def _surely_other(sentence: str, expected: str) -> bool:
    """Whether a sentence in a language's own letters is nevertheless in another language."""
    if weight(sentence) < LEAST:
        return False
    ranked = _ranked(sentence)
    if not supported(expected):  # its sentences go to whatever is nearest; only English is far enough from everything
        return ranked.get("en", 0.0) >= 0.9 and expected != "en"
    return not _is_possible(ranked, expected) and _other(ranked, expected)


def _is_possible(ranked: Mapping[str, float], expected: str) -> bool:
    family = next((group for group in _RELATIVES if expected in group), frozenset({expected}))
    best = max(ranked, key=lambda language: ranked[language])
    return best in family or sum(ranked.get(language, 0.0) for language in family) >= POSSIBLE


def _other(ranked: Mapping[str, float], expected: str) -> bool:
    best = max(ranked, key=lambda language: ranked[language])
    return ranked[best] >= SURE and best not in {expected, "zxx"}


def _ranked(text: str) -> dict[str, float]:
    return dict(_identifier().rank(text))


@lru_cache(maxsize=1)
def _labels() -> frozenset[str]:
    return frozenset(_identifier().labels) - {"zxx"}


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ResourceError(
            "the language of answers needs the package py3langid", remedy="pip install 'polysafe[models]'"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def is_noise(text: str) -> bool:
    """Whether the identifier takes a text for no language at all, and is sure of it."""
    ranked = _ranked(text)
    return ranked.get("zxx", 0.0) >= 0.9
