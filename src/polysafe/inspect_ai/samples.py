"""A record as a sample of an Inspect log, and back.

Whatever a model said stays text: a log is JSON in UTF-8. Lone surrogates have no UTF-8 form; they are shown escaped,
and the record goes along as ASCII so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.evaluate.keys import content_hash
from polysafe.evaluate.records import Record, json_line
from polysafe.files.json_file import parse_line
from polysafe.judge.verdict import Label, Verdict

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

SCORE = "verdict"
"""Name of the score that holds our label."""
_EXACT = "record"
_ID_LENGTH = 22


def short_id(*parts: object) -> str:
    """A name that depends on its parts alone, as long as those that Inspect draws at random."""
    return content_hash(parts)[:_ID_LENGTH]


def prompt_metadata(prompt: Prompt) -> dict[str, Any]:
    """What a sample says of its prompt."""
    return {
        "language": prompt.language,
        "category": prompt.category,
        "set": prompt.set,
        "kind": prompt.kind,
        "parallel": prompt.parallel,
    }


def judge_hash(identity: Mapping[str, Any]) -> str:
    """Hash of a judge's identity, by which every score says who gave it."""
    return content_hash(dict(identity))


def score_of(verdict: Verdict, answer: str, decided_by: str) -> Score:
    """A verdict as a score: the label is its value, the judge's words are its explanation.

    Args:
        verdict: The verdict.
        answer: The answer, which Inspect shows beside the score.
        decided_by: `judge_hash` of the judge.
    """
    from inspect_ai.scorer import Score

    metadata = {
        "refused": verdict.refused,
        "judge": verdict.judge,
        "judge_sha256": decided_by,
        "detail": dict(verdict.detail),
    }
    return Score(
        value=str(verdict.label),
        answer=printable(answer),
        explanation=printable(verdict.said) or None,
        reason=_reason(verdict),
        metadata=printable(metadata),
    )


def sample_of(record: Record, owner: str, decided_by: str) -> EvalSample:
    """A record as a sample.

    Args:
        record: The record.
        decided_by: As for `score_of`.
        owner: Name of the log, from which the names of the sample and its messages are made.
    """
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageUser

    prompt = record.prompt
    text = printable(prompt.text)
    output = _output(record, owner)
    return EvalSample(
        id=printable(prompt.id),
        epoch=1,
        uuid=short_id(owner, prompt.id),
        input=text,
        target="",
        messages=[ChatMessageUser(content=text, id=short_id(owner, prompt.id, "user")), output.message],
        output=output,
        scores={SCORE: score_of(record.verdict, record.completion.text, decided_by)},
        metadata=_metadata(record),
    )


def record_of(sample: EvalSample, decided_by: str) -> Record:
    """The record that a sample holds, whether it was exported or scored in an evaluation of Inspect.

    Args:
        sample: The sample.
        decided_by: `judge_hash` of the judge that the log names.

    Raises:
        DataError: It is no sample of ours, it failed, or its score is not that of the log's judge.
    """
    where = f"sample {sample.id!r}"
    score = (sample.scores or {}).get(SCORE)
    if sample.error is not None or score is None or score.metadata is None or not sample.output.choices:
        raise DataError("has no answer and verdict of ours", where=where, remedy="evaluate with a task of polysafe")
    if score.history or score.metadata.get("judge_sha256") != decided_by:
        raise DataError("has a score that the log's judge did not give", where=where, remedy="give the first log")
    if not isinstance(sample.input, str):
        raise DataError("was asked more than the prompt", where=where, remedy="evaluate with the task's own dataset")
    row = _row(sample, sample.input, score)
    exact = _loads(sample.metadata[_EXACT], where) if _EXACT in sample.metadata else row
    if printable(exact) != printable(row):
        raise DataError("is shown otherwise than it was recorded", where=where, remedy="give the first log")
    return Record.from_json(exact, where)


def printable(value: Any) -> Any:
    """The value with every lone surrogate in its texts escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {printable(key): printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [printable(each) for each in value]
    return value


def _reason(verdict: Verdict) -> str | None:
    if verdict.label is Label.UNPARSED:
        return "grader_failed"
    return "refusal" if verdict.refused else None


def _output(record: Record, owner: str) -> ModelOutput:
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput

    text = printable(record.completion.text)
    name = short_id(owner, record.prompt.id, "assistant")
    message = ChatMessageAssistant(content=text, id=name, source="generate")
    choice = ChatCompletionChoice(message=message, stop_reason="max_tokens" if record.truncated else "stop")
    return ModelOutput(choices=[choice], completion=text)


def _metadata(record: Record) -> dict[str, Any]:
    asked = {**prompt_metadata(record.prompt), "prompt_tokens_sha256": record.completion.prompt_sha256}
    metadata = {**asked, "answer_tokens": record.completion.tokens}
    plain = record.to_json()
    exact = {} if printable(plain) == plain else {_EXACT: json_line(plain).decode("ascii").rstrip("\n")}
    return {**printable(metadata), **exact}


def _row(sample: EvalSample, text: str, score: Score) -> dict[str, Any]:
    """The record as `Record.to_json` gives it; what a log lacks is None and refused by its reader."""
    asked, found, output = sample.metadata, score.metadata or {}, sample.output
    detail = found.get("detail")
    if isinstance(detail, dict) and output.stop_reason not in ("stop", "max_tokens", "model_length"):
        detail = {**detail, "stop_reason": output.stop_reason}
    used = output.usage.output_tokens if output.usage else None
    return {
        **{name: asked.get(name) for name in ("set", "parallel", "language", "kind", "category")},
        "text": text,
        "answer": output.completion,
        "ending": "length" if output.stop_reason in ("max_tokens", "model_length") else "stop",
        "tokens": asked.get("answer_tokens", used),
        "prompt_sha256": asked.get("prompt_tokens_sha256"),
        "label": score.value,
        "refused": found.get("refused"),
        "judge": found.get("judge"),
        "said": score.explanation or "",
        "detail": detail,
    }


def _loads(text: object, where: str) -> Any:
    try:
        return parse_line(str(text))
    except ValueError as error:
        raise DataError(f"holds a record that is not JSON: {error}", where=where) from error
