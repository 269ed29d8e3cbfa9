"""The refusal openings: every language's are usable, its own, and tell the two sides apart."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

from polysafe.data.languages import language
from polysafe.data.openings import SCHEMA, opening_languages, openings
from polysafe.errors import DataError
from polysafe.judge.text.language import language_check
from polysafe.judge.text.scripts import script_shares, scripts_of

LANGUAGES = opening_languages()
BENCHMARKS = frozenset(["en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv", "te", "hi"])
WORDS = 6


def content() -> Any:
    return json.loads((resources.files("polysafe.data") / "openings.json").read_text(encoding="utf-8"))


def test_the_languages_of_the_benchmarks_have_openings() -> None:
    assert set(LANGUAGES) >= BENCHMARKS
    assert all(language(code).code == code for code in LANGUAGES)


def test_the_file_has_the_schema() -> None:
    read = content()
    assert read["schema"] == SCHEMA
    assert all(set(entry) == {"refusal", "compliance", "source"} for entry in read["languages"].values())
    assert all(isinstance(entry["source"], str) and entry["source"] for entry in read["languages"].values())


@pytest.mark.parametrize("code", LANGUAGES)
def test_sides_are_told_apart(code: str) -> None:
    known = openings(code)
    sides = (known.refusal, known.compliance)
    assert all(len(side) == len(set(side)) == 4 for side in sides)
    for refusal in known.refusal:
        for compliance in known.compliance:
            assert not refusal.startswith(compliance)
            assert not compliance.startswith(refusal)
            assert refusal.split()[0] != compliance.split()[0]  # a first word that both share says nothing
    assert all(text == text.strip() and 1 <= len(text.split()) <= WORDS for side in sides for text in side)


@pytest.mark.parametrize("code", LANGUAGES)
def test_openings_are_in_their_language(code: str) -> None:
    known = openings(code)
    for side in (known.refusal, known.compliance):
        assert all(set(script_shares(text)) <= set(scripts_of(code)) for text in side)
        assert all(language_check(code, text).matches is not False for text in (*side, ". ".join(side)))


def test_the_hash_is_that_of_the_openings() -> None:
    known = openings("en")
    assert replace(known, source="elsewhere").sha256 == known.sha256
    assert replace(known, refusal=known.refusal[1:]).sha256 != known.sha256
    assert replace(known, refusal=known.compliance, compliance=known.refusal).sha256 != known.sha256
    assert len({openings(code).sha256 for code in LANGUAGES}) == len(LANGUAGES)


@pytest.mark.parametrize("spelling", ["sw", "SWH", "Swahili", "sw-KE", "swh_Latn"])
def test_any_spelling_of_a_language_is_understood(spelling: str) -> None:
    assert openings(spelling) == openings("sw")


@pytest.mark.parametrize("unknown", ["qac", "zu", "klingonese", ""])
def test_a_language_without_openings_is_named_with_those_that_have(unknown: str) -> None:
    with pytest.raises(DataError, match=f"no refusal openings are known in '{unknown}'") as caught:
        openings(unknown)
    assert "sw" in str(caught.value.remedy)
