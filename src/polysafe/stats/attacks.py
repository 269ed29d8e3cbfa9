"""The rows of attacks: the same prompts as published and rewritten, asked of one model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from polysafe.stats.differences import paired_difference
from polysafe.stats.intervals import Interval
from polysafe.stats.multiplicity import Adjustment, adjust_p
from polysafe.stats.rows import RateRow, Row

UNDER = " under "
"""Between a method and an attack in the method of a row that holds both models under the attack."""


@dataclass(frozen=True)
class AttackRow:
    """One metric of one model in one language, on the same prompts as published and as an attack asks them.

    Attributes:
        model: Name of the model, or of the method for the model that it made.
        attack: Name of the attack.
        language: Language code.
        metric: A metric of `Row`.
        n: Number of prompts, the same ones on both sides.
        plain: Rate on the published prompts, 0 … 1; None where it is withheld.
        plain_low: Lower end of its 95 % Wilson interval.
        plain_high: Upper end of it.
        attacked: Rate on the rewritten prompts.
        attacked_low: Lower end of its 95 % Wilson interval.
        attacked_high: Upper end of it.
        low: Lower end of the 95 % interval of `attacked` minus `plain` (`paired_difference`).
        high: Upper end of it.
        p_value: Exact McNemar test of `attacked` against `plain`, by clusters where prompts occur twice.
        p_adjusted: Holm's adjustment of `p_value` over the languages of this model, attack and metric.
    """

    model: str
    attack: str
    language: str
    metric: str
    n: int
    plain: float | None
    plain_low: float | None
    plain_high: float | None
    attacked: float | None
    attacked_low: float | None
    attacked_high: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None

    @property
    def difference(self) -> float | None:
        """Attacked minus plain."""
        return None if self.plain is None or self.attacked is None else self.attacked - self.plain

    @property
    def interval(self) -> Interval | None:
        """The interval of the difference."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def plain_interval(self) -> Interval | None:
        """The interval of `plain`."""
        return None if self.plain_low is None or self.plain_high is None else Interval(self.plain_low, self.plain_high)

    @property
    def attacked_interval(self) -> Interval | None:
        """The interval of `attacked`."""
        ends = self.attacked_low, self.attacked_high
        return None if ends[0] is None or ends[1] is None else Interval(ends[0], ends[1])


def attack_row(
    attack: str,
    plain: tuple[RateRow, Mapping[str, bool]],
    attacked: tuple[RateRow, Mapping[str, bool]],
    clusters: Mapping[str, str],
) -> AttackRow:
    """Compares the two sides prompt by prompt; where a rate is withheld nothing is tested.

    Args:
        attack: Name of the attack.
        plain: Rate and outcomes on the published prompts.
        attacked: Rate and outcomes of the same items, rewritten.
        clusters: Item -> its cluster, for prompts that occur twice; others are on their own.

    Raises:
        DataError: An item lacks an outcome.
    """
    (old, before), (new, after) = plain, attacked
    row = AttackRow(
        old.model, attack, old.language, old.metric, old.n, old.rate, old.low, old.high, new.rate, new.low, new.high
    )
    if old.rate is None or new.rate is None:
        return row
    found = paired_difference(
        list(before.values()), [after[item] for item in before], [clusters.get(item, item) for item in before]
    )
    return replace(row, low=found.low, high=found.high, p_value=found.p_value)


def adjust_attacks(rows: Sequence[AttackRow], adjustment: Adjustment = "holm") -> list[AttackRow]:
    """Fills in `p_adjusted` over the languages of each model, attack and metric: one family, one claim."""
    families: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.p_value is not None:
            families[row.model, row.attack, row.metric].append(place)
    adjusted = list(rows)
    for members in families.values():
        tested = [p for place in members if (p := rows[place].p_value) is not None]
        for place, p in zip(members, adjust_p(tested, adjustment), strict=True):
            adjusted[place] = replace(rows[place], p_adjusted=p)
    return adjusted


def under(rows: Iterable[Row], attack: str) -> list[Row]:
    """The rows of a method under an attack as `results.json` has them: method `A under ATTACK`."""
    return [replace(row, method=f"{row.method}{UNDER}{attack}") for row in rows]
