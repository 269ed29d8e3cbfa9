from __future__ import annotations

import re

import pytest

from polysafe.report.html import render
from tests.report.large import large
from tests.report.test_html import Page, assert_inert


@pytest.mark.parametrize(("languages", "methods"), [(1, 1), (2, 2), (10, 30), (30, 2)])
def test_any_number_of_languages_and_methods_is_a_page(languages: int, methods: int) -> None:
    content = render(large(languages=languages, methods=methods, shown=2))
    page = Page(content)
    assert_inert(page)
    charts = [a for tag, a in page.elements if tag == "svg"]
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    assert not re.search(r"\bnan\b|\binf\b|None", content)
    assert len(content.encode()) < 6_000_000


def test_names_from_right_to_left_stand_apart() -> None:
    page = Page(render(large(languages=5, methods=1, shown=1)))
    assert {a.get("dir") for tag, a in page.elements if tag == "bdi"} == {None, "ltr"}
    assert "עברית (he)" in page.text
    assert 'dir="auto" lang="he"' in render(large(languages=5, methods=1, shown=1))
