"""Inputs that are nearly right: bytes changed at random, and values of what is JSON changed for others.

The same seed gives the same inputs, so that a failure of the suite can be had again.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

MOST = 200_000
"""Most bytes of an input."""
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 255, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.0, -0.5, 1e308, -1e-320,
    float("nan"), float("inf"), -float("inf"), "", "0", "x", "a" * 5000, "\ud800", "\0", "../..", "/", "\u202e",
    "true", "1e999", "{", "é", [], {}, [None], [[]], [0], [""], {"": None}, {"x": 1}, [{}], [1, 2, 3],
)  # fmt: skip
_NUMBERS = (
    b"0",
    b"-1",
    b"1e400",
    b"NaN",
    b"-Infinity",
    b"18446744073709551616",
    b"9" * 400,
    b"1" + b"0" * 5000,
    b"1e-400",
    b"0x1",
)


def mutated(seeds: Sequence[bytes], form: str, words: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Mutated inputs.

    Args:
        seeds: What is mutated.
        form: How the inputs are built.
        words: Pieces of their language.
        count: How many.
        seed: Seed of the mutations.
    """
    rng = random.Random(seed)
    for _ in range(count):
        yield mutate(rng.choice(seeds), seeds, form, words, rng)


def mutate(data: bytes, seeds: Sequence[bytes], form: str, words: Sequence[bytes], rng: random.Random) -> bytes:
    """One input made of another."""
    if form in FORMS and rng.random() < 0.7:
        read, write = FORMS[form]
        try:
            value, rest = read(data)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                value = _of_value(value, rng)
            return write(value, rest)[:MOST]
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):  # it is none, or too deep to be written
            return _of_bytes(data, seeds, words, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = _of_bytes(data, seeds, words, rng)
    return data[:MOST]


def grown(seeds: Sequence[bytes], words: Sequence[bytes]) -> Iterator[bytes]:
    """Inputs that are long and dull: what takes time that grows with the square of a length shows by them."""
    for piece in (b"\n", b" ", b"[", b'{"a":', b"\\u0000", b"- ", b"#\n", b"0", b'"",', *words):
        long = (piece * (MOST // len(piece) + 1))[:MOST]
        yield from (long, *(seed + long for seed in seeds[:1]), *(long + seed for seed in seeds[:1]))


def _of_bytes(data: bytes, seeds: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """Something in the place of some bytes, which may be none."""
    at, size = rng.randint(0, len(data)), rng.choice((0, 1, 1, 2, 4, 8, 64))
    end = at + size
    match rng.randrange(8):
        case 0:
            new = rng.randbytes(size)
        case 1:
            new = b""
        case 2:
            new = rng.choice([*words, *_NUMBERS, b"\0", b"\xff", b"\n", b'"'])
        case 3:
            new = data[at:end] * rng.choice((2, 3, 100))
        case 4:
            new, end = b"", len(data)
        case 5:
            other = rng.choice(seeds)
            new, end = other[rng.randint(0, len(other)) :], len(data)
        case 6:
            new, end = rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little"), at + 8
        case _:
            number = rng.choice(list(_NUMBER.finditer(data)) or [None])
            at, end = number.span() if number is not None else (at, end)
            new = rng.choice(_NUMBERS)
    return data[:at] + new + data[end:]


def _of_value(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return deepcopy(rng.choice(_VALUES))
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0 if isinstance(holder, list):
            holder.append(holder[key])
        case 0:
            holder[rng.choice(("", "x", f"{key}x", "__metadata__"))] = holder[key]
        case 1:
            del holder[key]
        case 2:
            holder[key] = _deep(holder[key], rng.choice((3, 60, 120, 900)), rng)
        case 3:
            other, at = rng.choice(places)
            if at in range(len(other)) if isinstance(other, list) else at in other:
                holder[key] = json.loads(json.dumps(other[at]))
        case 4 if isinstance(holder[key], str):
            holder[key] = _of_text(holder[key], rng)
        case 5 if isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((-holder[key], holder[key] * 2, str(holder[key]), [holder[key]], 0.5))
        case _:
            holder[key] = deepcopy(rng.choice(_VALUES))
    return value


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if depth > 20:
        return
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key], depth + 1)


def _deep(value: Any, levels: int, rng: random.Random) -> Any:
    for _ in range(levels):
        value = [value] if rng.random() < 0.5 else {"x": value}
    return value


def _of_text(text: str, rng: random.Random) -> str:
    at = rng.randint(0, len(text))
    more = rng.choice(("", "\0", "\n", "..", "/", "#", ".", "\ud800", "9" * 400, " ", "é", text, "\u2028", "{}", "%s"))
    return text[:at] + more + text[at + rng.randint(0, 2) :]


Read = Callable[[bytes], tuple[Any, bytes]]
Write = Callable[[Any, bytes], bytes]


def _json(data: bytes) -> tuple[Any, bytes]:
    return json.loads(data), b""


def _as_json(value: Any, _rest: bytes = b"") -> bytes:
    return json.dumps(value).encode()


def _lines(data: bytes) -> tuple[Any, bytes]:
    return [json.loads(line) for line in data.splitlines()], b""


def _as_lines(value: Any, _rest: bytes) -> bytes:
    return b"".join(_as_json(line) + b"\n" for line in value) if isinstance(value, list) else _as_json(value)


def _headed(data: bytes) -> tuple[Any, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _as_headed(value: Any, rest: bytes) -> bytes:
    text = _as_json(value)
    return len(text).to_bytes(8, "little") + text + rest


def _probe(data: bytes) -> tuple[Any, bytes]:
    """A header whose only metadata are JSON themselves."""
    value, rest = _headed(data)
    about = value["__metadata__"]
    return {**value, "__metadata__": {name: json.loads(text) for name, text in about.items()}}, rest


def _as_probe(value: Any, rest: bytes) -> bytes:
    about = value.get("__metadata__") if isinstance(value, dict) else None
    if isinstance(about, dict):
        value = {**value, "__metadata__": {name: json.dumps(each) for name, each in about.items()}}
    return _as_headed(value, rest)


def _yaml(data: bytes) -> tuple[Any, bytes]:
    import yaml

    try:
        return yaml.safe_load(data), b""
    except yaml.YAMLError as error:
        raise ValueError from error


FORMS: dict[str, tuple[Read, Write]] = {
    "json": (_json, _as_json),
    "lines": (_lines, _as_lines),
    "probe": (_probe, _as_probe),
    "safetensors": (_headed, _as_headed),
    "yaml": (_yaml, _as_json),
}
"""How inputs are built: read to a value and what follows it, and written again."""
