"""Hostile answers on a terminal: they neither act on it nor hide from who reads it."""

from __future__ import annotations

import re
import unicodedata

import pytest
import typer

from polysafe.cli.console import endings, note, print_line, print_table, print_warnings, progress
from polysafe.errors import DataError
from polysafe.progress import tell
from tests.attacks.answers import ANSWERS

_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~])?")


def show_everywhere(text: str) -> None:
    """Every way in which a command shows a text that is not its own."""
    print_table(("name", ">rate", text), [(text, 1, "x"), ("y", text, text)], title=text)
    print_line(text)
    note(text)
    print_warnings([text])
    with pytest.raises(typer.Exit), endings():
        raise DataError(f"the answer {text} is odd", where=text, remedy=text)
    with progress():
        tell(text, 0, 2)
        tell(text, 2, 2)


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns that shows colours, and tracebacks of errors."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("POLYSAFE_DEBUG", "1")


OWN: set[str] = set()


@pytest.fixture
def own(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The escape sequences that the commands themselves write."""
    if not OWN:
        show_everywhere("harmless words")
        captured = capsys.readouterr()
        OWN.update(_ESCAPE.findall(captured.out + captured.err))
    return OWN


@pytest.mark.fault(24, "the terminal")
@pytest.mark.hostile("answer", cases="answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_neither_acts_on_a_terminal_nor_forges_a_line(
    name: str, own: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ANSWERS[name].text
    show_everywhere(text)
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert set(_ESCAPE.findall(written)) <= own
    plain = _ESCAPE.sub("", written)
    # Progress goes back to the start of its own line.
    controls = {
        c for c in set(plain) if unicodedata.category(c) in {"Cc", "Cs"} or unicodedata.bidirectional(c) in _BIDI
    }
    assert controls <= {"\n", "\t", "\r"}
    assert "\r" not in captured.out
    plain.encode()
    monkeypatch.delenv("FORCE_COLOR")
    print_table(("name", ">rate", text), [(text, 1, "x"), ("y", text, text)], title=text or "x")
    print_line(text)
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_the_check_above_can_fail(own: set[str]) -> None:
    """No hostile sequence is among those that the commands write, except the end of a style."""
    hostile = {found for case in ANSWERS.values() for found in _ESCAPE.findall(case.text)}
    assert hostile & own <= {"\x1b[0m"}
    assert len(hostile) > 5


def test_markup_of_the_terminal_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = ANSWERS["terminal: rich markup"].text
    print_table(("name",), [(text,)])
    assert text in capsys.readouterr().out
