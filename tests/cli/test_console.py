from __future__ import annotations

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from polysafe.cli.console import inert, print_json, print_table, progress
from polysafe.cli.options import Quiet
from polysafe.progress import tell
from polysafe.text.units import format_bytes, format_rate, format_seconds

HOSTILE = ["\x1b[2J", "[red]x[/red]", "a\rb", "\u202eabc", "\x9b31m", "\u2028", "[link=file:///x]y[/link]"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (16_060_000_000, "16.1 GB"), (2 * 10**12, "2000.0 GB")],
)
def test_bytes(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "< 1 s"), (1, "1 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7300, "2 h 1 min")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("speed", "text"),
    [(None, ""), (0.0, ""), (0.5, "30/min"), (1, "1/s"), (12.54, "12.5/s"), (2500, "2.5 k/s"), (3.2e9, "3.2 G/s")],
)
def test_rates(speed: float | None, text: str) -> None:
    assert format_rate(speed) == text


@pytest.mark.hostile("answer")
@pytest.mark.parametrize("text", HOSTILE)
def test_inert_text_cannot_act_on_a_terminal(text: str) -> None:
    shown = inert(text)
    assert not set(shown) & {"\x1b", "\r", "\u202e", "\x9b", "\u2028"}


@pytest.mark.parametrize("text", HOSTILE)
def test_table_shows_names_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [(text,), (Text("own"),)], title=text)
    out = capsys.readouterr().out
    assert out.count(inert(text)) == 2
    assert "own" in out


def test_table_without_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("", ">"), [("a", 1), ("bb", 22)])
    assert capsys.readouterr().out == "a    1\nbb  22\n\n"


def test_table_that_is_not_on_a_screen_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/".join(["folder"] * 60)
    print_table(("member", "folder"), [("base", path)])
    assert f"base     {path}\n" in capsys.readouterr().out


def test_table_on_a_narrow_screen_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("member", "folder"), [("base", "x" * 100)])
    assert capsys.readouterr().out.count("x") == 100


def test_json_has_no_value_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"x": float("nan")})


def test_short_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress():
        tell("writing", 0, 10)
        tell("writing", 10, 10)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_on_a_terminal_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress():
        tell("[b]reading[/b]\x1b[2J", 0, 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[b]reading[/b]" in captured.err
    assert "\x1b[2J" not in captured.err


def test_quiet_progress_is_silent_even_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    command = typer.Typer()

    @command.command()
    def work(_quiet: Quiet = False) -> None:
        with progress():
            tell("writing", 5, 10)

    assert CliRunner().invoke(command, ["--quiet"]).stderr == ""
    assert "writing" in CliRunner().invoke(command, []).stderr
    with progress():
        tell("writing", 5, 10)
    assert "writing" in capsys.readouterr().err
