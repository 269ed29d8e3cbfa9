"""One line of JSON per prompt: what was asked, what was answered, what the judge said.

Lines are ASCII: whatever a model said, `cat` of the file does nothing to a terminal, no reader splits a line where
there is none (U+2028), and lone surrogates, which have no UTF-8 form, survive.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from polysafe.data.prompts import Kind, Prompt
from polysafe.errors import DataError
from polysafe.evaluate.keys import DAMAGED
from polysafe.files.atomic import write_parts_atomic
from polysafe.files.json_file import parse_line
from polysafe.generate.completion import Completion, Ending
from polysafe.judge.verdict import Exchange, Label, Verdict

_PROMPT = tuple(field.name for field in fields(Prompt))
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "set": str,
    "parallel": str,
    "language": str,
    "text": str,
    "kind": str,
    "category": (str, type(None)),
    "answer": str,
    "ending": str,
    "tokens": (int, type(None)),
    "prompt_sha256": (str, type(None)),
    "label": str,
    "refused": (bool, type(None)),
    "judge": str,
    "said": str,
    "detail": dict,
}
_REPEATED = ("set", "language", "kind", "category", "ending", "judge", "detail")
"""Entries that hold the same few texts in every record."""
_COMPLETION = frozenset({"text", "ending", "tokens", "prompt_sha256"})
_WORD = 40
"""Characters up to which a text is taken for a word that others say too."""
_VERDICT = frozenset({"label", "refused", "judge", "said", "detail"})
_OF_ATTACKS: Mapping[str, type | tuple[type, ...]] = {"plain": str}
"""What records of rewritten prompts hold besides."""
_CHOICES: Mapping[str, frozenset[str]] = {
    "kind": frozenset(get_args(Kind)),
    "ending": frozenset(get_args(Ending)),
    "label": frozenset(map(str, Label)),
}


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt with its answer and the verdict.

    Attributes:
        prompt: The prompt.
        completion: The answer.
        verdict: What the judge says of it; its detail holds what is known of the answer's language.
    """

    prompt: Prompt
    completion: Completion
    verdict: Verdict

    @property
    def item(self) -> str:
        """Name of the prompt in statistics, the same in every language of its set."""
        return f"{self.prompt.set}/{self.prompt.parallel}"

    @property
    def exchange(self) -> Exchange:
        """Prompt and answer, as judges read them."""
        return Exchange.of(self.prompt, self.completion.text)

    @property
    def truncated(self) -> bool:
        """Whether the budget ended the answer, not the model."""
        return self.completion.ending == "length"

    def to_json(self) -> dict[str, Any]:
        """The record as a flat object."""
        answer, verdict = self.completion, self.verdict
        return {
            **self.prompt.to_json(),
            "answer": answer.text,
            "ending": answer.ending,
            "tokens": answer.tokens,
            "prompt_sha256": answer.prompt_sha256,
            "label": str(verdict.label),
            "refused": verdict.refused,
            "judge": verdict.judge,
            "said": verdict.said,
            "detail": dict(verdict.detail),
        }

    @classmethod
    def from_json(cls, data: object, where: str) -> Record:
        """Reads what `to_json` wrote.

        Raises:
            DataError: The value is not such an object.
        """
        row = _checked(data, where)
        row |= {name: _shared(row[name]) for name in _REPEATED}
        prompt = Prompt(**{name: row[name] for name in _PROMPT if name in row})
        name = prompt.id
        completion = Completion(name, row["answer"], row["ending"], row["tokens"], row["prompt_sha256"])
        verdict = Verdict(name, Label(row["label"]), row["refused"], row["judge"], row["said"], row["detail"])
        return cls(prompt, completion, verdict)


def _shared(value: Any, levels: int = 3) -> Any:
    """A value whose names and words are those of all others that say the same; they are most of a record's memory."""
    if isinstance(value, str):
        return sys.intern(value) if len(value) <= _WORD else value
    if isinstance(value, dict) and levels:
        return {sys.intern(name): _shared(each, levels - 1) for name, each in value.items()}
    return value


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """An answer without the name of its message, as caches keep it."""
    return {name: value for name, value in asdict(completion).items() if name not in {"id", "token_ids"}}


def completion_from_json(name: str, data: Any) -> Completion:
    """Reads what `completion_to_json` wrote.

    Raises:
        DataError: The value is not such an object.
    """
    try:
        completion = Completion(id=name, **_stored(data, _COMPLETION))
    except TypeError as error:
        raise DataError(f"is no stored answer: {error}", where=name, remedy=DAMAGED) from error
    if completion.ending not in get_args(Ending):
        raise DataError("is no stored answer", where=name, remedy=DAMAGED)
    return completion


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict without the name of its prompt, as caches keep it."""
    kept = {name: getattr(verdict, name) for name in ("refused", "judge", "said")}
    return {"label": str(verdict.label), "detail": dict(verdict.detail), **kept}


def verdict_from_json(name: str, data: Any) -> Verdict:
    """Reads what `verdict_to_json` wrote.

    Raises:
        DataError: The value is not such an object.
    """
    try:
        return Verdict(id=name, **{**_stored(data, _VERDICT), "label": Label(data["label"])})
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"is no stored verdict: {error}", where=name, remedy=DAMAGED) from error


def _stored(data: Any, names: Collection[str]) -> dict[str, Any]:
    """A stored value whose entries are of the types that records hold.

    Raises:
        TypeError: It is no such value.
    """
    if not isinstance(data, dict) or not data.keys() <= {"text", *_TYPES}:
        raise TypeError("it has other entries")
    for name, value in data.items():
        kind = _TYPES["answer" if name == "text" else name]
        if name not in names or not isinstance(value, kind) or (name == "tokens" and isinstance(value, bool)):
            raise TypeError(f"{name} cannot be {value!r:.80}")
    return data


def json_line(value: object) -> bytes:
    """A value as one line of ASCII JSON.

    Raises:
        DataError: The value holds something that JSON cannot say.
    """
    try:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot be written as JSON: {error}") from error
    return text.encode("ascii") + b"\n"


def save_records(path: Path, records: Iterable[Record]) -> None:
    """Writes one line per record; the file appears whole or not at all.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
        DataError: A judge gave a detail that JSON cannot say.
    """
    write_parts_atomic(path, (json_line(record.to_json()) for record in records))


def load_records(path: Path) -> tuple[Record, ...]:
    """Reads what `save_records` wrote.

    Raises:
        DataError: The file cannot be read, or a line is not a record; names file and line.
    """
    try:
        with path.open("rb") as lines, _uncollected():  # bytes: only real line ends count
            return tuple(_record(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, which would go through all records again and again and finds none among them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _record(line: bytes, where: str) -> Record:
    try:
        data = parse_line(line)
    except ValueError as error:
        raise DataError(f"is not JSON: {error}", where=where) from error
    return Record.from_json(data, where)


def _checked(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict) or data.keys() - _OF_ATTACKS.keys() != _TYPES.keys():
        raise DataError(f"does not have exactly the keys {', '.join(_TYPES)}", where=where)
    for name, types in (*_TYPES.items(), *_OF_ATTACKS.items()):
        if name not in data:
            continue
        if not isinstance(data[name], types) or (name == "tokens" and isinstance(data[name], bool)):
            raise DataError(f"{name} cannot be {data[name]!r:.80}", where=where)
    for name, known in _CHOICES.items():
        if data[name] not in known:
            raise DataError(f"{name} cannot be {data[name]!r:.80}", where=where)
    return data
