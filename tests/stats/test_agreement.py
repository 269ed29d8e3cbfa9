"""Agreement of raters: against the textbook's formulas, and what its interval is drawn from."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest

from polysafe.stats import agreement
from polysafe.stats.agreement import Agreement, Labels, agreements

FIRST = "uuuusssusu"
SECOND = "uuussssuuu"
THIRD = "usuusussuu"


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "RESAMPLES", 50)


def rated(*raters: str) -> dict[str, dict[str, str]]:
    """Raters a, b, … with one letter for every item."""
    return {name: {f"{i}": label for i, label in enumerate(said)} for name, said in zip("abc", raters, strict=False)}


def found(labels: Labels, answers_of_a_prompt: int = 1, seed: int = 0) -> list[Agreement]:
    items = {item for each in labels.values() for item in each}
    prompts = {item: f"{int(item) // answers_of_a_prompt}" for item in items}
    return list(agreements("sw", "label", labels, prompts, seed=seed))


def kappa(first: str, second: str) -> float:
    """Cohen 1960."""
    n = len(first)
    same = sum(one == other for one, other in zip(first, second, strict=True)) / n
    chance = sum(first.count(label) * second.count(label) for label in set(first)) / n**2
    return (same - chance) / (1 - chance)


def alpha(*raters: str) -> float:
    """Krippendorff's, nominal, from the pairs of labels of every item."""
    pairs: Counter[tuple[str, str]] = Counter()
    for said in zip(*raters, strict=True):
        for pair in permutations(said, 2):
            pairs[pair] += 1
    given = Counter("".join(raters))
    n = given.total()
    observed = sum(count for (one, other), count in pairs.items() if one != other) / (len(raters) - 1)
    expected = sum(given[one] * given[other] for one, other in permutations(given, 2)) / (n - 1)
    return 1 - observed / expected


def test_every_two_and_all_raters_have_the_textbooks_coefficient() -> None:
    raters = [FIRST, SECOND, THIRD]
    rows = found(rated(*raters), answers_of_a_prompt=2)
    assert [(row.language, row.of, row.raters, row.coefficient) for row in rows] == [
        ("sw", "label", ("a", "b"), "kappa"),
        ("sw", "label", ("a", "c"), "kappa"),
        ("sw", "label", ("b", "c"), "kappa"),
        ("sw", "label", ("a", "b", "c"), "alpha"),
    ]
    wanted = [kappa(FIRST, SECOND), kappa(FIRST, THIRD), kappa(SECOND, THIRD), alpha(*raters)]
    assert [row.value for row in rows] == pytest.approx(wanted)
    assert [(row.n, row.same) for row in rows] == [(10, 8), (10, 6), (10, 6), (10, 5)]


def test_only_answers_that_two_raters_labelled_count() -> None:
    labels = rated(FIRST, SECOND)
    labels["a"]["77"] = labels["b"]["78"] = "u"
    assert found(labels) == found(rated(FIRST, SECOND))
    assert found({"a": labels["a"], "b": {}}) == []


def test_answers_of_one_prompt_are_drawn_together() -> None:
    """Three copies of every answer tell no more than one: neither the coefficient nor its interval moves."""
    (once, _), (copied, _) = (
        found(rated(FIRST, SECOND)),
        found(rated(*("".join(3 * c for c in r) for r in (FIRST, SECOND))), 3),
    )
    assert (copied.value, copied.low, copied.high) == pytest.approx((once.value, once.low, once.high))
    assert once.low is not None
    assert once.high is not None
    assert once.value is not None
    assert once.low < once.value < once.high <= 1.0
    assert (copied.n, copied.same) == (30, 24)


def test_the_seed_of_the_draws_decides_the_interval() -> None:
    labels = rated(FIRST, THIRD)
    assert found(labels, seed=1) == found(labels, seed=1)
    assert {(row.low, row.high) for row in found(labels, seed=1)} != {
        (row.low, row.high) for row in found(labels, seed=2)
    }


def test_what_cannot_be_told_is_none() -> None:
    for row in found(rated("uuu", "uuu")):
        assert (row.value, row.low, row.high, row.n, row.same) == (None, None, None, 3, 3)
    for row in found(rated("uus", "uss"), answers_of_a_prompt=3):
        assert row.value is not None
        assert (row.low, row.high) == (None, None)


def test_progress_moves_once_for_every_coefficient() -> None:
    steps: list[None] = []
    labels = rated(FIRST, SECOND, THIRD)
    rows = agreements("sw", "label", labels, {item: item for item in labels["a"]}, advance=lambda: steps.append(None))
    assert len(list(rows)) == len(steps) == 4
