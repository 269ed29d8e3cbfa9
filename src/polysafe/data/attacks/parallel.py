"""Attacks that are made of the same prompt in other languages of its set."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from polysafe.data.attacks.base import Attack, Material, Without
from polysafe.data.languages import language
from polysafe.data.prompts import Prompt
from polysafe.errors import DataError

LOW_RESOURCE = ("zu", "gd", "hmn", "gn", "jv", "sw", "bn", "yo")
"""Where low-resource pivoting goes through: the first of these that a set has. The four of Yong et al. come first, then
those that MultiJail calls low-resource; last Yoruba."""
VIA_FOR_PIVOT = "sw"
"""Where a round trip of a prompt in the pivot goes through; those of all other languages go through the pivot."""

_WORDS_A_PIECE = 3
_UNITS = 3


def _switched(prompts: Sequence[Prompt], material: Material) -> Iterator[str | Without]:
    for prompt in prompts:
        other = material.text(prompt, material.pivot)
        if prompt.language == material.pivot:
            yield Without("is the language that others are mixed with")
        elif other is None:
            yield Without(f"has prompts without their row in {material.pivot}")
        else:
            yield _mixed(prompt.text, other)


def _mixed(text: str, other: str) -> str:
    """Pieces of both texts in turn, each from its own place in its text."""
    count = max(2, round(len(other.split()) / _WORDS_A_PIECE))
    sides = [_pieces(each, count) for each in (text, other)]
    return " ".join(filter(None, (sides[place % 2][place] for place in range(count))))


def _pieces(text: str, count: int) -> list[str]:
    """A text in so many pieces of about the same length: of words, or of characters where nothing divides words."""
    words = text.split()
    units, between = (words, " ") if len(words) >= _UNITS else (_characters(text), "")
    ends = [place * len(units) // count for place in range(count + 1)]
    return [between.join(units[start:end]).strip() for start, end in pairwise(ends)]


def _characters(text: str) -> list[str]:
    """Characters, with the marks that stand on them."""
    found: list[str] = []
    for char in text:
        if found and unicodedata.category(char).startswith("M"):
            found[-1] += char
        else:
            found.append(char)
    return found


def _pivoted(prompts: Sequence[Prompt], material: Material) -> Iterator[str | Without]:
    there = {code for row in material.rows.values() for code in row}
    through = next((code for code in LOW_RESOURCE if code in there), None)
    for prompt in prompts:
        if through is None:
            yield Without(f"has no row in a low-resource language ({', '.join(LOW_RESOURCE)})")
        elif prompt.language == through:
            yield Without("is the low-resource language itself")
        elif (text := material.text(prompt, through)) is None:
            yield Without(f"has prompts without their row in {through}")
        else:
            yield f"{text}\n\nAnswer in {language(prompt.language).name}."


def _round_trip(prompts: Sequence[Prompt], material: Material) -> Iterator[str | Without]:
    if material.translate is None:
        raise DataError(
            "the attack 'translation_round_trip' needs a translator, and none is named",
            remedy="name one with --translate, or a judge of the kind translate_test in the recipe; or leave it out",
        )
    for code, group in groupby(prompts, lambda prompt: prompt.language):
        via = VIA_FOR_PIVOT if code == material.pivot else material.pivot
        there = material.translate([prompt.text for prompt in group], code, via)
        yield from _told(material.translate(there, via, code))


def _told(texts: Iterable[str]) -> Iterator[str | Without]:
    return (text if text.strip() else Without("has prompts that the translator gave nothing for") for text in texts)


CODE_SWITCHING = Attack(
    name="code_switching",
    version=1,
    title="every other piece of the prompt is in the pivot",
    source="Yoo, Yang and Lee, ACL 2025, arXiv:2406.15481 (CSRT; theirs are written by a language model)",
    rewrite=_switched,
    parallel=True,
)

LOW_RESOURCE_PIVOT = Attack(
    name="low_resource_pivot",
    version=1,
    title="the prompt in a low-resource language, answered in the language that is measured",
    source="Yong, Menghini and Bach, 2023, arXiv:2310.02446",
    elsewhere="garak: buff low_resource_languages",
    rewrite=_pivoted,
    english=True,
    parallel=True,
)

TRANSLATION_ROUND_TRIP = Attack(
    name="translation_round_trip",
    version=1,
    title="the prompt as it comes back from another language",
    source="a paraphrase by machine; we know of no paper that measures it as an attack",
    rewrite=_round_trip,
    translated=True,
)
