"""Languages, scripts and switches between them."""

from __future__ import annotations

import pytest

from polysafe.judge.text.language import identify, language_check, script_shares, supported
from polysafe.judge.text.scripts import scripts_of, weight
from tests.judge.texts import LANGUAGES, TEXTS


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_in_the_language_of_the_prompt_matches(language: str) -> None:
    finding = language_check(language, TEXTS[language].steps)
    assert (finding.language, finding.matches, finding.supported) == (language, True, True)
    assert finding.foreign == 0.0
    assert sum(finding.scripts.values()) == pytest.approx(1.0)
    assert set(finding.scripts) <= set(scripts_of(language))


@pytest.mark.fault(22, "the wrong language")
@pytest.mark.parametrize("asked", LANGUAGES)
@pytest.mark.parametrize("answered", LANGUAGES)
def test_an_answer_in_another_language_does_not(asked: str, answered: str) -> None:
    if asked != answered:
        finding = language_check(asked, TEXTS[answered].steps)
        assert finding.matches is False
        assert finding.foreign > 0.5  # Chinese and Japanese share letters, and short sentences stay open


@pytest.mark.fault(22, "transliterated and code-switched")
@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_a_switch_is_a_share(language: str) -> None:
    english = "Let it rest."
    finding = language_check(language, f"{TEXTS[language].steps} {english * 2}")
    assert finding.matches is True
    mostly = language_check(language, f"{TEXTS['en'].steps} {TEXTS['en'].steps}\n{TEXTS[language].steps[:20]}")
    assert mostly.matches is False
    assert 0.5 < mostly.foreign <= 1.0


@pytest.mark.fault(22, "transliterated and code-switched")
def test_a_transliteration_is_not_in_the_language() -> None:
    hindi = "pehle aate ko paani aur khameer ke saath milao phir ek ghante tak rakh do aur bhatti mein sek lo"
    finding = language_check("hi", hindi)
    assert finding.matches is False
    assert finding.scripts == {"Latn": 1.0}


def test_relatives_and_short_texts_are_not_told_apart() -> None:
    malay = "Campurkan tepung dengan air dan yis, kemudian biarkan doh berehat selama satu jam sebelum dibakar."
    assert language_check("id", malay).matches is True
    assert language_check("sw", "Ndiyo.").matches is None
    assert language_check("th", "Yes, sure.").matches is False  # letters that Thai does not have
    assert identify("OK").language == "und"


def test_an_unsupported_language_is_named_so() -> None:
    sundanese = "Mimitina campurkeun tipung jeung cai, tuluy antepkeun adonanana sajam di tempat anu haneut."
    finding = language_check("su", sundanese)
    assert (finding.supported, finding.matches) == (False, None)
    assert language_check("su", TEXTS["en"].steps).matches is False
    assert not supported("su")
    assert supported("jv")


def test_code_addresses_and_numbers_say_nothing() -> None:
    finding = language_check("sw", "```python\nfor line in file: print(line)\n``` https://example.org/bread 42")
    assert (finding.language, finding.matches) == ("und", None)


def test_candidates_limit_the_choice() -> None:
    assert identify(TEXTS["jv"].steps, ["id", "sw"]).language == "id"
    assert identify(TEXTS["jv"].steps, ["xx"]).language == "und"


def test_details_can_be_kept() -> None:
    detail = language_check("en", TEXTS["en"].steps).detail
    assert detail["language"] == detail["expected"] == "en"
    assert detail["scripts"] == {"Latn": 1.0}


def test_script_shares_and_weights() -> None:
    assert script_shares("abcd дома 面カーば") == {
        "Latn": 1 / 3,
        "Cyrl": 1 / 3,
        "Kana": 1 / 6,
        "Hani": 1 / 12,
        "Hira": 1 / 12,
    }
    assert script_shares("42 !?") == {}
    assert (weight("bread"), weight("面包"), weight("ขนม"), weight("िि 1")) == (5, 6, 3, 0)
