"""The page in a real browser: silent, alone, readable on a phone, accessible, and whole in print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from polysafe.report import ReportData, build_report
from tests.attacks.answers import ANSWERS, aimed_at
from tests.browser import Listener, listen, visit
from tests.report.examples import audit_example, change, example, hostile

if TYPE_CHECKING:
    from playwright.sync_api import Browser

A4 = 688
"""Width in CSS pixels of what is printed on A4 between margins of 14 mm."""

ARABIC = "سلام، كيف حالك؟"
LONG = "\n".join(f"line {number}" for number in range(120))

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

CONTRASTS = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => numbers(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = each => {
    const colour = getComputedStyle(each).backgroundColor;
    return numbers(colour)[3] === 0 ? ground(each.parentElement) : colour;
  };
  return [...document.querySelectorAll('svg text')].map(each => {
    const [a, b] = [light(getComputedStyle(each).fill), light(ground(each))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.textContent];
  });
}"""
"""Contrast of every text of a drawing against what the drawing lies on: axe leaves these to others."""


def long_names() -> ReportData:
    """An audit with every kind of answer without a verdict, and a language with a long name."""
    audit = audit_example()
    found = ("wrong_language", "unparsed", "harmless_invalid", "harmless_unparsed")
    more = [replace(row, metric=metric) for metric in found for row in audit.audits if row.metric == "unsafe"]
    languages = {**audit.languages, "sw": "Standard Moroccan Tamazight"}
    return replace(audit, audits=(*audit.audits, *more), languages=languages)


BROKEN_WORDS = """selector => {
  const found = [];
  for (const cell of document.querySelectorAll(selector)) {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
      for (const word of text.data.matchAll(/[\\p{L}\\p{M}\\p{N}]+/gu)) {
        const range = new Range();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].map(each => Math.round(each.top)));
        if (lines.size > 1) found.push(`${word[0]} in ${cell.textContent.trim()}`);
      }
    }
  }
  return found;
}"""
"""Words of headings that stand on more than one line."""


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with listen() as listener:
        yield listener


@pytest.fixture(scope="module")
def reports(listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of a whole report, an audit alone, one whose every name attacks, and one of hostile answers."""
    texts = [aimed_at(case.text, listener.origin) for case in ANSWERS.values()]
    answers = [replace(change(i, text), prompts=f"set {i // 10}") for i, text in enumerate(texts)]
    data = {
        "whole": replace(example(), changes=(*example().changes, change(3, ARABIC), change(4, LONG))),
        "audit": audit_example(),
        "long": long_names(),
        "names": hostile(texts[0]),
        "answers": replace(example(), changes=tuple(answers)),
    }
    return {name: build_report(each, tmp_path_factory.mktemp(name)).as_uri() for name, each in data.items()}


ALL = pytest.mark.parametrize("name", ["whole", "audit", "names", "answers"])


@ALL
def test_says_nothing_and_asks_for_nothing(
    name: str, browser: Browser, reports: dict[str, str], listener: Listener
) -> None:
    with visit(browser) as reader:
        reader.open(reports[name])
        reader.open_details()
        reader.page.wait_for_load_state("networkidle")
        assert reader.said == []
        assert reader.asked == [reports[name]]
        assert listener.heard == []


@pytest.mark.fault(24, "a policy that forbids scripts")
def test_a_script_that_got_in_would_not_run(
    browser: Browser, reports: dict[str, str], listener: Listener, tmp_path: Path
) -> None:
    """The policy is a second wall: it holds even where a text was not escaped, and breaking it is noticed."""
    attack = "<script>document.title = 'owned'</script><img src={0} onerror=alert(1)><base href={0}/x>"
    page = Path(reports["whole"].removeprefix("file://")).read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(
        page.replace("<main>", f"<main>{attack.format(listener.origin)}"), encoding="utf-8"
    )
    with visit(browser) as reader:
        reader.open((tmp_path / "index.html").as_uri())
        assert reader.page.title() == example().title
        assert reader.page.evaluate("document.baseURI") == reader.page.url
        assert sum("Content Security Policy" in message for message in reader.said) >= 3
        assert listener.heard == []


@ALL
@pytest.mark.parametrize(("width", "phone"), [(360, True), (360, False), (1440, False)])
def test_is_not_wider_than_the_window(
    name: str, width: int, phone: bool, browser: Browser, reports: dict[str, str]
) -> None:
    with visit(browser, width=width, phone=phone) as reader:
        reader.open(reports[name])
        assert reader.page.evaluate("window.innerWidth") == width
        assert reader.overhang == 0
        reader.open_details()
        assert reader.overhang == 0


@pytest.mark.parametrize("name", ["whole", "audit", "answers", "long"])
@pytest.mark.parametrize("width", [360, 390, 1440])
def test_no_word_of_a_heading_is_broken(name: str, width: int, browser: Browser, reports: dict[str, str]) -> None:
    with visit(browser, width=width, phone=width < 1000) as reader:
        reader.open(reports[name])
        reader.open_details()
        assert reader.page.evaluate(BROKEN_WORDS, "th, .tiles dt, caption, h1, h2, h3, h4, .label") == []


@pytest.mark.parametrize("name", ["audit", "whole", "names"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_is_accessible(name: str, colours: Literal["light", "dark"], browser: Browser, reports: dict[str, str]) -> None:
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe is not installed")
    with visit(browser, colours=colours) as reader:
        reader.open(reports[name])
        reader.open_details()
        reader.page.evaluate(Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
        found = reader.page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", RULES)
        contrasts = reader.page.evaluate(CONTRASTS)
    assert describe(found["violations"]) == []
    undecided = [
        node["html"] for each in found["incomplete"] if each["id"] == "color-contrast" for node in each["nodes"]
    ]
    assert [html for html in undecided if not html.startswith("<text ")] == []
    assert "color-contrast" in {each["id"] for each in found["passes"]}
    assert contrasts
    assert [text for contrast, text in contrasts if contrast < 4.5] == []


def describe(violations: list[dict[str, Any]]) -> list[str]:
    return [f"{each['id']}: {node['target']} {node['html'][:200]}" for each in violations for node in each["nodes"]]


def test_right_to_left_text_runs_from_right_to_left(browser: Browser, reports: dict[str, str]) -> None:
    with visit(browser) as reader:
        reader.open(reports["whole"])
        reader.open_details()
        arabic = reader.page.locator("dd.text", has_text=ARABIC).first
        assert arabic.evaluate("each => getComputedStyle(each).direction") == "rtl"
        first, last = arabic.evaluate(
            """each => [0, each.textContent.length - 1].map(index => {
                 const range = new Range();
                 range.setStart(each.firstChild, index);
                 range.setEnd(each.firstChild, index + 1);
                 return range.getBoundingClientRect().x;
               })"""
        )
        assert first > last
        latin = reader.page.locator("dd.text", has_text="kolu vata").first
        assert latin.evaluate("each => getComputedStyle(each).direction") == "ltr"


@pytest.mark.parametrize("name", ["whole", "audit", "names"])
def test_all_that_matters_is_printed(name: str, browser: Browser, reports: dict[str, str]) -> None:
    with visit(browser, width=A4) as reader:
        reader.open(reports[name])
        hidden = "each => !each.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true})"
        reader.page.emulate_media(media="print")
        for parts in (
            "h1",
            "section > h2",
            ".sentence",
            ".tiles dd",
            "section > .figures > figure",
            "section > .scroll",
            "#safety td",
            "#ability td",
            "#limits li",
            "#settings dd",
        ):
            assert reader.page.evaluate(f"[...document.querySelectorAll({parts!r})].filter({hidden}).length") == 0
        assert reader.overhang == 0
        reader.open_details()
        cut = "each => each.scrollHeight > each.clientHeight + 1 || each.scrollWidth > each.clientWidth + 1"
        assert reader.page.evaluate(f"[...document.querySelectorAll('dd.text, .scroll')].filter({cut}).length") == 0


def test_needs_no_javascript(browser: Browser, reports: dict[str, str]) -> None:
    with visit(browser, javascript=False) as reader:
        reader.open(reports["whole"])
        text = reader.page.locator("dd.text", has_text=ARABIC).first
        assert not text.is_visible()
        reader.page.locator("details.group > summary").first.click()
        reader.page.locator("details.change > summary", has_text="003").first.click()
        assert text.is_visible()
        before = reader.page.locator("main").inner_text()
    with visit(browser) as scripted:
        scripted.open(reports["whole"])
        scripted.page.locator("details.group > summary").first.click()
        scripted.page.locator("details.change > summary", has_text="003").first.click()
        assert scripted.page.locator("main").inner_text() == before


def test_links_are_large_enough_to_touch(browser: Browser, reports: dict[str, str]) -> None:
    """WCAG 2.2 asks for targets of 24 CSS pixels."""
    with visit(browser, width=360, phone=True) as reader:
        reader.open(reports["whole"])
        heights = reader.page.evaluate("[...document.querySelectorAll('nav a')].map(each => each.offsetHeight)")
        assert min(heights) >= 24
