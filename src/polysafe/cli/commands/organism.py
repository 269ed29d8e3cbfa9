"""`polysafe organism`: families that are made to have the problem."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from polysafe.cli.console import note, print_json, print_table, progress, resumable
from polysafe.errors import RecipeError
from polysafe.organism.packaged import NOTICE, Family, packaged_family
from polysafe.text.units import format_bytes


def build(
    family: Literal["toy", "hard", "gemma"],
    *,
    output: Path | None,
    seed: int,
    data: Path | None,
    whole_vocabulary: bool,
    as_json: bool,
) -> None:
    """Train a family."""
    if family == "gemma":
        _build_real(data, output, seed, whole_vocabulary=whole_vocabulary, as_json=as_json)
    else:
        hard = family == "hard"
        _build(output or Path(f"{'hard' if hard else 'family'}-{seed}"), seed, hard=hard, as_json=as_json)


def _build(output: Path, seed: int, *, hard: bool, as_json: bool) -> None:
    from polysafe.organism.family import HARD, Recipe, build_family

    with resumable(), progress():
        family = build_family(seed, output, recipe=HARD if hard else Recipe())
    _show(family, as_json=as_json)


def _build_real(data: Path | None, output: Path | None, seed: int, *, whole_vocabulary: bool, as_json: bool) -> None:
    from polysafe.organism.gemma.family import build_gemma

    texts = required_texts(data)
    with resumable(), progress():
        family = build_gemma(texts, output, seed=seed, whole_vocabulary=whole_vocabulary)
    info = family.info()
    if as_json:
        print_json(info)
        return
    seconds = info["cpu_seconds"]
    print_table(
        ("member", ">CPU s", "folder"), [(name, f"{seconds[name]:.0f}", path) for name, path in family.members.items()]
    )
    print_table(("", ">"), [("seed", seed), ("size", format_bytes(info["bytes"]))])
    note(NOTICE)


def required_texts(data: Path | None) -> Path:
    """The folder of public texts that the family in real languages needs.

    Raises:
        RecipeError: None is named.
    """
    if data is None:
        raise RecipeError(
            "the family in real languages is trained and asked with public texts, and no folder of them is named",
            where="--data",
            remedy="name one with a folder per set, see docs/data.md",
        )
    return data


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
