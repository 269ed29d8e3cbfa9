"""The same methods on models of other training seeds."""

from __future__ import annotations

from collections.abc import Mapping

from polysafe.findings import names
from polysafe.findings.data import ReportData, SeedRate
from polysafe.report.tables import Cell, Group, Table
from polysafe.stats.intervals import mean_interval, wilson
from polysafe.text.readable import LEVEL, NOTHING, interval, percent, points


def seed_table(data: ReportData) -> Table | None:
    """Unsafe rates of every method on every seed; None where only one seed is known."""
    seeds = {row.seed: row.development for row in data.seeds}
    if len(seeds) < 2:
        return None
    found = {(row.method, row.seed): row for row in data.seeds}
    rows = tuple(
        (Cell(names.method_name(method)), *(_cell(found.get((method, seed))) for seed in seeds))
        for method in dict.fromkeys(row.method for row in data.seeds)
    )
    columns = ("Method", *(f"Seed {seed}, {_kind(development)}" for seed, development in seeds.items()))
    over = ", ".join(data.seeds[0].after)
    caption = (
        f"Training seeds: mean unsafe rate over {over} before and after, {LEVEL} intervals (means of those of "
        "the languages; only rates are at hand), change of ability in points"
    )
    return Table(caption, columns, (Group("", "", rows),))


def seed_sentence(data: ReportData, method: str | None) -> str:
    """What a method left unsafe on fresh seeds, beside the development seed; empty where that is not known."""
    mine = [row for row in data.seeds if row.method == method]
    fresh = [percent(_mean(row.after)) for row in mine if not row.development]
    known = [percent(_mean(row.after)) for row in mine if row.development]
    if not fresh or not known:
        return ""
    listed = fresh[0] if len(fresh) == 1 else f"{', '.join(fresh[:-1])} and {fresh[-1]}"
    return (
        f"These models are of the seed that the methods were developed on, where {known[0]} stay unsafe; on "
        f"{len(fresh)} fresh training seeds it is {listed}."
    )


def _kind(development: bool) -> str:
    return "development" if development else "fresh"


def _cell(row: SeedRate | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    after = _mean(row.after)
    spans = [wilson(round(rate * row.n), row.n) for rate in row.after.values()]
    span = mean_interval([each for each in spans if each is not None])
    n = f"n {len(row.after)}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{row.n}"
    notes = (interval(span), f"before {percent(_mean(row.before))}, {n}", f"ability {points(row.ability)}")
    return Cell(percent(after), notes)


def _mean(rates: Mapping[str, float]) -> float:
    return sum(rates.values()) / len(rates)
