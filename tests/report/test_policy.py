"""Every page that is written carries the policy, and nothing on it names a place on this machine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import polysafe.report
from polysafe.report import ReportData
from polysafe.report.html import render
from tests.report.examples import TIERS, example, hostile

POLICY = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
TEMPLATES = sorted(Path(polysafe.report.__file__).with_name("templates").rglob("*.j2"))

PAGES = {
    "whole": example(),
    "nothing": ReportData(title="Empty", rows=(), toy=False, tiers={}),
    "audit": replace(example(), rows=(), decisions={}, changes=(), headline=None),
    "unknown method": replace(example(), headline="absent"),
    "names": hostile("</title><script>"),
    "tiers": replace(example(), tiers=dict.fromkeys(TIERS, "")),
}


@pytest.mark.fault(24, "a policy that forbids scripts")
@pytest.mark.parametrize("data", PAGES.values(), ids=PAGES)
def test_page_has_the_policy_first_and_no_path(data: ReportData) -> None:
    content = render(data)
    assert content.count("http-equiv") == 1
    assert content.index(POLICY) < min(content.index("<title>"), content.index("<style>"))
    links = re.findall(r'\b(?:href|src|action|data)="([^"]*)"', content)
    assert links
    assert not [link for link in links if not re.fullmatch(r"#[\w-]+|[\w.-]+\.(csv|json)", link)]
    assert not re.search(r"file:|/(home|root|tmp|work|usr)/", content)


def test_every_template_of_a_page_has_the_policy() -> None:
    pages = [file for file in TEMPLATES if "<html" in file.read_text(encoding="utf-8")]
    assert pages
    for file in pages:
        text = file.read_text(encoding="utf-8")
        assert POLICY in text or re.search(r"{%-? *(extends|include) ", text.partition("<style>")[0])


def test_no_template_switches_escaping_off() -> None:
    for file in TEMPLATES:
        assert not re.search(r"\|\s*safe\b|autoescape|<script|\bon\w+=", file.read_text(encoding="utf-8"))
