from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.evaluate.records import (
    Record,
    completion_from_json,
    completion_to_json,
    json_line,
    load_records,
    save_records,
    verdict_from_json,
    verdict_to_json,
)
from polysafe.generate.completion import Completion
from polysafe.judge.verdict import Label, Verdict

# Lone surrogates too; a high one before a low one is the same character as the pair, in JSON as in UTF-16.
TEXT = st.text(st.characters(exclude_categories=())).filter(
    lambda text: text == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)


def record(answer: str = "answer", said: str = "said", **about: Any) -> Record:
    prompt = Prompt("trial", "1", "en", "text", "harmful", None)
    return Record(
        prompt,
        Completion(prompt.id, answer, about.get("ending", "stop"), None, None),
        Verdict(prompt.id, about.get("label", Label.SAFE), about.get("refused"), "j", said, about.get("detail", {})),
    )


@given(TEXT, TEXT)
def test_any_text_comes_back(answer: str, said: str) -> None:
    made = record(answer, said, detail={"note": answer}, ending="length")
    line = json_line(made.to_json())
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert Record.from_json(json.loads(line), "here") == made
    assert made.truncated
    assert completion_from_json(made.prompt.id, completion_to_json(made.completion)) == made.completion
    assert verdict_from_json(made.prompt.id, verdict_to_json(made.verdict)) == made.verdict


@pytest.mark.parametrize("answer", ["\x00", "\udc80 broken", "x" * 1_000_000, "a\u2028b\x85c\r\nd", "\x1b]0;title\x07"])
def test_hostile_answers_come_back_from_a_file(tmp_path: Path, answer: str) -> None:
    made = [record(answer), record(f"{answer} again")]
    save_records(tmp_path / "records.jsonl", made)
    content = (tmp_path / "records.jsonl").read_bytes()
    assert content.count(b"\n") == 2
    assert not set(content) & {0, 0x1B}
    assert load_records(tmp_path / "records.jsonl") == tuple(made)


def test_words_that_records_share_are_kept_once(tmp_path: Path) -> None:
    """A hundred thousand records name few languages, and their findings have the same few names."""
    detail = {"place": "none", "language": {"language": "zxx", "scripts": {"Latn": 1.0}}, "note": "long " * 20}
    made = [record("a", detail=detail), record("b", detail=detail)]
    save_records(tmp_path / "records.jsonl", made)
    first, second = load_records(tmp_path / "records.jsonl")
    assert (first, second) == tuple(made)
    assert first.prompt.language is second.prompt.language
    assert first.completion.id is first.verdict.id
    for found, other in zip(first.verdict.detail.items(), second.verdict.detail.items(), strict=True):
        assert found[0] is other[0]
    assert first.verdict.detail["language"]["language"] is second.verdict.detail["language"]["language"]


@pytest.mark.hostile("record")
def test_details_as_deep_as_json_may_be_come_back() -> None:
    row = record().to_json()
    for _ in range(400):
        row["detail"] = {"x": row["detail"]}
    assert Record.from_json(row, "here").verdict.detail == row["detail"]


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": "fine"}, "label cannot be 'fine'"),
        ({"ending": "eos"}, "ending cannot be 'eos'"),
        ({"kind": "both"}, "kind cannot be 'both'"),
        ({"refused": "yes"}, "refused cannot be 'yes'"),
        ({"tokens": True}, "tokens cannot be True"),
        ({"answer": None}, "answer cannot be None"),
        ({"more": 1}, "does not have exactly the keys"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(json_line(record().to_json()) + json_line(record().to_json() | change))
    with pytest.raises(DataError, match=rf"records.jsonl:2: {problem}"):
        load_records(path)


@pytest.mark.hostile("record")
def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(json_line(record().to_json())[:-20])
    with pytest.raises(DataError, match=r"records.jsonl:1: is not JSON"):
        load_records(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_records(tmp_path / "absent.jsonl")


def test_a_detail_that_json_cannot_say_is_refused() -> None:
    for detail in ({"score": float("nan")}, {"score": object()}):
        with pytest.raises(DataError, match="cannot be written as JSON"):
            json_line(record(detail=detail).to_json())


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "data", [None, [], {}, {"text": "a"}, {"text": 1, "ending": "stop"}, {"text": "a", "ending": "x"}]
)
def test_stored_answers_are_checked(data: Any) -> None:
    with pytest.raises(DataError, match="no stored answer"):
        completion_from_json("trial/1/en", data)


@pytest.mark.hostile("record")
@pytest.mark.parametrize("data", [None, [], {}, {"label": "fine"}, {"label": "safe", "more": 1}])
def test_stored_verdicts_are_checked(data: Any) -> None:
    with pytest.raises(DataError, match="no stored verdict"):
        verdict_from_json("trial/1/en", data)
