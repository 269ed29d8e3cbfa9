"""Hostile answers in a notebook and in the summary of a terminal: tables of text, drawings of text, lines of text."""

from __future__ import annotations

import unicodedata
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polysafe.cli.report import print_summary
from polysafe.report.notebook import Run
from tests.attacks.answers import ANSWERS
from tests.report.examples import hostile

_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
PLAIN = Run(Path("run"), hostile("plain words"))

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


@pytest.mark.parametrize("name", ANSWERS)
def test_is_text_in_a_notebook(name: str) -> None:
    run = Run(Path("run"), hostile(ANSWERS[name].text))
    html = run.table()._repr_html_()
    assert Shape(html).tags == Shape(PLAIN.table()._repr_html_()).tags
    assert_inert(html)
    svg = run.plot_gap()._repr_svg_()
    assert drawn(svg) == drawn(PLAIN.plot_gap()._repr_svg_())
    assert_inert(svg)
    assert_inert(repr(run.plot_gap()), lines=1)
    assert_inert(str(run.table()), lines=len(str(PLAIN.table()).splitlines()))
    assert_inert(run.summary(), lines=len(PLAIN.summary().splitlines()))


def test_a_notebook_does_not_typeset_the_table() -> None:
    tag, attributes = Shape(PLAIN.table()._repr_html_()).tags[0]
    assert tag == "table"
    assert isinstance(attributes, list)
    assert set(dict(attributes).get("class", "").split()) >= IGNORED_BY_MATHEMATICS


@pytest.mark.parametrize("name", ANSWERS)
def test_forges_no_line_of_the_summary(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(PLAIN.data)
    lines = len(capsys.readouterr().out.splitlines())
    print_summary(hostile(ANSWERS[name].text))
    assert_inert(capsys.readouterr().out, lines)
