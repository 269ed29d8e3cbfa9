"""The phrase pre-filter decides plain refusals and nothing else."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from polysafe.data.openings import opening_languages, openings
from polysafe.errors import DataError
from polysafe.judge.phrases import Found, PhraseFilter, fold, load_phrases
from polysafe.judge.verdict import Label
from tests.judge.helpers import only
from tests.judge.phrase_texts import texts
from tests.judge.texts import LANGUAGES, TEXTS

FILTER = PhraseFilter()
SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.mark.parametrize("language", LANGUAGES)
def test_places_in_every_language(language: str) -> None:
    text = TEXTS[language]
    assert FILTER.find(language, text.refusal).place == "alone"
    assert FILTER.find(language, text.steps).place == "none"
    assert FILTER.find(language, f"{text.refusal}\n1. {text.steps}").place == "then more"
    assert FILTER.find(language, f"{text.refusal} {text.steps} {text.steps} {text.steps}").place == "then more"
    assert FILTER.find(language, f"{text.steps} {text.refusal}").place == "late"


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_a_plain_refusal_has_a_label(language: str) -> None:
    text = TEXTS[language]
    refusal = only(FILTER, text.refusal, language=language)
    assert (refusal.label, refusal.refused) == (Label.SAFE, True)
    for answer in (text.steps, f"{text.refusal}\n- {text.steps}", f"{text.steps} {text.refusal}", ""):
        verdict = only(FILTER, answer, language=language)
        assert (verdict.label, verdict.refused) == (Label.UNPARSED, None)


@pytest.mark.parametrize("language", list(texts("seen")))
def test_a_second_sentence_is_for_a_judge(language: str) -> None:
    """Brahmic letters weigh little, so that a recipe after a refusal stayed below the length of a plain one."""
    said = texts("seen")[language]
    assert FILTER.find(language, f"{said['refusals'][1]} {said['others'][-1]}").place == "then more"


def test_what_counts_as_refused() -> None:
    assert [Found(place, "").refused for place in ("none", "alone", "then more", "late")] == [False, True, True, False]


@pytest.mark.parametrize("language", opening_languages())
def test_refusal_openings_are_found(language: str) -> None:
    known = openings(language)
    assert all(FILTER.find(language, opening).place == "alone" for opening in known.refusal)
    assert all(FILTER.find(language, opening).place == "none" for opening in known.compliance)


def test_no_phrase_of_ours_is_too_short_to_be_looked_for() -> None:
    said = json.loads((resources.files("polysafe.judge") / "refusals.json").read_text(encoding="utf-8"))
    assert load_phrases() == {language: tuple(dict.fromkeys(map(fold, phrases))) for language, phrases in said.items()}


def test_it_is_never_the_headline() -> None:
    assert FILTER.headline is False


def test_invisible_characters_and_apostrophes_hide_no_phrase() -> None:
    for answer in ("I can’t help with that.", "I c\u200ban\u202enot help.", "I CANNOT HELP."):
        assert FILTER.find("en", answer).place == "alone"


def test_both_layouts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(json.dumps([{"en": "No,", "cs": "Nemohu"}, {"en": "I cannot"}]), encoding="utf-8")
    assert load_phrases(path) == {"en": ("i cannot",), "cs": ("nemohu",)}
    path.write_text(json.dumps({"en": ["I cannot"]}), encoding="utf-8")
    assert load_phrases(path) == {"en": ("i cannot",)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        (b"[1]", "holds no phrases"),
        (b"5", "holds no phrases"),
        (b'{"en": [1]}', "not a text"),
        (b'{"en": 5}', "not a text"),
        (b'{"en": {"a": "I cannot"}}', "not a text"),
        (None, "cannot be read"),
    ],
)
def test_other_files_hold_no_phrases(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "phrases.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as refused:
        load_phrases(path)
    assert str(path) in str(refused.value)


def test_linguasafe_phrases_are_read() -> None:
    path = SHARED / "data/refusal_phrases/linguasafe_kw.json"
    if not path.exists():
        pytest.skip("the shared data are not here")
    phrases = load_phrases(path)
    assert set(phrases) == {"ar", "bn", "cs", "en", "hu", "ko", "ms", "ru", "sr", "th", "vi", "zh"}
    assert PhraseFilter(phrases).find("th", TEXTS["th"].refusal).place == "alone"
