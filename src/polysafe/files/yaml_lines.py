"""YAML that remembers where everything stood.

The subset is the core of YAML as version 1.2 defines it: `no` is the language Norwegian, not a false, `1e-3`
is a number, a date is a text. Tags and merge keys are refused, so nothing in a file can construct an object.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import yaml

from polysafe.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Place: TypeAlias = "tuple[str | int, ...]"
"""Keys and indices that lead from the whole document to a value."""

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 32

_CORE = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2 does."""


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something other than a text."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


_Loader.yaml_implicit_resolvers = {}
_PATTERNS = {tag: pattern for tag, pattern, _ in _CORE}

for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


@dataclass(frozen=True)
class Mark:
    """A place in a text; both numbers start at 1."""

    line: int
    column: int


@dataclass
class Document:
    """A parsed YAML text.

    Attributes:
        name: The file's name, as error messages show it.
        value: The content as plain Python values.
        lines: The text, line by line.
        values: Where the value at each path begins.
        keys: Where the key that ends each path begins.
    """

    name: str
    lines: Sequence[str]
    value: Value = None
    values: dict[Place, Mark] = field(default_factory=dict)
    keys: dict[Place, Mark] = field(default_factory=dict)

    def mark(self, path: Place, *, key: bool = False) -> Mark:
        """The place of `path`, or of its nearest ancestor that is in the text."""
        known = self.keys if key else self.values
        while path and path not in known:
            path, known = path[:-1], self.values
        return known.get(path, Mark(1, 1))

    def where(self, mark: Mark) -> str:
        """`name:line`, which editors and terminals turn into a link."""
        return f"{self.name}:{mark.line}"

    def excerpt(self, mark: Mark) -> str:
        """The line at `mark` with a caret below the column."""
        text = self.lines[mark.line - 1] if mark.line <= len(self.lines) else ""
        start = max(0, mark.column - 100)
        shown = text[start : start + 140].replace("\t", " ")
        gutter = f"{mark.line:>6} | "
        return f"{gutter}{shown}\n{'| ':>{len(gutter)}}{' ' * (mark.column - 1 - start)}^"


def read_yaml(text: str, name: str) -> Document:
    """Parse one YAML document.

    Args:
        text: The document.
        name: What error messages call it.

    Raises:
        RecipeError: Not valid YAML, a duplicate key, a tag, or larger than `MAX_BYTES`, `MAX_NODES` (with
            aliases written out) or `MAX_DEPTH`.
    """
    document = Document(name, text.splitlines())
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError(f"the file is larger than {MAX_BYTES >> 20} MiB, which no recipe needs", where=name)
    try:
        _check_depth(document, text)
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = _mark(error.problem_mark or error.context_mark)
        _refuse(document, mark, f"not valid YAML: {error.problem or error.context}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{ord(text[error.position]):04X} is not allowed"
        raise RecipeError(problem, where=f"{name}:{line}", remedy="remove it") from None
    if node is not None:
        document.value = _Reader(document).read(node, ())
    return document


def write_yaml(value: Value) -> str:
    """Write plain values so that `read_yaml`, and any YAML 1.1 or 1.2 parser, reads the same ones back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def write_flow(value: Value) -> str:
    """The same on one line: `{low: 0, high: 1}`."""
    text = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=True
    )
    return text.removesuffix("...\n").strip()


def _mark(mark: Any) -> Mark:
    return Mark(1, 1) if mark is None else Mark(mark.line + 1, mark.column + 1)


def _refuse(document: Document, mark: Mark, problem: str, remedy: str | None = None) -> NoReturn:
    raise RecipeError(f"{problem}\n{document.excerpt(mark)}", where=document.where(mark), remedy=remedy) from None


def _check_depth(document: Document, text: str) -> None:
    # Before composing, because the composer recurses: a megabyte of brackets must not exhaust the stack.
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            _refuse(document, _mark(event.start_mark), f"more than {MAX_DEPTH} levels deep")


class _Reader:
    """Turns nodes into values and notes their places."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def read(self, node: yaml.Node, path: Place) -> Value:
        mark = _mark(node.start_mark)
        self._document.values[path] = mark
        self._nodes += 1
        # Aliases are written out here, so this also bounds aliases of aliases and a value that holds itself.
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            _refuse(self._document, mark, "too large or too deep once its aliases are written out")
        if isinstance(node, yaml.MappingNode):
            self._expect_tag(node, "map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._expect_tag(node, "seq")
            return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Place) -> Value:
        result: dict[str, Value] = {}
        for key_node, value_node in node.value:
            mark = _mark(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse(self._document, mark, "a key has to be a single word or text")
            key = str(key_node.value)
            if key == "<<":
                _refuse(self._document, mark, "merge keys (<<) are not supported", "write the keys out")
            if key in result:
                first = self._document.keys[(*path, key)].line
                _refuse(
                    self._document,
                    mark,
                    f"duplicate key {key!r}, already set on line {first}",
                    "keep one of them",
                )
            self._document.keys[(*path, key)] = mark
            result[key] = self.read(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node) -> Value:
        text, kind = str(node.value), node.tag.rpartition(":")[2]
        pattern = _PATTERNS.get(node.tag)
        if pattern is None:
            self._expect_tag(node, "str")
            return text
        if not pattern.match(text):
            _refuse(self._document, _mark(node.start_mark), f"{text!r} is not of the type that its tag says")
        if kind == "null":
            return None
        return text.lower() == "true" if kind == "bool" else self._number(node, text, kind)

    def _number(self, node: yaml.Node, text: str, kind: str) -> int | float:
        if len(text) > 64 or not math.isfinite(float(text)):
            _refuse(self._document, _mark(node.start_mark), "number out of range", "quote it if it is a text")
        return int(text) if kind == "int" else float(text)

    def _expect_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            problem = f"the tag {node.tag!r} is not supported"
            _refuse(self._document, _mark(node.start_mark), problem, "remove the tag")
