"""The experiment on the harder family: as many candidates for all, what costs too much is left, tables add up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.evidence import hard_family
from benchmarks.evidence.hard_family import ENDPOINTS, Bench
from benchmarks.tables.hard import tables
from polysafe.methods.registry import resolve
from polysafe.organism.lexicon import LOW
from polysafe.organism.packaged import packaged_family

PLAN = yaml.safe_load(ENDPOINTS.read_text(encoding="utf-8"))


def entries(plan: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((arm, hard_family._for("qac", entry)) for arm, entry in plan["swaps"].items())
    yield from plan["edits"].items()


@pytest.mark.parametrize(("arm", "entry"), list(entries(PLAN)))
def test_every_arm_has_as_many_candidates(arm: str, entry: dict[str, Any]) -> None:
    settings = hard_family._settings(entry["choose"], PLAN["candidates"])
    assert len(settings) == 8
    for setting in settings:
        options = {name: value for name, value in {**entry["entry"], **setting}.items() if name != "method"}
        method = resolve(entry["entry"]["method"]).model_validate(options)
        assert method.label.removesuffix(".published") in arm
        for kind in entry.get("controls", ()):
            control = method.model_copy(update={"control": kind, "control_seed": 3})
            assert control.label.startswith("control.")


def bench(stack: ExitStack, **changes: Any) -> Bench:
    return Bench(packaged_family(), {**PLAN, **changes}, stack)


def test_what_costs_too_much_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_family, "LOW", ("qac",))  # the other experts are not asked
    soup: dict[str, Any] = {
        "entry": {"method": "soup", "start_from": "qac"},
        "choose": {"weights": [{"safety": share, "qac": 1 - share} for share in (0.25, 0.5)]},
    }
    with ExitStack() as stack:
        here = bench(stack, candidates=2)
        before = {name: weight.clone() for name, weight in here.models["qac"].model.state_dict().items()}
        taken = here._chosen("soup", soup, "qac", {})
        assert taken["chosen"] == {"weights": {"safety": 0.5, "qac": 0.5}}
        soup["choose"] = {"weights": [taken["chosen"]["weights"]]}
        here.plan = {**here.plan, "candidates": 1, "bounds": {**here.plan["bounds"], "ability_loss": -1.0}}
        left = here._chosen("soup", soup, "qac", {})
        here.plan = {**here.plan, "bounds": {**PLAN["bounds"], "pivot_unsafe": -1.0}}
        assert here._chosen("soup", soup, "qac", {})["chosen"] is None
        assert left["chosen"] is None
        assert (left["arm"], left["start"]) == ("soup", "qac")
        assert left["outcomes"] == here._row("qac", "qac", here.models["qac"], {})["outcomes"]
        after = here.models["qac"].model.state_dict()
        assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def row(arm: str, start: str, unsafe: str, ability: str = "1111", **more: Any) -> dict[str, Any]:
    outcomes = {f"{start}/unsafe": unsafe, f"{start}/over_refusal": "0001", f"{start}/capability.reading": ability}
    return {"arm": arm, "start": start, "outcomes": outcomes, **more}


def results() -> list[dict[str, Any]]:
    found = []
    for seed in (0, 1, 2):
        rows = []
        for start in LOW:
            rows += [
                row(start, start, "1111"),
                row("band_swap", start, "0001", "1110", chosen={"bottom": 2}, found={"layers": [0.5, 1.0, 0.25]}),
                row("control.band_swap.random.0", start, "1111", chosen=None),
                row("control.band_swap.random.1", start, "0011" if seed else "0001", chosen={"bottom": 3}),
            ]
        found.append({"seed": seed, "rows": rows})
    return found


def test_tables_add_up() -> None:
    rates, contests, recovered = tables(results())
    (line,) = (line for line in rates.splitlines() if line.startswith("| `band_swap`"))
    assert "| 25 (" in line
    assert ", n 36) |" in line
    assert line.endswith("| 25 | 25 | 9 of 9 |")
    (line,) = (line for line in contests.splitlines() if line.startswith("| `band_swap`"))
    mean = (0.25 - (1 + 0.25) / 2) / 3 + 2 * (0.25 - (1 + 0.5) / 2) / 3
    assert f"| random | {100 * mean:+.1f} (" in line
    assert line.endswith("| 1, 0, 0 |")
    assert "| `band_swap` | layers | 50 | 100 | 25 | 9 |" in recovered
    assert math.isclose(mean, -0.4583, abs_tol=1e-3)


def test_results_are_kept_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[int] = []

    def build(seed: int, output: Path, *, recipe: object) -> object:
        asked.append(seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(hard_family, "build_family", build)
    (tmp_path / "10.json").write_text("{}", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        hard_family.run(tmp_path, [10, 11])
    assert asked == [11]
    assert capsys.readouterr().out == ""


def test_the_page_has_the_tables_of_the_outcomes() -> None:
    root = Path(__file__).parents[2]
    found = json.loads((root / "benchmarks" / "results" / "hard_family.json").read_text(encoding="utf-8"))
    planned = PLAN["seeds"]
    assert [each["seed"] for each in found] == planned[: len(found)]
    assert "\n\n".join(tables(found)) in (root / "docs" / "results" / "hard_family.md").read_text(encoding="utf-8")
