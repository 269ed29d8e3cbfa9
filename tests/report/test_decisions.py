from __future__ import annotations

import pytest

from polysafe.report import Decision
from polysafe.report.decisions import describe, lay_out
from tests.report.examples import decisions


def test_modules_are_rows_and_layers_are_columns() -> None:
    laid = lay_out("qac", decisions(8, ("attention", "mlp")))
    assert laid.layers == tuple(range(8))
    assert [name for name, _ in laid.rows] == ["attention", "mlp"]
    attention = [cell.letter if cell else "" for cell in laid.rows[0][1]]
    assert attention == list("SLBSLBSL")
    assert [name for name, _ in laid.outside] == ["embedding"]
    assert laid.summary == "8 layers, 16 blocks: 6 language, 5 safety, 5 blend; 5 borderline"


@pytest.mark.parametrize(("layers", "density"), [(8, "scores"), (16, "letters"), (32, "colours"), (80, "colours")])
def test_room_in_a_cell(layers: int, density: str) -> None:
    laid = lay_out("qac", decisions(layers, (None,)))
    assert laid.density == density
    assert [name for name, _ in laid.rows] == ["whole layer"]
    assert len(laid.rows[0][1]) == layers


def test_a_layer_without_a_decision_stays_empty() -> None:
    """Layers are keyed by index: in hybrids some have no attention block."""
    chosen = [d for d in decisions(4, ("attention", "mlp")) if d.block != "layers.2.attention"]
    attention = dict(lay_out("qac", chosen).rows)["attention"]
    assert [cell is None for cell in attention] == [False, False, True, False]


def test_a_huge_layer_index_costs_one_column() -> None:
    laid = lay_out("qac", [Decision(block="layers.9", layer=10**12, choice="safety", safety_weight=1.0)])
    assert laid.layers == (10**12,)


def test_titles_carry_score_and_borderline() -> None:
    cell = lay_out("qac", decisions(3, (None,))).rows[0][1][2]
    assert cell is not None
    assert cell.title == "layers.2: blend, 50\N{NARROW NO-BREAK SPACE}% safety, d = +0.0009, borderline"
    assert cell.score == "+.001"


def test_an_unknown_choice_is_kept_in_words() -> None:
    decision = Decision(block="layers.0", layer=0, choice="base", safety_weight=0.0)
    laid = lay_out("qac", [decision])
    assert describe(decision) == "base"
    cell = laid.rows[0][1][0]
    assert cell is not None
    assert (cell.choice, cell.letter) == ("other", "?")


def test_no_decisions_give_an_empty_map() -> None:
    laid = lay_out("qac", [])
    assert laid.layers == ()
    assert laid.rows == ()
    assert laid.outside == ()
