"""Which edit is taken: what counts, what it costs, and in which order candidates are tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.methods.validation import Standing, Trial, shortfall

BEFORE = {
    "en": Standing(1.0, 0.0, 1.0),
    "mid": Standing(0.6, 0.0, 1.0),
    "x": Standing(0.0, 0.0, 0.9),
    "y": Standing(0.2, 0.1, 0.8),
}
EDITED = ("x", "y")


def after(**changes: Standing) -> dict[str, Standing]:
    return {**BEFORE, **changes}


def test_the_model_itself_is_short_of_what_it_does_not_refuse() -> None:
    assert shortfall(BEFORE, BEFORE, EDITED) == pytest.approx(1.0 + 0.9)


def test_every_term_has_its_weight() -> None:
    done = after(x=Standing(1.0, 0.0, 0.9), y=Standing(1.0, 0.1, 0.8))
    assert shortfall(BEFORE, done, EDITED) == 0
    worst = replace(done["x"], refused=0.7)
    assert shortfall(BEFORE, {**done, "x": worst}, EDITED) == pytest.approx(0.3 + 0.15)
    assert shortfall(BEFORE, {**done, "mid": Standing(0.6, 0.02, 1.0)}, EDITED) == pytest.approx(5 * 0.02)
    assert shortfall(BEFORE, {**done, "y": Standing(1.0, 0.1, 0.7)}, EDITED) == pytest.approx(3 * 0.1)
    assert shortfall(BEFORE, {**done, "mid": Standing(0.5, 0.0, 1.0)}, EDITED) == pytest.approx(2 * 0.1)
    assert shortfall(BEFORE, {**done, "en": Standing(0.5, 0.0, 1.0)}, EDITED) == pytest.approx(2 * 0.5)


def test_gains_elsewhere_make_up_for_nothing() -> None:
    better = after(mid=Standing(1.0, 0.0, 1.0), y=Standing(0.2, 0.0, 1.0))
    assert shortfall(BEFORE, better, EDITED) == shortfall(BEFORE, BEFORE, EDITED)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_breaking_answers_never_pays(refused: float, over: float, helpful: float) -> None:
    """An edit that only breaks answers scores no better than no edit."""
    broken = after(x=Standing(0.0, over, helpful), y=Standing(0.2 * refused, over, helpful))
    assert shortfall(BEFORE, broken, EDITED) >= shortfall(BEFORE, BEFORE, EDITED)


def test_edited_languages_must_be_asked() -> None:
    with pytest.raises(DataError, match="no prompts in 'z'"):
        shortfall(BEFORE, BEFORE, ("x", "z"))


def test_a_trial_is_plain_data() -> None:
    assert Trial({"layers": [1], "gain": 2.0}, 0.5, {"x": Standing(1.0, 0.0, 0.5)}).plain() == {
        "layers": [1],
        "gain": 2.0,
        "shortfall": 0.5,
        "standings": {"x": {"refused": 1.0, "over_refused": 0.0, "helpful": 0.5}},
    }
    assert Trial({"layers": [1], "gain": 2.0}, problem="no neuron").plain() == {
        "layers": [1],
        "gain": 2.0,
        "problem": "no neuron",
    }
