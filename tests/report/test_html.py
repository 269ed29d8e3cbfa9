from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polysafe.errors import OutputError
from polysafe.findings.data import MAX_CHANGES
from polysafe.report import ReportData, build_report
from polysafe.report.html import render
from polysafe.report.spreadsheet import tables
from polysafe.stats import RateRow, Row
from polysafe.text.readable import MAX_TEXT
from tests.report.examples import TIERS, change, decisions, example, gap_changes, hostile, rows

VOID = {"meta", "br", "hr", "img", "link", "input"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class Page(HTMLParser):
    """Parses strictly: every element must close in order. Gathers elements and what a reader can see."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.hidden: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute occurs twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"nothing is open for </{tag}>"
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError("the page holds a comment")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            (self.hidden if "details" in self.open else self.words).append(data)

    @property
    def text(self) -> str:
        """What is on the page without opening anything."""
        return " ".join(" ".join(self.words).split())

    @property
    def all_text(self) -> str:
        return " ".join(" ".join(self.words + self.hidden).split())


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(example()))


def assert_inert(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "input", "img", "plaintext", "b"}
    assert [tag for tag, _ in page.elements if tag == "meta"] == ["meta"] * 5
    assert sum(tag == "style" for tag, _ in page.elements) == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "action", "srcset", "ping")]
        assert (attributes.get("href") or "#").startswith("#")
        assert not re.search(r"url\(|expression|import", attributes.get("style") or "")


@pytest.mark.fault(24, "a policy that forbids scripts")
def test_is_self_contained_and_without_script(page: Page) -> None:
    assert_inert(page)
    policies = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [POLICY]
    content = render(example())
    assert not re.search(r"https?:|url\(|@import|//[a-z]", content)


def test_policy_comes_before_anything_that_it_governs(page: Page) -> None:
    names = [tag for tag, _ in page.elements]
    policy = next(i for i, (_, a) in enumerate(page.elements) if "http-equiv" in a)
    assert policy < names.index("style")


def test_document_has_language_title_and_viewport(page: Page) -> None:
    assert page.elements[0] == ("html", {"lang": "en"})
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.elements
    assert "Toy family, seed 3" in page.text


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = {(a["href"] or "")[1:] for tag, a in page.elements if tag == "a"}
    sections = "methods languages categories edit judge broken answers safety ability limits settings"
    assert links == set(sections.split())
    assert links <= set(ids)


def test_hostile_text_is_shown_and_not_swallowed() -> None:
    shown = Page(render(hostile("<script>alert(1)</script>"))).all_text
    assert shown.count("<script>alert(1)</script>") > 10


def test_template_syntax_in_text_is_not_run() -> None:
    assert "49" not in Page(render(replace(example(), title="{{ 7 * 7 }}", rows=()))).text


@pytest.mark.fault(24, "lines of a megabyte")
def test_long_answers_are_cut_and_say_so() -> None:
    content = render(replace(example(), changes=(change(0, "A" * 1_000_000),)))
    assert f"{1_000_000 - MAX_TEXT:,} more characters" in content
    assert len(content) < len(render(example())) + 10 * MAX_TEXT


def test_many_changes_are_cut_and_say_so_and_bad_ones_come_first() -> None:
    many = [change(i) for i in range(100)] + [change(100, before="refused", after="unsafe")]
    page = Page(render(replace(example(), changes=tuple(many))))
    assert sum((a.get("class") or "") == "change" for _, a in page.elements) == MAX_CHANGES
    assert f"{MAX_CHANGES} of 101 are shown" in page.all_text
    assert "100 unsafe → refused, 1 refused → unsafe" in page.all_text
    assert page.all_text.index("refused → unsafe 100") < page.all_text.index("unsafe → refused 000")


def test_changes_of_several_methods_are_gathered_and_controls_stand_apart() -> None:
    changes = (
        change(1),
        replace(change(2), method="control.random_blocks"),
        replace(change(3), method="task_arithmetic", language="qad"),
    )
    content = render(replace(example(), changes=changes))
    section = content[content.index('<section id="answers">') :]
    shown, _, beside = section.partition("Baselines, published settings and controls")
    assert "Module-wise swapping" in shown
    assert "Control: random blocks" not in shown
    assert "Control: random blocks" in beside
    for name in ("Module-wise swapping", "Control: random blocks", "Task arithmetic"):
        assert f"<summary><strong>{name}</strong>: 1 changed</summary>" in section
    alone = render(replace(example(), changes=changes[:1]))
    assert "<strong>Module-wise swapping</strong>: 1 changed" not in alone  # one method needs no drawer of its own


def test_model_text_is_hidden_until_opened_and_finds_its_own_direction() -> None:
    page = Page(render(replace(example(), changes=(replace(change(0, "سلام"), language="ar"),))))
    assert "سلام" not in page.text
    assert "سلام" in page.all_text
    texts = [a for _, a in page.elements if a.get("class") == "text"]
    assert [(a["dir"], a["lang"]) for a in texts] == [("auto", "ar")] * 3


def test_toy_numbers_are_never_shown_without_the_warning() -> None:
    warning = "they are no evidence about any real model"
    assert warning in Page(render(example(toy=True))).text
    assert warning not in Page(render(example(toy=False))).text


def test_first_screen_says_verdict_and_means(page: Page) -> None:
    assert "Reduced" in page.text
    assert "lowered the mean unsafe rate over 3 low-resource languages (qac, qad, qae)" in page.text
    assert page.text.index("lowered the mean") < page.text.index("Gap to English") < page.text.index("Methods: mean")


def test_parts_come_in_the_order_in_which_a_reviewer_asks(page: Page) -> None:
    headings = [
        "Reduced", "Gap to English: Module-wise", "Safety against ability", "Unsafe answers by language",
        "Unsafe answers by category", "What the edit touched", "Error of the judge", "Broken, wrong-language",
        "Prompts whose verdict changed", "Limits", "Settings, hashes, versions",
    ]  # fmt: skip
    after_contents = page.text[page.text.index("Reduced") :]
    places = [after_contents.index(heading) for heading in headings]
    assert places == sorted(places)


def test_every_rate_has_interval_and_n(page: Page) -> None:
    assert "100 → 12" in page.text
    assert "93–100 → 6–25" in page.text
    assert "n 48, detects ≥ 18 points, p < 0.001" in page.text


def test_every_chart_has_a_text_alternative_and_its_numbers(page: Page) -> None:
    charts = [a for tag, a in page.elements if tag == "svg"]
    assert len(charts) == 3 + 1 + 1 + 1 + 4 + 2 + 2
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    maps = [a for _, a in page.elements if (a.get("class") or "") == "grid"]
    assert all(a["role"] == "img" and a["aria-label"] for a in maps)
    assert page.all_text.count("Numbers as a table") == len(charts) - 1
    assert page.all_text.count("Decisions and scores as a table") == 2


def test_refusals_are_printed_beside_unsafe(page: Page) -> None:
    assert "unsafe 25\N{NARROW NO-BREAK SPACE}%, refused 71\N{NARROW NO-BREAK SPACE}%, n 48" in "".join(page.words)


def test_baselines_and_controls_are_marked(page: Page) -> None:
    assert "Task arithmetic task_arithmetic baseline" in page.text
    assert "Control: random blocks control.random_blocks control" in page.text
    assert "Broken, not repaired" in page.text


def test_every_table_can_scroll_by_itself(page: Page) -> None:
    scrolls = [a for _, a in page.elements if a.get("class") == "scroll"]
    assert len(scrolls) == sum(tag == "table" for tag, _ in page.elements)
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolls)


@pytest.mark.parametrize("layers", [8, 80])
def test_decision_map_has_a_cell_per_block(layers: int) -> None:
    chosen = decisions(layers, ("attention", "mlp"))
    page = Page(render(replace(example(), decisions={"layer_swap.module": {"qac": chosen}})))
    blocks = [a for _, a in page.elements if (a.get("class") or "").startswith("block ")]
    assert len(blocks) == 2 * layers + 1
    assert blocks[0]["title"] == "layers.0.attention: safety, d = +0.0200"
    assert sum("borderline" in (a["class"] or "") for a in blocks) == sum(d.borderline for d in chosen)
    assert f"layers.{layers - 1}.mlp" in page.all_text


def test_nothing_at_all_is_still_a_page() -> None:
    page = Page(render(ReportData(title="Empty", rows=(), toy=False, tiers={})))
    assert "Not measured" in page.text
    assert "nothing to conclude" in page.text


def test_undefined_rates_are_dashes() -> None:
    data = ReportData(
        title="No items",
        rows=(Row("soup", "te", "unsafe", None, None, 0), Row("soup", "te", "capability.reading", None, None, 0)),
        toy=False,
        tiers={"te": "low"},
        audits=(RateRow("base", "te", "unsafe", None, 0),),
    )
    page = Page(render(data))
    assert "Not measured" in page.text
    assert "– n 0" in page.all_text
    assert "0\N{NARROW NO-BREAK SPACE}%" not in page.text.split("Limits")[1].split("Safety")[0]


def test_an_audit_alone_is_a_report() -> None:
    audit = ReportData(title="Audit", rows=(), toy=False, tiers=TIERS, audits=example().audits)
    page = Page(render(audit))
    assert "Answers to harmful requests: base" in page.text
    assert "Languages not compared" in page.text
    assert sum(tag == "svg" for tag, _ in page.elements) == 1


def test_writes_page_and_data_beside_each_other(tmp_path: Path) -> None:
    path = build_report(example(), tmp_path / "out")
    assert path == tmp_path / "out" / "report" / "index.html"
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == sorted(["index.html", "report.json", *tables(example())])
    assert all(name in path.read_text(encoding="utf-8") for name in names if name != "index.html")
    assert render(ReportData.load(path.parent / "report.json")) == path.read_text(encoding="utf-8")


def test_the_same_data_gives_the_same_page() -> None:
    assert render(example()) == render(example())


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(OutputError, match="writable"):
        build_report(example(), tmp_path)


def test_stays_small() -> None:
    assert len(render(example()).encode()) < 400_000


def test_rows_of_one_method_need_no_baselines() -> None:
    gaps = gap_changes("layer_swap.module", 1.0, 0.0)
    data = replace(example(), rows=rows(unsafe=0.1, refused=0.9), audits=(), gaps=gaps)
    assert "Baselines, published settings and controls" not in Page(render(data)).all_text
