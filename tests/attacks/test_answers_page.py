"""Hostile answers in a real browser: shown, and nothing more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from polysafe.report.html import render
from polysafe.text.readable import MAX_TEXT, clip, visible
from tests.attacks.answers import ANSWERS, aimed_at
from tests.browser import Listener, Visit, listen, visit
from tests.report.examples import hostile
from tests.report.test_html import Page, assert_inert

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SHAPES = """() => {
  const shown = ['class', 'style', 'href', 'role', 'http-equiv'];
  const shape = each => [each.namespaceURI, each.localName, ...[...each.attributes].map(({name, value}) =>
    shown.includes(name) ? `${name}=${value.replace(/[-\\d.]+/g, '0')}` : name).sort()].join(' ');
  const others = document.createTreeWalker(document, NodeFilter.SHOW_COMMENT | NodeFilter.SHOW_CDATA_SECTION
    | NodeFilter.SHOW_PROCESSING_INSTRUCTION);
  return [...document.querySelectorAll('*')].map(shape).concat(others.nextNode() ? ['a comment'] : []);
}"""
"""Kind, attributes and fixed values of every element of the page, in order."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")

TEXTS = "() => [...document.querySelectorAll('dd.text')].map(each => each.textContent)"


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with listen() as listener:
        yield listener


@pytest.fixture(scope="module")
def phone(browser: Browser) -> Iterator[Visit]:
    with visit(browser, width=360, height=740, phone=True) as phone:
        yield phone


def write(content: str, folder: Path) -> str:
    (folder / "index.html").write_text(content, encoding="utf-8")
    return (folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def harmless(phone: Visit, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The shapes of a report whose texts are harmless words."""
    phone.open(write(render(hostile("harmless words")), tmp_path_factory.mktemp("harmless")))
    phone.open_details()
    shapes: list[str] = phone.page.evaluate(SHAPES)
    return shapes


def test_there_are_enough_answers_and_each_says_what_it_is_after() -> None:
    assert len(ANSWERS) >= 60
    assert all(case.aim and case.name.count(": ") == 1 for case in ANSWERS.values())
    assert len({case.text for case in ANSWERS.values()}) == len(ANSWERS)


@pytest.mark.fault(24, "the page")
@pytest.mark.hostile("answer", cases="answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_is_shown_and_nothing_more(
    name: str, listener: Listener, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = aimed_at(ANSWERS[name].text, listener.origin)
    content = render(hostile(text))
    content.encode("utf-8")
    assert_inert(Page(content))
    assert not _CONTROLS.search(content)
    assert len(content) < 1_500_000
    # What a strict parser tells is told without a browser too.
    phone: Visit = request.getfixturevalue("phone")
    harmless: list[str] = request.getfixturevalue("harmless")
    address = write(content, tmp_path)
    phone.open(address)
    phone.open_details()
    page: Any = phone.page
    shapes = page.evaluate(SHAPES)
    # A group whose name is blank has no heading.
    assert shapes == harmless if text.strip() else set(shapes) <= set(harmless)
    shown = [text] * 3 + [text, f"yes: {text}", f"no: {text}"]
    assert page.evaluate(TEXTS) == [visible(clip(each, MAX_TEXT)) for each in shown]
    assert phone.overhang == 0
    assert phone.said == []
    assert phone.asked == [address]
    assert page.url == address
    assert listener.heard == []


def test_nobody_was_told_afterwards(phone: Visit, listener: Listener) -> None:
    phone.page.wait_for_timeout(1000)
    assert listener.heard == []


def test_the_checks_above_can_fail(browser: Browser, tmp_path: Path) -> None:
    """On a page that neither escapes nor has a policy the same answers do act, and all of it is noticed."""
    with listen() as listener, visit(browser, width=360) as careless:

        def act(name: str) -> list[str]:
            text = aimed_at(ANSWERS[name].text, listener.origin)
            careless.open(write(f"<!DOCTYPE html><title>careless</title><dd class=text>{text}", tmp_path))
            return careless.said

        assert "dialog: 1" in act("html: script")
        assert "dialog: 1" in act("html: image error")
        act("html: image beacon")
        assert f"{listener.origin}/seen.png" in careless.asked
        assert "GET /seen.png HTTP/1.1" in listener.heard
        act("html: closing tags")
        assert any(shape.endswith(" h1") for shape in careless.page.evaluate(SHAPES))
        act("size: a megabyte without a space")
        assert careless.overhang > 0
