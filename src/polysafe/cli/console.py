"""What the commands show, and how they end.

Results go to standard output; progress, warnings and errors go to standard error. Names and texts that come from
files are shown inertly: no control character reaches the terminal and nothing in them is markup.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from polysafe.errors import OutputError, PolysafeError, RecipeError
from polysafe.extras import missing_package
from polysafe.progress import hearing, reporting
from polysafe.secret import LONG, hide
from polysafe.signals import INTERRUPTED, interrupted

if TYPE_CHECKING:
    from rich.console import Console

DEFECT = 70

_UNBOUNDED = 10_000
_quiet = ContextVar("quiet", default=False)


class Terminated(BaseException):
    """The process was asked to end (SIGTERM), or its terminal went away (SIGHUP).

    Attributes:
        code: Exit code that says so.
        word: The same in a word.
    """

    def __init__(self, sent: int) -> None:
        super().__init__(sent)
        self.code = 128 + sent
        self.word = "hung up" if sent == signal.SIGHUP else "terminated"


def inert(text: object) -> str:
    """The text with every character that acts on a terminal, or hides from it, made visible."""
    from polysafe.text.readable import visible

    return visible(hide(str(text), shortest=LONG))


def print_json(value: object) -> None:
    """Print one JSON document to standard output."""
    sys.stdout.write(hide(json.dumps(value, indent=2, allow_nan=False), shortest=LONG) + "\n")


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


def print_beside(texts: Sequence[tuple[str, str]]) -> None:
    """Print texts beside each other on a terminal, elsewhere one after the other, each line with its heading.

    Args:
        texts: Heading and text of each; texts are shown inertly, and no line of one can be taken for one of another.
    """
    from rich.table import Table
    from rich.text import Text

    console = _console(stderr=False)
    if not console.is_terminal:
        for heading, text in texts:
            sys.stdout.writelines(f"{heading} | {inert(line)}\n" for line in text.split("\n"))
        sys.stdout.flush()
        return
    table = Table(box=None, expand=True, show_edge=False, padding=(0, 2, 0, 0))
    for heading, _ in texts:
        table.add_column(Text(inert(heading)), overflow="fold", ratio=1)
    table.add_row(*(Text(inert(text)) for _, text in texts))
    console.print(table, "")


def _bounded(value: object) -> str:
    from polysafe.text.readable import MAX_TEXT, clip, one_line

    return clip(one_line(hide(str(value), shortest=LONG)), MAX_TEXT)


def print_line(text: object = "") -> None:
    """Print one line of result to standard output; line breaks within it are shown by name."""
    from polysafe.text.readable import one_line

    sys.stdout.write(f"{one_line(hide(str(text), shortest=LONG))}\n")


def note(text: object) -> None:
    """Tell the user something that is not the result; where standard error takes nothing, nobody is told."""
    with suppress(OSError):
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


def allow(context: typer.Context, keys: list[str] | None) -> None:
    """Takes `--key` for recipes: the environment variables whose keys they may have sent."""
    if not keys:
        return
    from polysafe.generate.keys import allowed_keys

    context.with_resource(allowed_keys(*keys))


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
            stack.callback(console.show_cursor)  # an interruption may come as soon as it is hidden
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
        with hearing(note):
            yield
    except PolysafeError as error:
        print_error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as stop:
        _print_stop("interrupted", stop)
        raise typer.Exit(INTERRUPTED) from stop
    except Terminated as stop:
        _print_stop(stop.word, stop)
        raise typer.Exit(stop.code) from stop
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        code = end_by(error)
        if code is None:
            raise
        raise typer.Exit(code) from error


def end_by(error: Exception) -> int | None:
    """Prints what an error that nobody expected says of the machine, and returns the exit code; None for a defect."""
    if interrupted():  # a library that is interrupted while it is imported raises what it likes
        _print_stop("interrupted", error)
        return INTERRUPTED
    told = _told(error)
    if told is None:
        return None
    print_error(told, error)
    return told.exit_code


def _told(error: Exception) -> PolysafeError | None:
    """What is wrong with the machine, not with polysafe: a package or a place that is missing; None for anything else.

    A closed pipe ends a command quietly, as click does it.
    """
    if isinstance(error, OSError) and error.errno not in {None, errno.EPIPE}:
        where = "standard output" if error.filename is None else error.filename
        return OutputError(f"cannot be used: {error.strerror}", where=where)
    return missing_package(error)


def open_streams() -> None:
    """Makes standard output and standard error take every text, whatever the locale, and be there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (until the process ends)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish(code: Any) -> Any:
    """Sends what was printed on its way.

    Args:
        code: The exit code of the command.

    Returns:
        The exit code of the process: another one where not all that was printed arrived.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what libraries do at the end would print a traceback
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left would be tried again when the process ends, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return code or 1
        print_error(OutputError(f"cannot be used: {error.strerror}", where="standard output"))
        return code or OutputError.exit_code
    return code


def print_error(error: PolysafeError, cause: Exception | None = None) -> None:
    """Print what is wrong where it is seen even if the result goes to a file."""
    if os.environ.get("POLYSAFE_DEBUG", "0") not in ("", "0"):
        note("".join(traceback.format_exception(cause or error)))
    with suppress(OSError):
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
