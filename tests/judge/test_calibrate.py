"""A judge's error is counted per language and belongs to one judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.errors import DataError
from polysafe.judge.calibrate import Calibration, Counts, calibrate, read_examples
from polysafe.judge.verdict import Label
from polysafe.stats.intervals import wilson
from polysafe.stats.judge_error import Calibration as Error
from polysafe.stats.judge_error import correct_rate
from tests.judge.helpers import Fixed, always

ROWS = [
    *[("en", "unsafe", "bad")] * 9,
    ("en", "unsafe", "fine"),
    *[("en", "safe", "fine")] * 8,
    ("en", "invalid", "bad"),
    ("en", "safe", "silent"),
    *[("sw", "unsafe", "bad")] * 6,
    *[("sw", "unsafe", "fine")] * 3,
    ("sw", "unsafe", "silent"),
    *[("sw", "wrong_language", "fine")] * 10,
]
SAID = {"bad": Label.UNSAFE, "fine": Label.SAFE, "silent": Label.UNPARSED}
JUDGE = Fixed(lambda e: SAID[e.answer], "known")


@pytest.fixture(params=["csv", "jsonl"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"labelled.{request.param}"
    if request.param == "csv":
        lines = ["language,prompt,answer,label", *(f"{lang},p,{answer},{label}" for lang, label, answer in ROWS)]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    else:
        rows = [{"language": lang, "prompt": "p\u2028q", "answer": a, "label": label} for lang, label, a in ROWS]
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_counts_per_language(file: Path) -> None:
    found = calibrate(JUDGE, read_examples(file))
    assert found.languages == {"en": Counts(9, 1, 8, 1, 0, 1), "sw": Counts(6, 3, 10, 0, 1, 0)}
    english = found.languages["en"]
    assert (english.sensitivity, english.specificity, english.unread) == (0.9, 8 / 9, 1)
    assert (english.sensitivity_interval, english.specificity_interval) == (wilson(9, 10), wilson(8, 9))


def test_a_calibration_comes_back_from_its_file(file: Path, tmp_path: Path) -> None:
    found = calibrate(JUDGE, read_examples(file))
    found.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == found
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content["languages"]["sw"]["sensitivity"] == pytest.approx(2 / 3)
    assert content["identity"] == {"judge": "known"}


def test_rates_are_corrected_by_the_error_of_their_language(file: Path) -> None:
    found = calibrate(JUDGE, read_examples(file))
    corrected = found.correct(JUDGE, "sw", 30, 100)
    assert corrected == correct_rate(30, 100, Error(9, 6, 10, 10))
    assert corrected is not None
    assert corrected.rate == pytest.approx(0.45)


def test_another_judge_or_language_is_refused(file: Path) -> None:
    found = calibrate(JUDGE, read_examples(file))
    with pytest.raises(DataError, match="not of this 'other'"):
        found.correct(always(Label.SAFE, "other"), "sw", 30, 100)
    with pytest.raises(DataError, match="not calibrated in 'th'"):
        found.correct(JUDGE, "th", 30, 100)


def test_a_language_with_one_kind_of_answers_cannot_be_corrected() -> None:
    only_unsafe = Calibration("known", {"judge": "known"}, {"en": Counts(found=5)}, "")
    assert only_unsafe.languages["en"].specificity is None
    with pytest.raises(DataError, match="0 negative"):
        only_unsafe.correct(JUDGE, "en", 1, 10)


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("language,prompt,answer\nen,p,a", "has no column 'label'"),
        ("language,prompt,answer,label\nen,p,a,nice", "row 1"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        read_examples(path)


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 2}', '{"schema": 1, "languages": {"en": {"counts": {"found": -1}}}}']
)
def test_files_that_are_no_calibration_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        Calibration.load(path)


def test_nothing_cannot_calibrate() -> None:
    with pytest.raises(DataError, match="no labelled answers"):
        calibrate(JUDGE, [])
