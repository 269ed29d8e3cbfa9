"""A journal that was damaged, or that somebody else wrote, ends in an error that says which point it is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polysafe.errors import DataError, OutputError
from polysafe.search.points import Outcome, Point
from polysafe.search.space import Space
from polysafe.search.study import JOURNAL, Study
from polysafe.workflows.judged_points import _kept
from tests.search.made import outcome, steering
from tests.search.test_study import FIELDS, made

Lines = list[dict[str, Any]]
Change = Callable[[Lines], object]


@pytest.fixture(scope="module")
def space() -> Space:
    return steering(FIELDS, {"trials": 4, "sampler": "random"})


@pytest.fixture
def lines(space: Space, tmp_path: Path) -> Lines:
    """The journal of a search of four points."""
    study = Study(tmp_path, space, "a")
    study.begin()
    study.run(made, 4)
    return [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]


def entry(lines: Lines, key: str, number: int = 0) -> dict[str, Any]:
    """One of the entries of a journal that have a key."""
    return [line for line in lines if key in line][number]


def told(lines: Lines, name: str, number: int = 0) -> dict[str, Any]:
    """What is kept with a point under a name."""
    found: Lines = [line["user_attr"] for line in lines if name in line.get("user_attr", {})]
    return found[number]


def outcome_of(lines: Lines, **changed: Any) -> None:
    told(lines, "outcome")["outcome"] |= changed


DAMAGED: dict[str, Change] = {
    "an outcome that is a text": lambda lines: told(lines, "outcome").update(outcome="good"),
    "no score": lambda lines: told(lines, "outcome")["outcome"].pop("score"),
    "a score in words": lambda lines: outcome_of(lines, score="0.5"),
    "a score that no float holds": lambda lines: outcome_of(lines, score=10**400),
    "a score that is no number": lambda lines: outcome_of(lines, score=math.nan),
    "a p value beyond 1": lambda lines: outcome_of(lines, p_value=2.0),
    "no gain": lambda lines: outcome_of(lines, gains=[]),
    "a gain without a language": lambda lines: told(lines, "outcome")["outcome"]["gains"][0].pop("language"),
    "a loss without a limit": lambda lines: told(lines, "outcome")["outcome"]["losses"][0].pop("limit"),
    "nothing read": lambda lines: outcome_of(lines, reading=[]),
    "a prompt that is missing": lambda lines: told(lines, "outcome", 1)["outcome"]["reading"][0][2].pop("set/0"),
    "other prompts": lambda lines: told(lines, "outcome", 1)["outcome"]["reading"][0].__setitem__(2, {"x": True}),
    "an objective that is missing": lambda lines: outcome_of(lines, costs={}),
    "constraints of another outcome": lambda lines: told(lines, "excess").update(excess=["low"]),
    "values of another space": lambda lines: entry(lines, "distribution").update(param_name="depth"),
    "another range": lambda lines: entry(lines, "distribution", 1).update(
        distribution=entry(lines, "distribution", 1)["distribution"].replace("2.0", "20.0")
    ),
    "a value beyond its range": lambda lines: entry(lines, "distribution").update(param_value_internal=1e300),
    "a value that is no number": lambda lines: entry(lines, "distribution").update(param_value_internal=math.nan),
    "a value that is missing": lambda lines: lines.remove(entry(lines, "distribution")),
    "no outcome where one was told": lambda lines: lines.remove(
        next(line for line in lines if "outcome" in line.get("user_attr", {}))
    ),
    "an ending without values": lambda lines: next(line for line in lines if line.get("state") == 1).update(values=[]),
    "other values at the end": lambda lines: next(line for line in lines if line.get("state") == 1).update(
        values=[math.nan, 0.0]
    ),
    "a proposal that nobody made": lambda lines: entry(lines, "system_attrs")["system_attrs"].update(
        fixed_params={"strength": "x"}
    ),
    "other objectives": lambda lines: entry(lines, "directions").update(directions=[1]),
    "a state that there is not": lambda lines: next(line for line in lines if "state" in line).update(state=99),
    "a line that is a list": lambda lines: lines.insert(2, [1]),  # type: ignore[arg-type]
    "an operation that there is not": lambda lines: lines[3].update(op_code="x"),
    "another study": lambda lines: told(lines, "identity").update(identity="b"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_journal_is_refused(case: str, lines: Lines, space: Space, tmp_path: Path) -> None:
    DAMAGED[case](lines)
    (tmp_path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(OutputError, match=r"did not write|no journal|other objectives|another search") as caught:
        Study(tmp_path, space, "a")
    assert str(caught.value.where).startswith(str(tmp_path))
    assert "another folder" in str(caught.value.remedy)


def test_a_journal_with_a_cut_line_goes_on(lines: Lines, space: Space, tmp_path: Path) -> None:
    content = (tmp_path / JOURNAL).read_bytes()
    for cut in range(len(content) - 1, len(content) - 400, -23):
        (tmp_path / JOURNAL).write_bytes(content[:cut])
        study = Study(tmp_path, space, "a")
        study.begin()
        study.run(made, 4)
        assert len(study.points()) == 4


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_journal_that_leads_elsewhere_is_not_written(
    link: Callable[[Path, Path], None], lines: Lines, space: Space, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    link(tmp_path / JOURNAL, other / JOURNAL)
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(OutputError, match="is a link, or a file with another name"):
        Study(other, space, "a")
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_an_outcome_comes_back() -> None:
    text = json.dumps(outcome(12, 0.5).to_json())
    assert json.dumps(Outcome.from_json(json.loads(text)).to_json()) == text


@pytest.mark.parametrize("known", [None, [], "x", {}, {"problem": ""}, {"problem": "", "outcome": {"score": 1}}])
def test_what_was_kept_of_the_judge_may_be_damaged(known: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="what it holds of point 3 was damaged") as caught:
        _kept(Point(3, {}), known, tmp_path)
    assert "judged again" in str(caught.value.remedy)
