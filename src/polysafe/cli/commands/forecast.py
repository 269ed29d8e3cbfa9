"""`polysafe plan --nodes`: what recipes take on machines that are not there yet."""

from __future__ import annotations

import os
import re
from pathlib import Path

from polysafe.cli.commands.several import Asked
from polysafe.cli.console import print_json, print_line, print_table
from polysafe.engine.forecast import Forecast, Machines, Phase, Questions, forecast
from polysafe.engine.job import resolve
from polysafe.engine.plan import ASSUMED_RATE
from polysafe.errors import RecipeError
from polysafe.recipe.recipe import parse_size
from polysafe.text.units import format_bytes, format_seconds

_AUDIT = re.compile(r"(\d{1,9})x(\d{1,6})x(\d{1,7})")


def foreseen(
    asked: Asked,
    data: Path | None,
    *,
    nodes: int | None,
    disk: str | None,
    network: str | None,
    cores: int | None,
    rate: float | None,
    audit: str | None,
    speed: float | None,
) -> Forecast | None:
    """What it takes on the machines that options describe; None where they describe none.

    Raises:
        PolysafeError: An option is wrong, or as for `forecast`.
    """
    if nodes is None:
        options = {"disk": disk, "network": network, "cores": cores, "rate": rate, "audit": audit, "speed": speed}
        for name, value in options.items():
            if value is not None:
                raise RecipeError("describes machines", where=f"--{name}", remedy="say how many with --nodes")
        return None
    machines = Machines(
        nodes,
        _bytes("--disk", disk) or ASSUMED_RATE,
        _bytes("--network", network),
        cores or os.cpu_count() or 1,
        rate,
    )
    questions = _questions(audit, speed)
    return forecast([resolve(recipe, data=data) for _, recipe in asked], machines, questions)


def _bytes(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(parse_size(re.sub(r"/s$", "", text)))
    except RecipeError as error:
        raise RecipeError(error.problem, where=option, remedy="bytes a second, such as 500MB or 12.5GB") from None


def _questions(audit: str | None, speed: float | None) -> Questions | None:
    if audit is None:
        if speed is not None:
            raise RecipeError("belongs to an audit", where="--speed", remedy="add --audit")
        return None
    match = _AUDIT.fullmatch(audit)
    if match is None or not all(map(int, match.groups())):
        raise RecipeError(
            f"{audit!r} is no audit", where="--audit", remedy="write prompts, languages and tokens: 1000x100x256"
        )
    if not speed:
        raise RecipeError(
            "needs the tokens a second of one machine", where="--audit", remedy="add --speed; an audit shows it"
        )
    prompts, languages, tokens = map(int, match.groups())
    return Questions(prompts, languages, tokens, speed)


def print_forecast(found: Forecast, *, as_json: bool) -> None:
    """Prints phases, sums and what it waits for."""
    if as_json:
        print_json(found.to_json())
        return
    columns = ("", ">reads", ">writes", ">over the network", ">machines", ">time", "waits for")
    print_table(columns, map(_row, found.phases), title="what it takes, from headers alone")
    machines, longest, seconds = found.machines, found.longest, found.hours * 3600
    print_line(f"in all {format_seconds(seconds)}; machines are held for {found.node_hours:.3g} hours")
    if found.dollars is not None:
        print_line(f"at {machines.rate:g} dollars an hour: {found.dollars:,.2f} dollars")
    share = longest.seconds / seconds if seconds else 0.0
    print_line(f"the longest part is {longest.name!r}, {share:.0%} of the time: it waits for {longest.bottleneck}")
    for text in found.notes:
        print_line(f"note: {text}")


def _row(phase: Phase) -> tuple[object, ...]:
    sizes = (format_bytes(size) if size else "–" for size in (phase.read, phase.written, phase.moved))
    return (phase.name, *sizes, phase.nodes, format_seconds(phase.seconds), phase.bottleneck)
