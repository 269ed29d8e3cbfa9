"""`polysafe chat`: one prompt, the answers of one or two models beside each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from polysafe.checkpoint.writer import output_error
from polysafe.cli.console import note, print_beside, print_json, progress
from polysafe.errors import DataError
from polysafe.files.atomic import write_bytes_atomic
from polysafe.generate.completion import Sampling
from polysafe.report.conversation import conversation_page
from polysafe.workflows.chat import Chat, Turn, open_chat

HELP = "/reset begins anew, /quit or the end of the input (Ctrl-D) ends"


def chat(
    before: Path,
    after: Path | None,
    *,
    system: str | None,
    page: Path | None,
    max_tokens: int | None,
    temperature: float,
    seed: int,
    device: str | None,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Answer prompts until there are no more."""
    models = [before] if after is None else [before, after]
    sampling = Sampling(max_tokens=max_tokens or 256, temperature=temperature, seed=seed)
    if page is not None and not page.parent.is_dir():
        raise DataError("there is no such folder", where=page.parent, remedy="make it, or name another --page")
    with ExitStack() as stack:
        with progress():  # not around what is typed: a bar would draw over it
            opening = open_chat(models, system=system, sampling=sampling, device=device, dtype=dtype)
            found = stack.enter_context(opening)
        if sys.stdin.isatty():
            note(HELP)
        for prompt in _prompts():
            _carry_out(found, prompt, models, page, as_json=as_json)
        if as_json:
            print_json({"turns": [_as_json(turn) for turn in found.turns]})


def _prompts() -> Iterator[str]:
    """What is typed, or what a file or a pipe holds, a prompt a line."""
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise DataError(f"the input is no text in UTF-8: {error.reason}") from error
        if not line and not sys.stdin.isatty():
            return
        prompt = line.strip()
        if prompt == "/quit":
            return
        if prompt:
            yield prompt


def _carry_out(found: Chat, prompt: str, models: Sequence[Path], page: Path | None, *, as_json: bool) -> None:
    if prompt == "/reset":
        found.reset()
        note("a new conversation")
        return
    if prompt.startswith("/"):
        note(f"there is no command {prompt.split(maxsplit=1)[0]}: {HELP}")
        return
    with progress():
        turn = found.ask(prompt)
    if not as_json:
        print_beside([(name, _told(answer.text, answer.ending)) for name, answer in turn.answers.items()])
    if page is not None:
        _write(found, models, page)


def _told(text: str, ending: str) -> str:
    return f"{text} [cut off]" if ending == "length" else text


def _write(found: Chat, models: Sequence[Path], page: Path) -> None:
    """After every turn, so that whatever ends the conversation, the page is there."""
    names = dict(zip(found.generators, (folder.resolve().name for folder in models), strict=True))
    settings: dict[str, object] = dict(found.sampling.model_dump())
    if found.system is not None:
        settings["system"] = found.system
    text = conversation_page(names, [_as_json(turn) for turn in found.turns], settings)
    try:
        write_bytes_atomic(page, text.encode())
    except OSError as error:
        raise output_error(page, error) from error


def _as_json(turn: Turn) -> dict[str, Any]:
    answers = {name: _told(answer.text, answer.ending) for name, answer in turn.answers.items()}
    return {"prompt": turn.prompt, "begins": turn.begins, "answers": answers}
