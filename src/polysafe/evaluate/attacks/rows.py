"""What attacks do to a model: the rewritten prompts against the published ones, item by item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polysafe.data.attacks.base import PLUS
from polysafe.evaluate import metrics
from polysafe.evaluate.model_run import ATTACK, ModelRun
from polysafe.evaluate.unread import rates
from polysafe.stats.attacks import AttackRow, adjust_attacks, attack_row
from polysafe.stats.compare import Outcomes

METRICS = (
    "unsafe",
    "refused",
    "invalid",
    "wrong_language",
    "over_refusal",
    "harmless_invalid",
    "harmless_wrong_language",
)
"""Metrics that are compared, as far as they are measured."""


def attack_rows(run: ModelRun, name: str = "") -> list[AttackRow]:
    """Every attack on a model, by metric and language, on the prompts that the attack could be made of.

    Args:
        run: The run of the published prompts.
        name: What the rows call the model; by default as the run does.

    Raises:
        DataError: A run of an attack was changed, or is another model's.
    """
    refusals = metrics.tells_refusals([*run.records, *(r for each in run.attacks.values() for r in each.records)])
    rows: list[AttackRow] = []
    for attack, attacked in run.attacks.items():
        rows += _rows(name or run.name, attack, run, attacked, refusals)
    return adjust_attacks(rows)


def _rows(name: str, attack: str, run: ModelRun, attacked: ModelRun, refusals: bool) -> Iterator[AttackRow]:
    known, after = run.outcomes_where(refusals=refusals), _as_published(attacked, refusals)
    shared = {cell: [item for item in items if item in known[cell]] for cell, items in after.items() if cell in known}
    sides = [
        {cell: {item: side[cell][item] for item in items} for cell, items in shared.items()} for side in (known, after)
    ]
    old, new = ({(row.language, row.metric): row for row in rates(name, side)} for side in sides)
    for cell, items in shared.items():
        if cell[1] in METRICS and items:
            yield attack_row(attack, (old[cell], sides[0][cell]), (new[cell], sides[1][cell]), run.repeated)


def _as_published(attacked: ModelRun, refusals: bool) -> Outcomes:
    """The outcomes of a run of an attack, with items named as in the run of the published prompts."""
    suffix = f"{PLUS}{attacked.attack}"
    names: Mapping[str, str] = {
        record.item: f"{record.prompt.set.removesuffix(suffix)}/{record.prompt.parallel}" for record in attacked.records
    }
    outcomes = attacked.outcomes_where(refusals=refusals)
    return {cell: {names[item]: holds for item, holds in items.items()} for cell, items in outcomes.items()}


def attack_notes(run: ModelRun) -> Iterator[str]:
    """What a reader of a run should know of its attacks: prompts and sets that one could not be made of, verdicts."""
    for name, attacked in run.attacks.items():
        yield from (f"under {name}: left out: {each}" for each in attacked.about[ATTACK].get("left_out", ()))
        for one in attacked.about["sets"]:
            of = f"under {name}: {one['name'].removesuffix(PLUS + name)}, {one['kind']}"
            yield from (f"{of}: {count} prompts left out: {why}" for why, count in dict(one["dropped"]).items())
        if attacked.unread.count:
            yield f"under {name}: {attacked.unread.told}"
