"""JSON that polysafe reads: untrusted text, and files of its own, each of a format with a version.

A format says once what its files are, how they are told, and what to do about one that cannot be read. The same
things are refused in the same words: not there, too large, no JSON, something else, another version, another shape.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic_core import ValidationError

from polysafe.errors import DataError, PolysafeError
from polysafe.files.plain import LARGEST, TooLargeError, read_plain

_SURROGATE = re.compile(rb"\\u[dD]")
_DEEPEST = 100
"""Levels that JSON may have. No file of ours or of a model has ten, and writing needs several calls for a level."""
_DIGITS = 300
"""Digits that an integer may have. With nine more, arithmetic with floats ends in an `OverflowError`."""
Built = TypeVar("Built")


@dataclass(frozen=True)
class Format:
    """A kind of JSON file that polysafe writes.

    Attributes:
        what: What a file is, for `is no …`: `run of one model`.
        mark: What its key `polysafe` says; None where it has no such key.
        key: Key of its version.
        version: The version that is written, and read.
        error: Class of the errors.
        absent: What is said of a folder without the file; None where the file itself was named.
        find: What to do if something else was named.
        again: What to do about a file of another version, or a damaged one. `{version}` stands for the polysafe that
            wrote it, and nothing is said where that is not known; `{folder}` for its folder, in `find` too.
        largest: Most bytes of a file. None of ours is near the default.
        half_characters: Whether texts may hold half a character, as those of models and of other people can.
    """

    what: str
    mark: str | None = None
    key: str = "schema"
    version: int = 1
    error: Callable[..., PolysafeError] = DataError
    absent: str | None = None
    find: str | None = None
    again: str | None = None
    largest: int = LARGEST
    half_characters: bool = False

    @property
    def head(self) -> dict[str, Any]:
        """The entries that a file of this format begins with."""
        return {**({} if self.mark is None else {"polysafe": self.mark}), self.key: self.version}

    def read(self, path: Path) -> dict[str, Any]:
        """The content of a file.

        Raises:
            PolysafeError: In the class of the format: it is not there, or no such file.
        """
        try:
            data = read_plain(path, self.largest)
        except TooLargeError:
            self.refuse(f"is larger than {self.largest} bytes", path)
        except OSError as error:
            if self.absent is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise self.error(self.absent, where=path.parent, remedy=self._told(self.find, path)) from None
            self.refuse(f"cannot be read: {error.strerror}", path, remedy=self.find)
        return self.parse(data, path)

    def parse(self, data: bytes, where: object) -> dict[str, Any]:
        """The same, for the bytes of a file.

        Raises:
            PolysafeError: As for `read`.
        """
        try:
            content = parse_json(data, half_characters=self.half_characters, finite=True)
        except ValueError as error:
            self.refuse(f"is not valid JSON: {error}", where, cause=error)
        return self.checked(content, where)

    def checked(self, content: object, where: object) -> dict[str, Any]:
        """The same, for what was parsed.

        Raises:
            PolysafeError: As for `read`.
        """
        told = content if isinstance(content, dict) else {}
        if self.key not in told or told.get("polysafe") != (self.mark or told.get("polysafe")):
            self.refuse(f"is no {self.what}", where, remedy=self.find)
        version = told[self.key]
        if type(version) is not int or version != self.version:
            self.refuse(
                f"has schema {version!r}, this polysafe reads schema {self.version}",
                where,
                remedy=self.again or "use the polysafe that wrote it",
                writer=told.get("version"),
            )
        return told

    def built(self, build: Callable[[Any], Built], content: object, where: object) -> Built:
        """What is made of a content by a function that complains of a wrong shape.

        Args:
            build: The function: a validation of pydantic, or one that takes the content apart.
            content: The content; the function is given it without its head.
            where: The file, for messages.

        Raises:
            PolysafeError: It complains.
        """
        if isinstance(content, dict):
            content = {name: value for name, value in content.items() if name not in self.head}
        try:
            return build(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            self.refuse(f"is no valid {self.what}: {place}: {first['msg']}", where, cause=error)
        except KeyError as error:
            self.refuse(f"is no valid {self.what}: lacks {error}", where, cause=error)
        except (TypeError, ValueError, AttributeError) as error:
            self.refuse(f"is no valid {self.what}: {error}", where, cause=error)

    def refuse(
        self,
        problem: str,
        where: object,
        *,
        remedy: str | None = None,
        writer: object = None,
        cause: BaseException | None = None,
    ) -> NoReturn:
        """Refuses a file.

        Args:
            problem: What is wrong.
            where: The file.
            remedy: What to do about it; by default what the format says of damaged files.
            writer: The polysafe that wrote it, as it says.
            cause: What went wrong underneath.

        Raises:
            PolysafeError: In the class of the format.
        """
        raise self.error(problem, where=where, remedy=self._told(remedy or self.again, where, writer)) from cause

    def _told(self, remedy: str | None, where: object, writer: object = None) -> str | None:
        if remedy is None or (writer is None and "{version}" in remedy):
            return None
        safe = re.sub(r"[^\w.+-]", "", str(writer))  # it goes into a command
        return remedy.format(version=safe, folder=where.parent if isinstance(where, Path) else where)


def parse_line(text: bytes | str) -> Any:
    """Parses JSON that this program wrote itself, a line or a value of a database, and that may be damaged since.

    Raises:
        ValueError: It is no JSON, nested too deeply, or holds an integer that no float can hold.
    """
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_json(text: bytes, *, half_characters: bool = False, finite: bool = False) -> Any:
    """Parses untrusted JSON: UTF-8, no key twice, no runaway nesting.

    Args:
        text: The JSON.
        half_characters: Whether its texts may hold half a character, which nothing can write down again as UTF-8.
        finite: Whether NaN and Infinity are refused, which polysafe never writes and configs of models hold.

    Raises:
        ValueError: It is not such JSON.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key stands in it twice")
        return result

    try:
        rules: dict[str, Any] = {"parse_constant": _no_number, "parse_float": _finite} if finite else {}
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_int=_integer, **rules)
        if sum(1 for _ in zip(_levels(value), range(_DEEPEST + 1), strict=False)) > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        if not half_characters and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return value


def _levels(value: object) -> Iterator[list[Any]]:
    """What a parsed value holds, a level of nesting at a time; without recursion, which is what is guarded against."""
    level: list[Any] = [value]
    while level:
        yield level
        holders = [each for each in level if isinstance(each, (dict, list))]
        level = [each for holder in holders for each in (holder.values() if isinstance(holder, dict) else holder)]


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _no_number(text)
    return value


def read_json(path: Path, error: Callable[..., PolysafeError] = DataError) -> Any:
    """The content of a JSON file of no format.

    Args:
        path: The file.
        error: Class of the errors.

    Raises:
        PolysafeError: In that class: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(read_plain(path))
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror}", where=path) from problem
    except ValueError as problem:
        raise error(f"is not valid JSON: {problem}", where=path) from problem


def remembered(path: Path) -> dict[str, Any]:
    """A small record that costs only time if it is lost: empty where there is none that can be read."""
    try:
        content = parse_json(read_plain(path))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
