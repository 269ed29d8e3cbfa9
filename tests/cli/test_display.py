"""Progress as it is shown, with a clock that does not wait."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from threading import Event

import pytest
from rich.console import Console

from polysafe.cli.console import progress
from polysafe.cli.display import Bar, Lines, showing
from polysafe.progress import counted, tell


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines_of(clock: Clock) -> tuple[Lines, list[str]]:
    written: list[str] = []
    return Lines(written.append, clock), written


def test_lines_say_how_much_how_fast_and_how_long_at_most_every_ten_seconds(clock: Clock) -> None:
    lines, written = lines_of(clock)
    for second in range(100):
        clock.now = 100 + second
        lines.step("answers", 100 + second, 1000)  # a hundred were known from an earlier run
    assert len(written) == 9
    assert written[0] == "answers 110/1000 (11 %), 1/s, about 15 min left"
    assert written[-1] == "answers 190/1000 (19 %), 1/s, about 14 min left"


def test_short_work_is_silent(clock: Clock) -> None:
    lines, written = lines_of(clock)
    for label in ("loading", "answers", "verdicts"):
        for done in range(4):
            lines.step(label, done, 3)
            clock.now += 0.5
            lines.tick()
    assert written == []


def test_a_step_that_takes_long_is_not_silent(clock: Clock) -> None:
    lines, written = lines_of(clock)
    lines.step("loading gemma", 0, 1)
    for _ in range(25):
        clock.now += 1
        lines.tick()
    lines.step("loading gemma", 1, 1)
    for _ in range(25):
        clock.now += 1
        lines.tick()
    assert written == ["loading gemma for 10 s", "loading gemma for 20 s", "loading gemma took 25 s"]


def test_a_long_stage_has_a_line_at_its_end_and_a_new_one_a_line_when_it_is_due(clock: Clock) -> None:
    lines, written = lines_of(clock)
    lines.step("answers", 0, 4)
    clock.now += 39
    lines.step("answers", 4, 4)
    lines.step("verdicts", 0, 4)
    assert written == ["answers 4/4 (100 %), took 39 s"]
    clock.now += 11
    lines.step("verdicts", 1, 4)
    assert written[1:] == ["verdicts 1/4 (25 %), 5.5/min, about 33 s left"]


def test_the_innermost_stage_is_shown_and_then_the_one_around_it(clock: Clock) -> None:
    lines, written = lines_of(clock)
    lines.step("deciding", 0, 5_000_000)
    lines.step("trial 1 of 2: layer 3, answers", 0, 8)
    clock.now += 12
    lines.tick()
    lines.step("trial 1 of 2: layer 3, answers", 8, 8)
    clock.now += 12
    lines.tick()
    lines.step("deciding", 2_500_000, 5_000_000)
    clock.now += 12
    lines.tick()
    assert [re.split(r"[,(]", line)[0].strip() for line in written] == [
        "trial 1 of 2: layer 3",
        "trial 1 of 2: layer 3",
        "deciding 0/5 M",
        "deciding 2.5 M/5 M",
    ]


def test_a_stage_that_was_given_up_is_forgotten(clock: Clock) -> None:
    lines, written = lines_of(clock)
    lines.step("deciding", 0, 10)
    lines.step("trial 1, activations", 0, 8)
    lines.step("deciding", 1, 10)
    clock.now += 12
    lines.tick()
    assert written[0].startswith("deciding 1/10")


def test_a_stage_that_begins_anew_is_timed_anew(clock: Clock) -> None:
    lines, written = lines_of(clock)
    lines.step("activations", 0, 100)
    clock.now += 100
    lines.step("activations", 10, 100)
    lines.step("activations", 0, 100)
    clock.now += 10
    lines.step("activations", 50, 100)
    assert written[-1] == "activations 50/100 (50 %), 5/s, about 10 s left"


def test_a_stage_with_nothing_to_do_is_over(clock: Clock) -> None:
    lines, written = lines_of(clock)
    lines.step("answers", 0, 0)
    clock.now += 20
    lines.tick()
    assert written == []


def test_lines_cannot_be_forged(clock: Clock) -> None:
    lines, written = lines_of(clock)
    clock.now += 10
    lines.step("loading x\nerror: \x1b[2J", 0, 1)
    assert len(written) == 1
    assert "\n" not in written[0]
    assert "\x1b" not in written[0]


def test_a_bar_is_drawn_when_something_has_changed_and_not_for_every_step(clock: Clock) -> None:
    drawn: list[float] = []
    bar = Bar(Console(file=io.StringIO(), force_terminal=True, width=120), clock)
    refresh: Callable[[], None] = bar.drawing.refresh
    bar.drawing.refresh = lambda: (drawn.append(clock.now), refresh())[1]  # type: ignore[method-assign, func-returns-value]
    with bar.drawing:
        for done in range(1000):
            bar.step("head effects", done, 1000)
            clock.now += 0.01
    assert 30 < len(drawn) < 50  # ten seconds, four times a second; the first and the last are rich's own


def test_the_bar_says_what_the_lines_say(clock: Clock) -> None:
    file = io.StringIO()
    bar = Bar(Console(file=file, force_terminal=True, width=120), clock)
    with bar.drawing:
        bar.step("answers", 10, 100)
        clock.now += 10
        bar.step("answers", 30, 100)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert re.search(r"answers .* 30/100 \(30 %\), 2/s, about 35 s left", shown)


def test_time_passes_in_the_display_while_nothing_is_told(clock: Clock) -> None:
    written, told = list[str](), Event()

    def write(line: str) -> None:
        written.append(line)
        told.set()

    lines = Lines(write, clock)
    with showing(lines) as step:
        step("loading", 0, 1)
        clock.now += 10
        assert told.wait(60)
    assert written == ["loading for 10 s"]


def test_commands_show_what_is_told_within_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polysafe.cli.display.EVERY", 0.0)
    with progress():
        advance = counted("writing", 2)
        advance(1)
    tell("nobody", 0, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("writing 0/2 (0 %)")
    assert "writing 1/2 (50 %)" in captured.err
    assert "nobody" not in captured.err
    assert sys.stderr.isatty() is False
