"""Decisions and trials in the terminal: every block once, in its column."""

from __future__ import annotations

from typing import Any

import pytest

from polysafe.cli.decisions import print_decisions, print_operations, print_trials
from tests.report.examples import decisions


def shown(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_blocks_of_a_layer_stand_side_by_side_and_those_outside_below(capsys: pytest.CaptureFixture[str]) -> None:
    print_decisions("swap", decisions(3, ("attention", "mlp")))
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert [
        word.replace("\N{MINUS SIGN}", "-") for word in next(line for line in lines if line[:2] == ["layer", "0"])
    ] == ["layer", "0", "safety", "+0.0200", "language", "-0.0125"]
    assert sum(line[:1] == ["layer"] and line[1].isdigit() for line in lines if len(line) > 1) == 3
    assert "outside the layers" in text
    assert any(line[:1] == ["embedding"] for line in lines)
    assert "borderline: rounding of the inputs could have turned this decision" in text


def test_whole_layers_have_one_column_and_nothing_borderline_is_not_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_decisions("swap", [decision for decision in decisions(2, (None,)) if not decision.borderline][:2])
    text = capsys.readouterr().out
    assert "whole layer" in text
    assert "borderline" not in text
    assert "outside the layers" not in text
    print_decisions("swap", ())
    assert capsys.readouterr().out == ""


def test_operations_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_operations({"copy of safety": 12, "blend": 3})
    assert ["copy", "of", "safety", "12"] in shown(capsys)


def gain(difference: float, low: float | None, language: str = "sw") -> dict[str, Any]:
    high = None if low is None else low + 0.2
    return {"language": language, "difference": difference, "low": low, "high": high, "n": 40}


def test_trials_tell_gain_cost_and_which_was_taken(capsys: pytest.CaptureFixture[str]) -> None:
    loss = {**gain(0.1, 0.05), "metric": "over_refusal"}
    trials = [
        {"layers": [1, 2], "gain": 2.0, "feasible": True, "gains": [gain(-0.5, -0.6)], "p_value": 0.012,
         "losses": [{**loss, "within": True}]},
        {"layers": [3], "gain": 1.0, "feasible": False, "gains": [gain(-0.2, None)], "p_value": 0.2,
         "losses": [{**loss, "within": False}]},
        {"layers": [4], "gain": 1.0, "problem": "singular"},
        {"layers": [5], "gain": 1.0, "shortfall": 0.25},
    ]  # fmt: skip
    print_trials({"trials": trials, "chosen": {"layers": [1, 2], "gain": 2.0}})
    text = capsys.readouterr().out
    taken = [line for line in text.splitlines() if line.rstrip().endswith("taken")]
    assert len(taken) == 1
    assert taken[0].split()[:3] == ["1", "2", "2.0"]
    assert "sw -0.500 (-0.60 … -0.40), n = 40" in text
    assert "sw -0.200, n = 40" in text
    assert text.count("over_refusal sw +0.100") == 1  # what is within its bound is no cost
    assert "singular" in text
    assert "short by 0.250" in text


def test_without_trials_the_ranking_of_layers_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_trials({"ranking": {str(layer): layer / 10 for layer in range(9)}})
    numbers = [line[0] for line in shown(capsys) if line[0].isdigit()]
    assert numbers == ["8", "7", "6", "5", "4", "3"]
    print_trials({})
    assert capsys.readouterr().out == ""
