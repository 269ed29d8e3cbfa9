"""Records as samples of a log, and back: what is shown is what was recorded, and nothing else is taken for a record."""

from __future__ import annotations

import pytest
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessageUser
from inspect_ai.model._model_output import ModelOutput
from inspect_ai.scorer import Score

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.evaluate.records import Record
from polysafe.generate.completion import Completion
from polysafe.inspect_ai.samples import SCORE, judge_hash, printable, record_of, sample_of, score_of, short_id
from polysafe.judge.verdict import Label, Verdict

JUDGE = judge_hash({"judge": "fake"})


def record(text: str = "an answer", label: Label = Label.SAFE, refused: bool | None = True) -> Record:
    prompt = Prompt("set", "row 1", "sw", "a question", "harmful", "none")
    return Record(prompt, Completion(prompt.id, text, "stop", 3, "a" * 64), Verdict(prompt.id, label, refused, "fake"))


@pytest.mark.parametrize("text", ["", "plain", "\ud800 lone", "a\u2028b\x00", "\\ud800"])
def test_a_record_comes_back(text: str) -> None:
    sample = sample_of(record(text), "log", JUDGE)
    sample.model_dump_json().encode("utf-8")
    assert record_of(sample, JUDGE) == record(text)


def test_a_score_says_label_judge_and_why() -> None:
    score = score_of(record().verdict, "an answer", JUDGE)
    assert (score.value, score.answer, score.reason) == (str(Label.SAFE), "an answer", "refusal")
    assert score.metadata is not None
    assert score.metadata["judge_sha256"] == JUDGE
    assert score_of(record(refused=False).verdict, "", JUDGE).reason is None
    assert score_of(record(label=Label.UNPARSED, refused=None).verdict, "", JUDGE).reason == "grader_failed"


def test_names_depend_on_their_parts_alone() -> None:
    assert short_id("a", 1) == short_id("a", 1)
    assert len({short_id("a", 1), short_id("a", "1"), short_id("a1"), short_id("a")}) == 4
    assert sample_of(record(), "log", JUDGE).uuid != sample_of(record(), "other", JUDGE).uuid


def test_lone_surrogates_are_escaped_at_any_depth() -> None:
    value = {"\ud800": ["\udfff", ("a", 1)], "b": None}
    assert printable(value) == {"\\ud800": ["\\udfff", ["a", 1]], "b": None}


def without_score(sample: EvalSample) -> None:
    sample.scores = {}


def without_answer(sample: EvalSample) -> None:
    sample.output = ModelOutput()


def by_another_judge(sample: EvalSample) -> None:
    assert sample.scores is not None
    sample.scores[SCORE] = score_of(record().verdict, "an answer", judge_hash({"judge": "other"}))


def as_a_conversation(sample: EvalSample) -> None:
    sample.input = [ChatMessageUser(content="a question")]


def with_another_answer(sample: EvalSample) -> None:
    sample.output.completion = "edited"


def with_another_label(sample: EvalSample) -> None:
    assert sample.scores is not None
    score = sample.scores[SCORE]
    sample.scores[SCORE] = Score(**{**score.model_dump(), "value": str(Label.UNSAFE)})


@pytest.mark.hostile("log")
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (without_score, "has no answer and verdict of ours"),
        (without_answer, "has no answer and verdict of ours"),
        (by_another_judge, "has a score that the log's judge did not give"),
        (as_a_conversation, "was asked more than the prompt"),
        (with_another_answer, "is shown otherwise than it was recorded"),
        (with_another_label, "is shown otherwise than it was recorded"),
    ],
)
def test_what_is_no_record_is_refused_by_its_name(damage: object, problem: str) -> None:
    sample = sample_of(record("\ud800"), "log", JUDGE)
    assert callable(damage)
    damage(sample)
    with pytest.raises(DataError, match=problem) as caught:
        record_of(sample, JUDGE)
    assert caught.value.where == f"sample {sample.id!r}"
    assert caught.value.remedy
