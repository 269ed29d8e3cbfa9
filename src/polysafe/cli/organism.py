"""`polysafe organism`: the toy family."""

from __future__ import annotations

from pathlib import Path

from polysafe.cli.console import format_bytes, note, print_json, print_table, progress, resumable
from polysafe.organism.packaged import NOTICE, Family, packaged_family


def build(output: Path, seed: int, *, as_json: bool) -> None:
    """Train the family into `output`."""
    from polysafe.organism.family import build_family

    with resumable(), progress():
        family = build_family(seed, output)
    _show(family, as_json=as_json)


def info(*, as_json: bool) -> None:
    """Show the family that comes with the package."""
    _show(packaged_family(), as_json=as_json)


def _show(family: Family, *, as_json: bool) -> None:
    info = family.info()
    if as_json:
        print_json(info)
        return
    print_table(("member", "folder"), list(family.members.items()))
    print_table(("language", "tier"), list(info["languages"].items()))
    print_table(("", ">"), [("seed", family.seed), ("size", format_bytes(info["bytes"]))])
    note(NOTICE)
