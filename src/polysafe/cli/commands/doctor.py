"""`polysafe doctor`: what there is to work with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from polysafe.cli.console import print_json, print_line, print_table
from polysafe.errors import VerificationError
from polysafe.text.units import format_bytes
from polysafe.workflows.doctor import Examination, examine


def doctor(*, as_json: bool) -> None:
    """Say what is installed and what is there; end with an error where something is broken that polysafe needs."""
    found = examine()
    if as_json:
        print_json({**asdict(found), "broken": found.broken})
    else:
        _print(found)
    if found.broken:
        raise VerificationError(
            "polysafe cannot work as it is: " + "; ".join(found.broken), remedy="pip install --upgrade polysafe"
        )


def _print(found: Examination) -> None:
    print_table(("", ""), list(found.versions.items()))
    print_table(
        ("needed always", "version", "asked for", ""),
        [(each.name, each.installed or "", each.asked, each.problem or "works") for each in found.packages],
    )
    print_table(
        ("extra", "brings", "", "install"),
        [
            (each.name, each.brings, "installed", "")
            if not each.missing
            else (each.name, each.brings, "lacks " + ", ".join(one.name for one in each.missing), each.line)
            for each in found.extras
        ],
    )
    print_table(("machine", ""), list(_machine(found.machine)))
    print_table(
        ("cache", ">size", "folder"),
        [(name, format_bytes(each["bytes"]), each["folder"]) for name, each in found.caches.items()],
    )
    if found.settings:
        print_table(("setting", "value"), list(found.settings.items()))
    if not found.broken:
        print_line("Everything that polysafe needs works.")


def _machine(machine: Any) -> Iterator[tuple[str, str]]:
    unknown = "cannot be told"
    yield "cores", str(machine["cores"] or unknown)
    memory, disk = machine["memory"], machine["disk"] or {}
    yield "memory", f"{format_bytes(memory['free'])} free of {format_bytes(memory['total'])}" if memory else unknown
    for name, space in disk.items():
        yield f"disk, {name}", f"{format_bytes(space['free'])} free"
    fast = {True: "fast on this processor", False: "spelt out on this processor, several times slower than float32"}
    yield "bfloat16", fast.get(machine["bfloat16"], unknown)
    cards = machine["accelerators"]
    if cards is None:
        yield "accelerators", unknown
    for card in cards or ():
        room = f", {format_bytes(card['free'])} free of {format_bytes(card['total'])}" if card["total"] else ""
        yield "accelerator", f"{card['name']}{room}"
    if cards == []:
        yield "accelerators", "none"
