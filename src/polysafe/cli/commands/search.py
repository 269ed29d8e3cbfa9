"""`polysafe search`: what was tried, what is recommended, and how far that can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from polysafe.cli.console import note, print_json, print_line, print_table, progress, resumable
from polysafe.cli.engines import cluster_of
from polysafe.processes import Crew
from polysafe.search.points import Outcome, Point
from polysafe.search.space import load_space, with_budget
from polysafe.workflows.search import Beside, Found
from polysafe.workflows.search import search as carry_out

if TYPE_CHECKING:
    from polysafe.cluster.pool import Cluster

_ROWS = 10


def search(
    recipe: Path,
    *,
    output: Path,
    trials: int | None,
    minutes: float | None,
    seed: int | None,
    workers: int,
    engine: str,
    address: str | None,
    controls: int,
    data: Path | None,
    as_json: bool,
) -> None:
    """Search, print, and end with exit code 1 where nothing is recommended."""
    space = with_budget(load_space(recipe), trials=trials, minutes=minutes, seed=seed)
    if data is not None:
        space = replace(space, data={**space.data, "data": str(data.absolute())})
    cluster = cluster_of(engine, address)
    with resumable(), progress():
        found = carry_out(space, output, workers=workers, controls=controls, crew=_crew(cluster))
    if as_json:
        print_json(found.to_json())
    else:
        print_found(found)
    if found.choice.point is None:
        raise typer.Exit(1)


def _crew(cluster: Cluster | None) -> Callable[[int], Crew] | None:
    if cluster is None:
        return None
    from polysafe.cluster.pool import RayCrew

    return lambda _: RayCrew(cluster)


def print_found(found: Found) -> None:
    """Print what a search ended in."""
    shown = [point for point in found.judged or found.front if point.outcome is not None]
    shown.sort(key=lambda point: -point.outcome.score if point.outcome else 0)
    title = "read by the judge" if found.judged else "the front: no other point is better in everything"
    _print_points(shown, found, title)
    failed = [point for point in found.points if point.outcome is None]
    print_line(f"{len(found.points)} points tried, {_feasible(found.points)} within the constraints")
    for problem, count in _counted(point.problem for point in failed):
        print_line(f"{count} points could not be made: {problem}")
    _print_agreement(found)
    _print_beside(found.parts, found, "its edits without the others")
    _print_beside(found.controls, found, "its controls")
    for text in found.notes:
        print_line(f"note: {text}")
    if found.choice.point is None:
        print_line(f"nothing is recommended: {found.choice.reason}")
        return
    print_line(f"recommended: {_setting(found.choice.point.setting)}")
    print_line(f"because {found.choice.reason}")
    if found.optimism is not None:
        each = found.optimism
        print_line(
            f"the best of {each.points} points promises {each.promised:+.3f}; expect {each.expected:+.3f} on other "
            f"prompts (bootstrap over {each.prompts} prompts)"
        )
    print_line(f"{found.recipe} makes it without a search")
    note(f"next: `polysafe evaluate {found.recipe} --output …` reports it on prompts that nothing was chosen by")


def _print_points(points: Sequence[Point], found: Found, title: str) -> None:
    if not points:
        return
    names = [each.name for each in found.space.parameters]
    costs = [name for name in ("over_refusal", "helpful", "kl", "size") if _measured(points, name)]
    chosen = found.choice.point
    rows = [
        (
            *(_value(point.setting[name]) for name in names),
            *_reading(point.outcome, costs),
            "recommended" if chosen is not None and point.number == chosen.number else "",
        )
        for point in points[:_ROWS]
        if point.outcome is not None
    ]
    print_table((*names, ">gain", ">p", *(f">{name}" for name in costs), "over", ""), rows, title=title)
    if len(points) > _ROWS:
        print_line(f"and {len(points) - _ROWS} more")


def _reading(outcome: Outcome, costs: Sequence[str]) -> tuple[str, ...]:
    gains = ", ".join(f"{gain['language']} {_span(gain)}" for gain in outcome.gains)
    beyond = sorted({f"{loss['metric']} {loss['language']}" for loss in outcome.losses if not loss["within"]})
    return gains, f"{outcome.p_value:.2g}", *(f"{outcome.costs.get(name, 0):.3g}" for name in costs), ", ".join(beyond)


def _span(change: Mapping[str, Any]) -> str:
    interval = "" if change["low"] is None else f" ({change['low']:+.2f} … {change['high']:+.2f})"
    return f"{change['difference']:+.2f}{interval}, n = {change['n']}"


def _print_agreement(found: Found) -> None:
    rows = [
        (each.language, _number(each.tau), f"{_number(each.low)} … {_number(each.high)}", str(each.points))
        for each in found.agreement
    ]
    if rows:
        print_table(
            ("", ">Kendall's τ", ">95 %", ">points"), rows, title="does the signal order points as the judge does"
        )


def _print_beside(others: Sequence[Beside], found: Found, title: str) -> None:
    chosen = None if found.choice.point is None else found.choice.point.outcome
    if not others or chosen is None:
        return
    rows = [
        (
            each.label,
            ", ".join(f"{gain['language']} {_span(gain)}" for gain in each.outcome.gains),
            f"{each.p_adjusted:.2g}",
            "" if each.outcome.feasible else "costs too much",
        )
        for each in others
    ]
    print_table(("", ">gain", ">p against it", ""), rows, title=title)
    beaten = sum(each.beaten_by(chosen) for each in others)
    print_line(f"shown to gain more than {beaten} of {len(others)} (paired by prompt, Holm)")


def _measured(points: Iterable[Point], name: str) -> bool:
    return any(point.outcome is not None and name in point.outcome.costs for point in points)


def _feasible(points: Iterable[Point]) -> int:
    return sum(point.outcome is not None and point.outcome.feasible for point in points)


def _counted(problems: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem] = counts.get(problem, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _setting(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in setting.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
