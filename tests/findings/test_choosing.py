"""What was tried is kept beside results, and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.errors import DataError
from polysafe.findings.choosing import FILE, Choosing, Gain, Tried, load_choosing, save_choosing

GAIN = Gain("sw", 50, counted=True, before=0.1, after=0.6, low=0.3, high=0.65)
FOUND = Choosing("sw", "it gains most", (Tried("soup", 1, (GAIN,), {"kl": 0.01}, "", taken=True), Tried("dare", 3)))


def test_what_was_left_is_read_again(tmp_path: Path) -> None:
    assert load_choosing(tmp_path) == ()
    save_choosing(tmp_path, [FOUND])
    assert load_choosing(tmp_path) == (FOUND,)
    assert FOUND.taken == FOUND.tried[0]
    assert Choosing("sw", "none helps", FOUND.tried[1:]).taken is None


@pytest.mark.hostile("report")
@pytest.mark.parametrize(
    "content",
    [
        {"polysafe": "choosing", "schema": 1},
        {"polysafe": "choosing", "schema": 1, "choices": [{"model": "sw"}]},
        {"polysafe": "choosing", "schema": 2, "choices": []},
        {"polysafe": "model_run", "schema": 1, "choices": []},
        [],
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=FILE):
        load_choosing(tmp_path)
