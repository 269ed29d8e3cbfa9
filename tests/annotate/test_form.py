"""The form in a real browser: silent, alone, usable with a keyboard and on a phone; and what it saves is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polysafe.annotate.key import Key
from polysafe.annotate.sheets import CHOICES
from polysafe.errors import DataError
from polysafe.workflows.annotate import export_sheets, import_sheets
from tests.annotate.runs import two_runs
from tests.attacks.answers import ANSWERS, aimed_at
from tests.browser import chromium, listen, open_browser, visit
from tests.report.test_browser import RULES, describe

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

POLICY = r"default-src 'none'; script-src 'sha256-[\w+/=]+'; style-src 'sha256-[\w+/=]+'; img-src data:; "
SHOWN = "article:not([hidden])"
PATIENCE = 60_000
"""Milliseconds that a busy browser may take. Asked by the driver: the page itself evaluates no text."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with open_browser(program) as found:
        yield found


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("form")
    runs = two_runs(folder, rows=3)
    export_sheets([run.folder for run in runs], folder / "out", raters=["ana"], languages=["en"])
    return folder / "out"


def page_of(sheets: Path) -> Path:
    return sheets / "sheets" / "ana" / "en.html"


def saved(page: Page, target: Path) -> Path:
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "ana-en.json"
    download.value.save_as(target)
    return target


def test_the_policy_admits_our_script_alone(sheets: Path) -> None:
    page = page_of(sheets).read_text(encoding="utf-8")
    assert page.count("http-equiv") == 1
    assert re.search(POLICY, page)
    assert page.index("http-equiv") < page.index("<title>") < page.index("<style>")
    assert page.count("<script") == 1
    assert not re.search(r"innerHTML|eval\(|fetch\(|XMLHttpRequest|https?:", page)


def test_labelled_by_keys_alone_and_taken(browser: Browser, sheets: Path, tmp_path: Path) -> None:
    with visit(browser) as reader:
        reader.open(page_of(sheets).as_uri())
        page = reader.page
        assert not page.locator(f"{SHOWN} .answer").is_visible()
        page.keyboard.press("o")
        assert page.locator(f"{SHOWN} .answer").is_visible()
        for key in ("1", "2", "ArrowRight", "5", "1"):
            page.keyboard.press(key)
        assert "4 of 5 labelled" in page.inner_text("#progress")
        page.keyboard.press("n")
        assert page.locator(SHOWN).get_attribute("aria-label") == "Answer 3 of 5"
        page.fill(f"{SHOWN} .note input", "1 of a kind")
        page.keyboard.press("Enter")
        page.locator(f"{SHOWN} summary").focus()
        page.keyboard.press("3")
        file = saved(page, tmp_path / "ana-en.json")
        assert reader.said == []
        assert [address for address in reader.asked if not address.startswith("blob:")] == [page_of(sheets).as_uri()]
    found = import_sheets(sheets, [file], tmp_path / "labels")
    given = [row["label"] for row in json.loads(file.read_text())["labels"]]
    assert given == ["unsafe", "safe", "invalid", "unsure", "unsafe"]
    assert sorted(found.result.labels.values()) == ["invalid", "safe", "unsafe", "unsafe"]
    assert list(found.given.notes.values()) == [{"ana": "1 of a kind"}]


def test_a_saved_file_is_opened_again_and_another_is_not(browser: Browser, sheets: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    with visit(browser) as reader:
        reader.open(page_of(sheets).as_uri())
        reader.page.keyboard.press("2")
        file = saved(reader.page, tmp_path / "ana-en.json")
    other = tmp_path / "other.json"
    other.write_text(file.read_text().replace('"key": "', '"key": "0'))
    with visit(browser) as reader:
        reader.open(page_of(sheets).as_uri())
        reader.page.set_input_files("#load", other)
        expect(reader.page.locator("#said")).to_contain_text("another sheet", timeout=PATIENCE)
        assert "0 of 5 labelled" in reader.page.inner_text("#progress")
        reader.page.set_input_files("#load", file)
        expect(reader.page.locator("#progress")).to_have_text(re.compile("^1 of 5"), timeout=PATIENCE)
    with pytest.raises(DataError, match="belongs to other sheets"):
        import_sheets(sheets, [other], tmp_path / "labels")


@pytest.mark.hostile("answer")
def test_hostile_answers_do_nothing_and_come_back_whole(browser: Browser, tmp_path: Path) -> None:
    with listen() as listener, visit(browser) as reader:
        texts = [aimed_at(case.text, listener.origin) for case in ANSWERS.values()]
        runs = two_runs(tmp_path, rows=len(texts), answer=lambda row, language, model: texts[row])
        export_sheets([run.folder for run in runs], tmp_path / "out", raters=["ana"], languages=["en"])
        reader.open(page_of(tmp_path / "out").as_uri())
        reader.open_details()
        reader.page.evaluate("document.querySelectorAll('article').forEach(each => { each.hidden = false; })")
        reader.page.evaluate("document.querySelectorAll('input[value=safe]').forEach(each => each.click())")
        file = saved(reader.page, tmp_path / "ana-en.json")
        assert reader.said == []
        assert listener.heard == []
    found = import_sheets(tmp_path / "out", [file], tmp_path / "labels")
    assert len(found.result.labels) == len(Key.load(tmp_path / "out").items)


@pytest.mark.parametrize(("width", "phone"), [(360, True), (1440, False)])
def test_fits_a_phone_and_is_accessible(width: int, phone: bool, browser: Browser, sheets: Path) -> None:
    with visit(browser, width=width, phone=phone) as reader:
        reader.open(page_of(sheets).as_uri())
        assert reader.overhang == 0
        reader.open_details()
        assert reader.overhang == 0
        assert reader.page.locator(f"{SHOWN} fieldset label").count() == len(CHOICES)
        touched = reader.page.locator(f"{SHOWN} fieldset label, button").all()
        assert min(each.bounding_box()["height"] for each in touched) >= 44  # type: ignore[index]
        spec = find_spec("axe_playwright_python")
        if spec is None or spec.origin is None:
            pytest.skip("axe is not installed")
        reader.page.evaluate(Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
        found = reader.page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", RULES)
        assert describe(found["violations"]) == []
