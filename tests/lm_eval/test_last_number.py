"""The number that an answer ends with: trap T26, native digits and separators."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.lm_eval.last_number import last_number

ZEROS = {"bn": "০", "th": "๐", "te": "౦", "ar": "٠", "fa": "۰", "hi": "०", "my": "၀", "ja": "０"}
ANSWERS = {
    "উত্তর হল ১৮।": 18,
    "মোট ১,১৪,২০০ টাকা": 114200,
    "คำตอบคือ ๑๒๕ บาท": 125,
    "เขามี ๒,๑๒๕ บาท": 2125,
    "సమాధానం ౧౮.": 18,
    "మొత్తం ౫,౬౦౦": 5600,
    "الجواب ٢٬١٢٥": 2125,
    "٣٫٥": Decimal("3.5"),
    "The answer is $2,125.": 2125,
    "La réponse est 114\u202f200 €.": 114200,
    "5 600 euros": 5600,
    "Die Antwort lautet 1.234.567": 1234567,
    "Das sind 1.234,50 Euro": Decimal("1234.5"),
    "答えは１８です。": 18,
    "so 18.00": 18,
    "18,5": Decimal("18.5"),
    "0.125": Decimal("0.125"),
    "٠٫١٢٥": Decimal("0.125"),
    "−7": -7,
    "x = -7": -7,
    "10-3": 3,
    "12, 13, 14": 14,
    "in 2023 100 people": 100,
    "1, 2 and 3.": 3,
    "50 %": 50,
}


@pytest.mark.parametrize("text", ANSWERS)
def test_the_last_number(text: str) -> None:
    assert last_number(text) == ANSWERS[text]


@pytest.mark.parametrize("text", ["", "eighteen", "十八", "x²", "৳", "-", ",", "."])
def test_no_number(text: str) -> None:
    assert last_number(text) is None


@given(st.integers(-(10**12), 10**12), st.sampled_from(sorted(ZEROS)), st.sampled_from(["", ",", ".", "\u202f", "’"]))
def test_digits_and_separators_of_any_script(number: int, script: str, separator: str) -> None:
    text = f"{number:,}".replace(",", separator)
    native = "".join(chr(ord(ZEROS[script]) + int(sign)) if sign.isdecimal() else sign for sign in text)
    assert last_number(f"{native} .") == number


@given(st.text())
def test_any_text_has_a_number_or_none(text: str) -> None:
    found = last_number(text)
    assert found is None or Fraction(found) == found
