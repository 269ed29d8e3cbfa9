"""Hostile answers in a model card: Markdown, GitHub and the hub read nothing of them but code spans and quoted text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from polysafe.card.card import render_card
from polysafe.card.data import Card, CardMethod, CardResults, CardSet, CardSource
from polysafe.checkpoint.hub import HubId
from polysafe.checkpoint.licence import Licence
from polysafe.findings.data import JudgeError
from polysafe.stats import Row
from tests.attacks.answers import ANSWERS

COMMIT = "0123456789" * 4


def hostile_card(text: str) -> Card:
    """A card in which every text that comes from outside is `text`."""
    rows = [Row(text, code, metric, 1.0, 0.5, 4, 0.5, 1.0, 0.2, 0.8, 0.5, 0.5) for code in (text, "sw")
            for metric in ("unsafe", "over_refusal", text, f"capability.{text}")]  # fmt: skip
    results = CardResults(
        rows=tuple(rows),
        sets=(CardSet(text, "harmful", 10, text), CardSet("xstest", "harmless", 10, "0" * 64)),
        judge=text,
        judge_errors=(JudgeError(text, text, 0.9, 0.8, 1.0, 20, 0.8, 0.7, 0.9, 20),),
        sampling={text: text, "seed": 1},
        versions={text: text},
        notes=(text, "plain"),
    )
    sources = (
        CardSource(text, text, (), {text: text}, (Licence(None, text, text), Licence("mit", "mit", "README.md"))),
        CardSource("sw", text, (HubId("org/model", COMMIT),), {}, ()),
    )
    return Card(
        polysafe=text,
        edit=text,
        start=text,
        tokenizer_from=text,
        sources=sources,
        methods=(CardMethod(text, text, {text: text}, (text,), (text,)),),
        operations={text: 3},
        merged=True,
        recipe=text,
        asked={"languages": (text, "te"), "capability": (text, "absent")},
        name=text,
        results=results,
    )


def parts(content: str) -> tuple[dict[str, Any], list[Token]]:
    """The metadata and the parsed body."""
    found = re.match(r"---\n(.*?\n)---\n", content, re.DOTALL)
    assert found is not None
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return yaml.safe_load(found[1]), parser.parse(content[found.end() :])


def flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def shape(tokens: list[Token]) -> list[tuple[object, ...]]:
    """Everything that a reader sees as more than text, and every word that is not quoted."""
    quoted = ("code_inline", "fence", "inline")
    return [
        (token.type, token.tag, token.nesting, token.info, sorted(token.attrs.items()),
         None if token.type in quoted else token.content)
        for token in flat(tokens)
    ]  # fmt: skip


def skeleton(value: Any) -> Any:
    """The kinds of values in the metadata, without texts."""
    if isinstance(value, dict):
        return [skeleton(entry) for entry in value.values()]
    return [skeleton(entry) for entry in value] if isinstance(value, list) else type(value)


@pytest.fixture(scope="module")
def harmless() -> tuple[dict[str, Any], list[Token]]:
    return parts(render_card(hostile_card("plain words")))


@pytest.mark.fault(24, "the card")
@pytest.mark.hostile("answer", cases="answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_is_quoted_and_nothing_more(name: str, harmless: tuple[dict[str, Any], list[Token]]) -> None:
    text = ANSWERS[name].text
    content = render_card(hostile_card(text))
    metadata, body = parts(content)
    assert not {token.type for token in flat(body)} & {"html_block", "html_inline", "image"}
    if text.strip():
        assert shape(body) == shape(harmless[1])
    assert metadata.keys() == harmless[0].keys()
    assert skeleton(metadata["model-index"]) == skeleton(harmless[0]["model-index"])
    assert not [c for c in set(content) - {"\n", "\t"} if unicodedata.category(c) in {"Cc", "Cs"}]
    assert not [c for c in set(content) if unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "LRI", "RLI"}]
    assert len(content.splitlines()) == content.count("\n")
    content.encode()


def test_the_check_above_can_fail() -> None:
    """Quoting less than everything is noticed for most answers that attack Markdown."""
    plain = shape(parts("---\na: 1\n---\nA harmless text.\n")[1])
    found = [case.name for case in ANSWERS.values() if case.name.startswith("markdown: ")
             and shape(parts(f"---\na: 1\n---\nA {case.text} text.\n")[1]) != plain]  # fmt: skip
    assert len(found) > 10
