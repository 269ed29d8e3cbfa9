"""`polysafe card` and `polysafe push`: say what a model is, and publish it."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from polysafe.card.card import unmeasured
from polysafe.card.data import CARD
from polysafe.card.store import update_card
from polysafe.cli.commands.run import note_licence
from polysafe.cli.console import note, print_json, print_line, print_table, progress, resumable
from polysafe.errors import RecipeError
from polysafe.publish.contents import Publication
from polysafe.publish.push import Pushed, Wanted, preview
from polysafe.publish.push import push as push_model
from polysafe.text.units import format_bytes

CARD_LINES = 12
"""Lines of the card that a dry run shows."""


def card(model: Path, *, results: Path | None, licence: str | None, licence_name: str | None, as_json: bool) -> None:
    """Build the model card again."""
    made = update_card(model, results=results, licence=licence, licence_name=licence_name, overwrite=True)
    measured = len(made.results.rows) if made.results else 0
    if as_json:
        print_json(
            {
                "card": str(model / CARD),
                "licence": made.settled_licence,
                "rows": measured,
                "not_measured": [str(sentence) for sentence in unmeasured(made)],
            }
        )
        return
    print_line(f"{model / CARD}: {measured} results, licence {made.settled_licence or 'not settled'}")
    note_licence(model)


def push(
    model: Path,
    repo: str,
    *,
    public: bool,
    dry_run: bool,
    licence: str | None,
    licence_name: str | None,
    with_report: Path | None,
    with_answers: bool,
    with_places: bool,
    with_keys: bool,
    token_env: str | None,
    as_json: bool,
) -> None:
    """Publish an output; or show what would be sent, with exit code 1 if that would be refused."""
    if with_answers and with_report is None:
        raise RecipeError("whose answers?", where="--with-answers", remedy="name the evaluation: --with-report DIR")
    token = _token(token_env)
    wanted: Wanted = {
        "public": public,
        "licence": licence,
        "licence_name": licence_name,
        "report": with_report,
        "answers": with_answers,
        "places": with_places,
        "keys": with_keys,
    }
    with resumable(), progress():
        if dry_run:
            seen = preview(model, repo, **wanted)
        else:
            done = push_model(model, repo, token=token, **wanted)
    if as_json:
        print_json({"dry_run": True, **seen.to_json()} if dry_run else done.to_json())
    elif dry_run:
        _print_preview(seen)
    else:
        _print_pushed(done)
    if dry_run and seen.objections:
        raise typer.Exit(1)


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise RecipeError(
            f"the environment variable {variable!r} is not set",
            where="--token-env",
            remedy="set it to a token of the hub",
        )
    return token


def _print_preview(seen: Publication) -> None:
    told = seen.to_json()
    for objection in seen.objections:
        note(f"a push would be refused: {objection}")
    lines = told["card"].splitlines()
    for line in lines[:CARD_LINES]:
        print_line(line)
    if rest := lines[CARD_LINES:]:
        print_line(f"… {len(rest)} more lines of the card; `--dry-run --json` holds all of it")
    print_line()
    rows = [(item.path, format_bytes(item.size), item.sha256) for item in seen.items]
    print_table(("file", ">size", "SHA-256"), rows, title=f"Would be sent to {seen.repo}")
    print_line(
        f"{len(seen.items)} files, {format_bytes(seen.size)}; {told['visibility']}; "
        f"licence {told['licence'] or 'not settled'}; edit {seen.edit}"
    )


def _print_pushed(done: Pushed) -> None:
    told = done.to_json()
    seen = done.publication
    for path in done.foreign:
        note(f"note: {path} in the repository is not of this model; it was left alone")
    if seen.public and done.private:
        note("note: the repository is private and stays so; change that in its settings on the hub")
    print_line(
        f"{seen.repo}: {len(seen.items)} files, {format_bytes(seen.size)}, {len(done.unchanged)} of them there before; "
        f"{told['visibility']}; licence {told['licence']}"
    )
    print_line(f"commit {done.commit}; the hub's listing agrees with the manifest")
