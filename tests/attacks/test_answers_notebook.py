"""Hostile answers in a notebook and in the summary of a terminal: tables of text, drawings of text, lines of text."""

from __future__ import annotations

import re
import unicodedata
import xml.etree.ElementTree as ET
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from polysafe.cli.commands.report import print_summary
from polysafe.report.notebook import ResultTable, Run
from tests.attacks.answers import ANSWERS
from tests.report.examples import hostile

_ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def run_of(text: str) -> Run:
    return Run(Path("run"), replace(hostile(text), headline=text))


PLAIN = run_of("plain words")

# What a notebook takes for mathematics is typeset, with links, unless an element says otherwise.
IGNORED_BY_MATHEMATICS = {"tex2jax_ignore", "mathjax_ignore"}


class Shape(HTMLParser):
    """Every tag with its attributes, in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, object]] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((tag, "end"))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))


def drawn(svg: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(element.tag, tuple(element.attrib)) for element in ET.fromstring(svg).iter()]


def assert_inert(text: str, lines: int | None = None) -> None:
    assert not [c for c in set(text) - {"\n", "\t"} if unicodedata.category(c) in {"Cc", "Cs"}]
    assert not [c for c in set(text) if unicodedata.bidirectional(c) in _BIDI]
    assert lines is None or len(text.splitlines()) == lines


class Plain(NamedTuple):
    """Of a run of harmless words: its table and the tags of it, elements of its drawing, lines of its summaries."""

    table: ResultTable
    tags: list[tuple[str, object]]
    drawn: list[tuple[str, tuple[str, ...]]]
    summary: int
    printed: int


@pytest.fixture(scope="module")
def plain() -> Plain:
    with redirect_stdout(StringIO()) as printed:
        print_summary(PLAIN.data)
    table = PLAIN.table()
    tags, elements = Shape(table._repr_html_()).tags, drawn(PLAIN.plot_gap()._repr_svg_())
    return Plain(table, tags, elements, len(PLAIN.summary().splitlines()), len(printed.getvalue().splitlines()))


@pytest.mark.fault(24, "a notebook")
@pytest.mark.hostile("answer", cases="answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_is_text_in_a_notebook_and_forges_no_line_of_a_summary(
    name: str,
    plain: Plain,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = ANSWERS[name].text
    run = run_of(text)
    table, plot = run.table(), run.plot_gap()
    html, svg = table._repr_html_(), plot._repr_svg_()
    assert (Shape(html).tags, drawn(svg)) == (plain.tags, plain.drawn)
    assert_inert(html)
    assert_inert(svg)
    assert_inert(repr(plot), lines=1)
    assert_inert(str(table), lines=len(str(plain.table).splitlines()))
    assert_inert(run.summary(), lines=plain.summary)
    assert not _ACTS.search(run.summary())
    assert len(run.summary()) < 100_000
    named = ResultTable(({"method": text, text: 1.0},))
    assert {tag for tag, _ in Shape(named._repr_html_()).tags} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert len(named._repr_html_()) < 2000
    assert_inert(str(named), lines=3)
    print_summary(run.data)
    assert_inert(capsys.readouterr().out, plain.printed)


def test_a_notebook_does_not_typeset_the_table(plain: Plain) -> None:
    tag, attributes = plain.tags[0]
    assert tag == "table"
    assert isinstance(attributes, list)
    assert set(dict(attributes).get("class", "").split()) >= IGNORED_BY_MATHEMATICS
