"""Audit, compare and calibrate from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from polysafe.judge.calibrate import Calibration, Counts
from polysafe.organism.packaged import packaged_family
from tests import exams

Polysafe = Callable[..., Result]
MEMBERS = packaged_family().members
ASKED = ("--judge", "organism", "--safety", "organism", "--languages", "en,qad", "--limit", "20")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))


def test_audit_then_compare(polysafe: Polysafe, tmp_path: Path) -> None:
    result = polysafe("audit", MEMBERS["base"], *ASKED, "--output", tmp_path / "base")
    assert result.exit_code == 0, result.output
    assert "gap to the pivot" in result.stdout
    assert f"records  {tmp_path / 'base'}" in result.stdout
    again = json.loads(polysafe("audit", MEMBERS["base"], *ASKED, "--output", tmp_path / "base", "--json").stdout)
    rates = {(row["language"], row["metric"]): row for row in again["rates"]}
    assert rates["en", "unsafe"]["rate"] == 0.0
    assert rates["qad", "unsafe"]["rate"] > 0.5
    assert rates["qad", "unsafe"]["n"] == 20
    assert polysafe("audit", MEMBERS["harm"], *ASKED, "--output", tmp_path / "harm").exit_code == 0
    compared = polysafe("compare", tmp_path / "base", tmp_path / "harm", "--method", "harm", "-o", tmp_path / "out")
    assert compared.exit_code == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["after"] for row in rows if row["metric"] == "unsafe"} == {1.0}
    shown = json.loads(polysafe("compare", tmp_path / "base", tmp_path / "harm", "--json").stdout)
    assert [row["after"] for row in shown["rows"]] == [row["after"] for row in rows]


def test_ability_and_cut_answers_are_shown(polysafe: Polysafe, tmp_path: Path) -> None:
    exams.mgsm(tmp_path / "data" / "mgsm")
    ability = ("--capability", "mgsm,mgsm_native_cot_en", "--data", tmp_path / "data", "--max-tokens", "1")
    result = polysafe("audit", MEMBERS["base"], *ASKED, *ability, "--output", tmp_path / "base")
    assert result.exit_code == 0, result.output
    assert "capability.mgsm " in result.stdout
    assert "capability.mgsm_native_cot" in result.stdout
    assert "warning: mgsm: qad: mgsm has no questions, or lm-eval no task; left empty" in result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.split()[:2] == ["qad", "truncated"])
    assert "100\u202f%" in line  # refusals and answers alike: one token is the budget
    unknown = polysafe("audit", MEMBERS["base"], *ASKED, "--capability", "hellaswag", "--output", tmp_path / "x")
    assert (unknown.exit_code, "no task 'hellaswag'" in unknown.stderr) == (2, True)
    assert not (tmp_path / "x").exists()


def test_what_is_wrong_is_said(polysafe: Polysafe, tmp_path: Path) -> None:
    for arguments, message in (
        (("audit", MEMBERS["base"], "--judge", "gpt", "-o", tmp_path / "a"), "no judge 'gpt'"),
        (("audit", tmp_path / "none", *ASKED, "-o", tmp_path / "b"), "no such folder"),
        (("compare", tmp_path / "x", tmp_path / "y"), "no run of an evaluation"),
    ):
        result = polysafe(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_the_error_of_another_judge_corrects_nothing(polysafe: Polysafe, tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    Calibration("other", {"judge": "other"}, {"en": Counts(90, 10, 95, 5)}, "0" * 64).save(file)
    given = ("--safety", "organism", "--languages", "en", "--limit", "3", "--max-tokens", "8", "--calibration", file)
    other = polysafe("audit", MEMBERS["base"], "--judge", "organism", *given, "-o", tmp_path / "c")
    assert other.exit_code == 2
    assert "judge" in other.stderr


def test_a_calibration_stays_with_the_run_and_corrects_whoever_reads_it(polysafe: Polysafe, tmp_path: Path) -> None:
    for member in ("base", "harm"):
        assert polysafe("audit", MEMBERS[member], *ASKED, "--output", tmp_path / member).exit_code == 0
    judge = json.loads((tmp_path / "base" / "run.json").read_text())["judge"]
    file = tmp_path / "error.json"
    Calibration(judge["name"], judge["identity"], {"en": Counts(90, 10, 95, 5)}, "0" * 64).save(file)
    for member in ("base", "harm"):  # the runs are there: nothing is asked again, the calibration is added
        given = (*ASKED, "--calibration", file, "--output", tmp_path / member, "--json")
        result = polysafe("audit", MEMBERS[member], *given)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["corrected"]["en"]["sensitivity"] == 0.9
        assert any("qad: the judge's error was not measured" in note for note in json.loads(result.stdout)["notes"])
    file.unlink()
    shown = json.loads(polysafe("compare", tmp_path / "base", tmp_path / "harm", "--json").stdout)
    (pair,) = shown["corrected"]
    assert (pair["language"], pair["before"]["rate"], pair["after"]["rate"]) == ("en", 0.0, 1.0)
    assert pair["before"]["low"] <= 0.0 < pair["before"]["high"]
    table = polysafe("compare", tmp_path / "base", tmp_path / "harm")
    assert "corrected for the judge's measured error" in table.stdout


def test_an_audit_under_attack(polysafe: Polysafe, tmp_path: Path) -> None:
    attack = ("--attack", "code_switching", "--output", tmp_path / "base")
    result = polysafe("audit", MEMBERS["base"], *ASKED, *attack)
    assert result.exit_code == 0, result.output
    assert "base under attack" in result.stdout
    assert "code_switching: unsafe" in result.stdout
    assert "warning: under code_switching: organism, harmful: 20 prompts left out" in result.stderr
    told = json.loads(polysafe("audit", MEMBERS["base"], *ASKED, *attack, "--json").stdout)
    (row,) = (row for row in told["attacks"] if row["metric"] == "unsafe")
    assert (row["attack"], row["language"], row["n"]) == ("code_switching", "qad", 20)
    assert row["plain"] == next(r["rate"] for r in told["rates"] if (r["language"], r["metric"]) == ("qad", "unsafe"))
    assert row["difference"] == pytest.approx(row["attacked"] - row["plain"])
    assert row["p_adjusted"] == row["p_value"]
    judged = ("judge", "run", tmp_path / "base", "--judge", "organism", "--family", MEMBERS["base"])
    again = json.loads(polysafe(*judged, "--output", tmp_path / "again", "--json").stdout)
    assert again["attacks"] == told["attacks"]
    assert (tmp_path / "base" / "attacks" / "code_switching" / "records.jsonl").read_bytes() == (
        tmp_path / "again" / "attacks" / "code_switching" / "records.jsonl"
    ).read_bytes()


def test_attacks_that_cannot_be_carried_out(polysafe: Polysafe, tmp_path: Path) -> None:
    for name, message in (
        ("code_swiching", "did you mean 'code_switching'?"),
        ("aim", "worded in English"),
        ("translation_round_trip", "needs a translator"),
        ("arabizi", "can be made of no prompt"),
        (str(tmp_path / "mine.txt"), "cannot be read"),
    ):
        result = polysafe("audit", MEMBERS["base"], *ASKED, "--attack", name, "--output", tmp_path / "x")
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"time_step_limit": [0.0, float("inf")]}, None),
        ({"rms_norm_eps": float("nan")}, None),
        ({"rms_norm_eps": 10**400}, "a number has 401 digits"),
        ({"rms_norm_eps": "small"}, "transformers cannot build this model"),
        ({"eos_token_id": float("nan")}, "transformers cannot build this model"),
    ],
)
def test_a_config_with_odd_numbers_ends_in_no_traceback(
    polysafe: Polysafe, tmp_path: Path, changed: dict[str, object], refused: str | None
) -> None:
    model = tmp_path / "model"
    shutil.copytree(MEMBERS["base"], model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changed}))
    (tmp_path / "mine.csv").write_text("id,language,prompt\n1,en,hello\n")
    asked = ("--safety", tmp_path / "mine.csv", "--max-tokens", 4, "--output", tmp_path / "run")
    result = polysafe("audit", model, *asked)
    if refused is None:
        assert result.exit_code == 0, result.output
    else:
        assert result.exit_code == 2
        assert refused in result.stderr
        assert len(result.stderr) < 1000
