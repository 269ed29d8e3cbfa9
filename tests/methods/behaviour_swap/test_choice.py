"""Which blocks are taken, on effects that are made up: gain, costs, budget, sums that mislead, and nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from polysafe.methods.behaviour_swap.choice import Choice, Chooser, Limits, Measured
from polysafe.probe.behaviour import Values

PROMPTS = [str(number) for number in range(12)]
WIGGLE = [0.1 * math.sin(number) for number in range(12)]
LIMITS = Limits(("sw",), ("en",), benign_loss=0.05, over_refusal=0.02)
BEFORE: Values = {
    (language, about): {prompt: -3 + WIGGLE[int(prompt)] for prompt in PROMPTS}
    for language in ("sw", "en")
    for about in ("refused", "over_refusal", "benign")
}


def effect(gain: float, *, benign: float = 0.0, over: float = 0.0, guarded: float = 0.0, noise: float = 1.0) -> Values:
    means = {
        ("sw", "refused"): gain,
        ("sw", "benign"): benign,
        ("sw", "over_refusal"): over,
        ("en", "refused"): guarded,
    }
    return {
        cell: {
            prompt: means.get(cell, 0.0) + (noise * WIGGLE[int(prompt)] if cell == ("sw", "refused") else 0.0)
            for prompt in PROMPTS
        }
        for cell in BEFORE
    }


def added(effects: Sequence[Values]) -> Values:
    return {cell: {prompt: sum(each[cell][prompt] for each in effects) for prompt in PROMPTS} for cell in BEFORE}


def choose(
    effects: Mapping[str, Values], budget: int | None = None, extra: Values | None = None, limits: Limits = LIMITS
) -> Choice:
    """Chooses; with `extra`, several blocks do that besides what each does alone."""

    def joint(names: Sequence[str]) -> tuple[Measured, Measured]:
        parts = [effects[name] for name in names] + ([extra] if extra is not None and len(names) > 1 else [])
        found = limits.measured(BEFORE, added(parts))
        return found, found

    return Chooser(limits, BEFORE, effects, budget).choose(joint)


def test_blocks_of_higher_gain_come_first_up_to_the_budget() -> None:
    found = choose({"a": effect(1.0), "b": effect(3.0), "c": effect(2.0)}, budget=2)
    assert found.taken == ("b", "c")
    assert found.why == {"a": "beyond the budget", "b": "taken", "c": "taken"}
    assert found.additive == pytest.approx(1.0)


def test_a_gain_has_to_be_shown_for_all_blocks_together() -> None:
    """A gain whose own interval lies above 0 is not enough where there are many blocks to choose from."""
    weak = effect(0.06)
    alone = LIMITS.measured(BEFORE, weak)
    assert alone.low > 0
    many = choose({"a": weak, **{f"b{number}": effect(-0.1) for number in range(40)}})
    assert many.taken == ()
    assert many.why["a"] == "is not shown to raise refusals"
    assert many.why["b0"] == "raises no refusals"
    assert choose({"a": weak}).taken == ("a",)


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        ({"benign": -0.06}, "harmless answers in sw lose 0.060 nats"),
        ({"over": 0.5}, "over-refusal in sw rises"),
        ({"guarded": -0.1}, "refusals in en are lost"),
    ],
)
def test_a_block_that_costs_too_much_is_not_taken(cost: dict[str, float], reason: str) -> None:
    found = choose({"a": effect(5.0, **cost), "b": effect(1.0)})
    assert found.taken == ("b",)
    assert found.why["a"].startswith(reason)


def test_costs_are_added_up() -> None:
    found = choose({"a": effect(3.0, benign=-0.03), "b": effect(2.0, benign=-0.03), "c": effect(1.0, benign=-0.01)})
    assert found.taken == ("a", "c")
    assert found.why["b"] == "would cost too much together with those of higher gain"


def test_the_last_goes_back_where_the_sum_misleads() -> None:
    effects = {"a": effect(3.0), "b": effect(2.0), "c": effect(1.0)}
    found = choose(effects, extra=effect(-1.0, benign=-0.06))
    assert found.taken == ("a",)
    assert found.why["b"].startswith("went back: with those taken before, harmless answers")
    less = choose(effects, extra=effect(-3.0))
    assert less.taken == ("a", "b", "c")
    assert less.additive == pytest.approx(0.5, abs=0.01)


def test_what_does_not_show_on_held_out_prompts_is_not_taken() -> None:
    effects = {"a": effect(3.0)}

    def joint(_names: Sequence[str]) -> tuple[Measured, Measured]:
        return LIMITS.measured(BEFORE, effects["a"]), LIMITS.measured(BEFORE, effect(0.0))

    found = Chooser(LIMITS, BEFORE, effects, None).choose(joint)
    assert found.taken == ()
    assert "went back" in found.why["a"]


def test_a_model_that_breaks_is_not_taken() -> None:
    found = choose({"a": effect(math.nan), "b": effect(1.0)})
    assert found.taken == ("b",)
    assert found.singles["a"].plain()["gain"] is None


def test_stepwise_finds_what_does_nothing_alone() -> None:
    effects = {"a": effect(1.0), "b": effect(-0.5), "c": effect(0.5)}

    def together(names: Sequence[str]) -> Values:
        pair = [effect(4.0)] if {"a", "b"} <= set(names) else []
        return added([*(effects[name] for name in names), *pair])

    def joint(names: Sequence[str]) -> tuple[Measured, Measured]:
        found = LIMITS.measured(BEFORE, together(names))
        return found, found

    chooser = Chooser(LIMITS, BEFORE, effects, 2)
    assert chooser.choose(joint, together).taken == ("a", "b")
    assert chooser.choose(joint).taken == ("a", "c")
    assert Chooser(LIMITS, BEFORE, effects, None).choose(joint, together).taken == ("a", "b", "c")
