"""What the commands show, and how they end.

Results go to standard output; progress, warnings and errors go to standard error. Names and texts that come from
files are shown inertly: no control character reaches the terminal and nothing in them is markup.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from polysafe.errors import PolysafeError, RecipeError
from polysafe.progress import reporting

if TYPE_CHECKING:
    from rich.console import Console

DEFECT = 70
INTERRUPTED = 130
TERMINATED = 143

_UNBOUNDED = 10_000
_quiet = ContextVar("quiet", default=False)


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def inert(text: object) -> str:
    """The text with every character that acts on a terminal, or hides from it, made visible."""
    from polysafe.text.readable import visible

    return visible(str(text))


def print_json(value: object) -> None:
    """Print one JSON document to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table and an empty line.

    Args:
        columns: Headings; a column whose heading starts with `>` is aligned to the right.
        rows: Cells; a `rich` text is shown as it is, anything else inertly, on one line and bounded.
        title: Heading of the table.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headed = any(column.strip(">") for column in columns)
    table = Table(box=box.SIMPLE_HEAD if headed else None, show_edge=False, pad_edge=False, show_header=headed)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(Text(_bounded(column.removeprefix(">"))), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_bounded(cell)) for cell in row))
    console = _console(stderr=False)
    if title:
        console.print(Text(_bounded(title), style="bold"))
    console.print(table, "")


def _bounded(value: object) -> str:
    from polysafe.text.readable import MAX_TEXT, clip, one_line

    return clip(one_line(str(value)), MAX_TEXT)


def print_line(text: object = "") -> None:
    """Print one line of result to standard output; line breaks within it are shown by name."""
    from polysafe.text.readable import one_line

    sys.stdout.write(f"{one_line(str(text))}\n")


def note(text: object) -> None:
    """Tell the user something that is not the result."""
    sys.stderr.write(f"{inert(text)}\n")


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings where they are seen even if the result goes to a file."""
    for text in warnings:
        note(f"warning: {text}")


def named_folders(texts: Iterable[str], option: str = "--source") -> dict[str, Path]:
    """Name -> folder, of the values of an option that are NAME=FOLDER.

    Raises:
        RecipeError: A value is not of that form, or a name is given twice.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise RecipeError(f"{text!r} is not NAME=FOLDER", where=option)
        if name in folders:
            raise RecipeError(f"{name!r} is given twice", where=option)
        folders[name] = Path(folder)
    return folders


def hush(context: typer.Context, quiet: bool) -> None:
    """Takes `--quiet` for `progress`, so that no command has to hand it on."""
    token = _quiet.set(quiet)
    context.call_on_close(lambda: _quiet.reset(token))


@contextmanager
def progress() -> Iterator[None]:
    """Within it, what is being done is shown on standard error, how fast, and the time left; not if `--quiet` is given.

    On a terminal there is a bar, elsewhere a plain line every ten seconds; `--json` changes standard output alone.
    """
    if _quiet.get():
        yield
        return
    from polysafe.cli.display import Bar, Lines, showing

    console = _console(stderr=True)
    with ExitStack() as stack:
        display: Bar | Lines
        if console.is_terminal:
            display = Bar(console)
            stack.enter_context(display.drawing)
        else:
            display = Lines(note)
        stack.enter_context(reporting(stack.enter_context(showing(display))))
        yield


@contextmanager
def resumable() -> Iterator[None]:
    """Within it, an interruption is told how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.add_note("run the same command again to go on from here")
        raise


@contextmanager
def endings() -> Iterator[None]:
    """Turn everything that can end a command into its message and exit code."""
    try:
        yield
    except PolysafeError as error:
        _print_error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as stop:
        _print_stop("interrupted", stop)
        raise typer.Exit(INTERRUPTED) from stop
    except Terminated as stop:
        _print_stop("terminated", stop)
        raise typer.Exit(TERMINATED) from stop


def _print_error(error: PolysafeError) -> None:
    if os.environ.get("POLYSAFE_DEBUG", "0") not in ("", "0"):
        note("".join(traceback.format_exception(error)))
    console = _console(stderr=True)
    console.print("error:", style="bold red", end=" ", highlight=False)
    note(error)


def _print_stop(word: str, stop: BaseException) -> None:
    note("; ".join([word, *getattr(stop, "__notes__", ())]))


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        # A file or a program reads this: nothing is folded to the width of a screen that is not there.
        console.width = _UNBOUNDED
    return console
