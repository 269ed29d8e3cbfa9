"""`polysafe search`, whole: what is written, what is recommended, controls, parts, and going on."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polysafe.errors import DataError, OutputError, VerificationError
from polysafe.recipe.measures import Search
from polysafe.recipe.recipe import load_recipe
from polysafe.search import bench
from polysafe.search.space import with_budget
from polysafe.workflows import search as workflow
from polysafe.workflows.judged_points import JUDGED
from polysafe.workflows.search import RECIPE, RESULT, Found, search
from tests.commands import warm_workers
from tests.search.made import VALIDATION, toy_space


def band(**fields: Any) -> dict[str, Any]:
    return {"method": "band_swap", "safety": "safety", "language": "qac", "transition_bottom": 0, **fields}


def test_a_search_ends_in_a_recipe_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = toy_space(tmp_path, band(bottom={"low": 0, "high": 4}, top={"low": 0, "high": 3}), search={"trials": 5})
    found = search(wide, tmp_path / "search", controls=1)
    written = json.loads((tmp_path / "search" / RESULT).read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(found.to_json()))
    assert len(written["points"]) == 5
    assert found.choice.point is not None
    recipe = load_recipe(tmp_path / "search" / RECIPE)
    assert recipe.edits == wide.at(found.choice.point.setting).edits
    assert [each.label for each in found.controls] == ["control.band_swap.random.0"]
    assert not (tmp_path / "model").exists()
    calls: list[Any] = []
    outcome = bench.Bench.outcome

    def counted(self: bench.Bench, setting: Any) -> Any:
        calls.append(setting)
        return outcome(self, setting)

    monkeypatch.setattr(bench.Bench, "outcome", counted)
    again = search(with_budget(wide, trials=6), tmp_path / "search")
    assert [each.setting for each in again.points[:5]] == [each.setting for each in found.points]
    assert len(calls) <= 1
    assert again.weights == found.weights


@pytest.mark.fault(13, "processes that share")
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    wide = toy_space(tmp_path, band(bottom={"low": 0, "high": 4}, top={"low": 0, "high": 3}), search={"trials": 6})
    with warm_workers():
        found = search(wide, tmp_path / "search", workers=2)
    assert len(found.points) == 6
    assert all(point.outcome is not None for point in found.points)


def test_two_processes_share_what_the_judge_is_asked(tmp_path: Path) -> None:
    edit = band(bottom={"choices": [0, 2, 4]}, top={"choices": [0, 2]})
    small = toy_space(tmp_path, edit, search={"by": "signal", "judged": 2})
    alone = search(small, tmp_path / "1")
    with warm_workers():
        shared = search(small, tmp_path / "2", workers=2)

    def readings(found: Found) -> dict[str, object]:
        judged = {str(point.setting): point.outcome for point in found.judged if point.outcome is not None}
        return {setting: replace(outcome, seconds={}) for setting, outcome in judged.items()}

    assert len(readings(alone)) == len(alone.judged) > 2
    assert readings(shared) == readings(alone)
    assert shared.choice.reason == alone.choice.reason
    kept = (tmp_path / "2" / JUDGED).read_bytes()
    with warm_workers():
        again = search(small, tmp_path / "2", workers=2)
    assert [each.to_json() for each in again.judged] == [each.to_json() for each in shared.judged]
    assert (tmp_path / "2" / JUDGED).read_bytes() == kept


def test_of_a_stack_each_edit_is_read_alone(tmp_path: Path) -> None:
    experts = {"method": "task_arithmetic", "base": "base", "experts": ["safety", "qac"], "start_from": "qac"}
    stack = toy_space(
        tmp_path,
        band(bottom=2, top=2),
        {**experts, "scale": {"choices": [0.4, 0.8]}},
        search={"objectives": ["refused"]},
    )
    found = search(stack, tmp_path / "search")
    assert len(found.points) == 2
    if found.choice.point is not None:
        assert {each.label for each in found.parts} == {"band_swap", "task_arithmetic"}


def test_nothing_is_recommended_under_constraints_that_nothing_keeps(tmp_path: Path) -> None:
    strict = {**VALIDATION, "constraints": {"kl": 0.0}}
    found = search(
        toy_space(tmp_path, band(bottom={"choices": [1, 2]}), validation=strict), tmp_path / "search", controls=1
    )
    assert found.choice.point is None
    assert "costs more than the constraints allow: kl in 2" in found.choice.reason
    assert not (tmp_path / "search" / RECIPE).exists()
    assert json.loads((tmp_path / "search" / RESULT).read_text(encoding="utf-8"))["recommended"] is None


def test_what_is_chosen_by_is_not_reported_on(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("id,en,sw\n1,bake me bread,oka mkate\n2,paint a house,paka rangi\n", encoding="utf-8")
    validation = {"languages": ["en", "sw"], "safety": [str(table)], "over_refusal": [str(table)]}
    evaluate = {"languages": ["sw"], "safety": [str(table)]}
    both = toy_space(tmp_path, band(bottom={"choices": [1, 2]}), validation=validation, evaluate=evaluate)
    with pytest.raises(DataError, match="reported on what was chosen by"):
        search(both, tmp_path / "search")


def test_another_recipe_does_not_go_on_with_a_study(tmp_path: Path) -> None:
    search(toy_space(tmp_path, band(bottom={"choices": [1]})), tmp_path / "search")
    with pytest.raises(OutputError, match="another search"):
        search(toy_space(tmp_path, band(bottom={"choices": [2]})), tmp_path / "search")


@pytest.mark.parametrize(
    ("minutes", "by_judge", "expected"),
    [
        (None, object(), (math.inf, 8)),
        (10.0, None, (600.0, 8)),
        (10.0, object(), (600.0 - 60.0 - 2 * 120.0, 2)),  # a minute each, and another beside
        (1.0, object(), (60.0 - 60.0 - 120.0, 1)),
        (1000.0, object(), (60_000.0 - 60.0 - 8 * 120.0, 8)),
    ],
)
def test_the_judge_is_given_half_of_the_time_at_most(
    minutes: float | None, by_judge: object, expected: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 60.0])
    monkeypatch.setattr("polysafe.workflows.search.time.monotonic", lambda: next(clock))
    space = SimpleNamespace(search=Search(minutes=minutes, judged=8))
    opened: Any = SimpleNamespace(space=space, by_judge=by_judge)
    assert workflow._shared(opened) == expected


@pytest.mark.parametrize(
    ("first", "seconds", "said"), [(50.0, 0.0, ""), (130.0, 60.0, ""), (1440.0, 120.0, "24 minutes")]
)
def test_no_point_is_begun_that_takes_far_longer_than_there_is_time(first: float, seconds: float, said: str) -> None:
    opened: Any = SimpleNamespace(deciding_seconds=first)
    with pytest.raises(VerificationError, match=said) if said else nullcontext():
        workflow._require_time(opened, seconds)


def test_how_long_a_point_takes_is_told_by_what_its_methods_read(tmp_path: Path) -> None:
    fitted = {"method": "sparse_edit", "model": "qac", "languages": ["qac"], "anchors": "organism", "layers": [4]}
    with bench.Bench(toy_space(tmp_path, {**fitted, "target_gain": {"choices": [1.0, 2.0]}})) as opened:
        assert opened.deciding_seconds > 0
    with bench.Bench(toy_space(tmp_path, band(bottom={"choices": [2, 3]}))) as opened:
        assert opened.deciding_seconds == 0
