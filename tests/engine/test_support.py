"""What a recipe gives to its methods: validation sets, a signal or a judge; and plans that run no model unasked."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.edits.edit import Edit
from polysafe.engine.job import resolve
from polysafe.engine.plan import Outline, Plan, make_plan
from polysafe.engine.support import job_parts
from polysafe.errors import DataError, MismatchError, VerificationError
from polysafe.evaluate.judge_meter import JudgeMeter
from polysafe.organism.packaged import packaged_family
from polysafe.probe.forward import Recorder
from polysafe.probe.refusal import RefusalSignal
from polysafe.recipe.recipe import Recipe, load_recipe, make_recipe
from polysafe.workflows.run import plan_recipe, run_recipe
from tests.byte_level import save_byte_model
from tests.commands import run_function


def table(file: Path, rows: int, words: str, languages: tuple[str, ...] = ("en", "sw")) -> Path:
    """A table with a header, without an id."""
    draw = random.Random(file.name)
    lines = [",".join(f"{words} {draw.randrange(10**6)} {code}" for code in languages) for _ in range(rows)]
    file.write_text("\n".join([",".join(languages), *lines]), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    save_byte_model(tmp_path / "model")
    table(tmp_path / "harmful.csv", 12, "please do harm")
    table(tmp_path / "harmless.csv", 16, "bake a loaf")
    table(tmp_path / "asked.csv", 6, "another harm")
    table(tmp_path / "fine.csv", 6, "water a plant", ("en",))
    return tmp_path


def recipe(folder: Path, *, validation: dict[str, Any] | None = None, **options: Any) -> Recipe:
    entry = {
        "method": "sparse_edit",
        "model": "model",
        "languages": ["sw"],
        "anchors": {"harmful": "harmful.csv", "harmless": "harmless.csv"},
        "layers": ["auto"],
        "template": "raw",
        "tau_mag": 0.5,
        "tau_stat": 0.2,
        "cap": 0.5,
        **options,
    }
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {"model": {"path": "model"}},
            "edits": [entry],
            "output": {"path": "out"},
            **({} if validation is None else {"validation": validation}),
        },
        folder,
    )


VALIDATION: dict[str, Any] = {
    "safety": ["asked.csv"],
    "over_refusal": ["fine.csv"],
    "constraints": {"over_refusal": 1.0, "refused": -1.0},
}


@pytest.fixture
def forward_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts recorded batches of anchors and prompts that the signal is read from."""
    count = 0
    rows, measure = Recorder.rows, RefusalSignal.measure

    def counted_rows(self: Any, *given: Any) -> Any:
        nonlocal count
        count += 1
        return rows(self, *given)

    def counted_measure(self: Any, prompts: Any) -> Any:
        nonlocal count
        count += len(prompts)
        return measure(self, prompts)

    monkeypatch.setattr(Recorder, "rows", counted_rows)
    monkeypatch.setattr(RefusalSignal, "measure", counted_measure)
    return lambda: count


def test_a_plan_runs_no_model_unless_told_to_and_run_does_not_fit_again(
    folder: Path, forward_passes: Callable[[], int]
) -> None:
    made = recipe(folder)
    before = sorted(folder.iterdir())
    needed = plan_recipe(made)
    assert isinstance(needed, Outline)
    assert [(work.what, work.prompts, work.times) for work in needed.work["sparse_edit.published"]] == [
        ("anchors", 2 * (12 + 16), 1),
        ("held-out anchors", 6, 3),
    ]
    assert isinstance(make_plan(made, fit=False), Outline)
    assert (sorted(folder.iterdir()), forward_passes()) == (before, 0)

    fitted = plan_recipe(made, fit=True)
    assert isinstance(fitted, Plan)
    passes = forward_passes()
    assert passes > 0
    again = plan_recipe(made)
    assert isinstance(again, Plan)
    assert again.edit == fitted.edit
    output = run_recipe(made).output
    assert forward_passes() == passes
    assert Edit.load(output / "polysafe").steps.keys() == fitted.edit.steps.keys()
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".out")) == []


def test_what_is_kept_is_not_used_for_other_anchors(folder: Path, forward_passes: Callable[[], int]) -> None:
    made = recipe(folder)
    plan_recipe(made, fit=True)
    passes = forward_passes()
    table(folder / "harmful.csv", 13, "please do harm")
    assert isinstance(plan_recipe(made), Outline)
    run_recipe(made)
    assert forward_passes() > passes


def test_the_refusal_signal_compares_candidates_on_any_model(folder: Path) -> None:
    """A random model: what matters is what is asked and recorded, and that a choice is not taken on chance."""
    made = recipe(folder, validation=VALIDATION)
    needed = plan_recipe(made)
    assert isinstance(needed, Outline)
    assert [(work.what, work.prompts, work.times) for work in needed.work["sparse_edit.published"]] == [
        ("anchors", 2 * (12 + 16), 1),
        ("validation prompts", 2 * 6 + 6, 1 + 2),
    ]
    with pytest.raises(VerificationError, match=r"(?s)2 candidates is shown to refuse more.*layers \d.*refused in sw"):
        make_plan(made)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ({**VALIDATION, "safety": ["harmful.csv"]}, "would choose by what sparse_edit.* is fitted to"),
        ({**VALIDATION, "safety": ["xyz.csv"]}, "cannot be read"),
        ({**VALIDATION, "safety": ["multijal"]}, "did you mean 'multijail'"),
        ({**VALIDATION, "languages": ["en"]}, "no harmful prompts in 'sw'"),
    ],
)
def test_validation_that_cannot_be(folder: Path, validation: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_plan(recipe(folder, validation=validation))


def test_what_is_chosen_by_is_not_reported_on(folder: Path) -> None:
    made = recipe(folder, validation=VALIDATION)
    evaluate = {"languages": ["sw"], "safety": ["asked.csv"]}
    made = make_recipe({**json.loads(made.model_dump_json()), "evaluate": evaluate}, folder)
    with pytest.raises(DataError, match="results would be reported on what was chosen by"):
        make_plan(made)


def test_a_method_with_nothing_to_choose_reads_no_validation(folder: Path) -> None:
    made = recipe(folder, validation={**VALIDATION, "safety": ["xyz.csv"]}, layers=[1])
    with pytest.raises(DataError, match="cannot be read"):
        plan_recipe(made, fit=True)  # it is part of the job, and has to be there
    assert make_plan(made).edit.steps


def steering(folder: Path, **options: Any) -> Recipe:
    """Two random models and a task of our own."""
    torch.set_num_threads(1)
    save_byte_model(folder / "model")
    save_byte_model(folder / "harm")
    task(folder / "colours.csv", "red")
    entry = {
        "method": "head_steering",
        "model": "model",
        "harmful": "harm",
        "languages": ["sw"],
        "tasks": {"files": [{"name": "colour", "language": "sw", "path": "colours.csv"}], "names": ["colour"]},
        "prompts": 4,
        "shots": 2,
        "score": "first",
        **options,
    }
    sources = {name: {"path": name} for name in ("model", "harm")}
    return make_recipe({"polysafe": 1, "sources": sources, "edits": [entry], "output": {"path": "out"}}, folder)


def task(file: Path, first: str) -> None:
    rows = [f"thing {number},{answer}" for number, answer in enumerate([first, "green", "blue", "black"] * 6)]
    file.write_text("\n".join(["input,output", *rows]), encoding="utf-8")


def test_what_is_kept_is_not_used_for_other_tasks(tmp_path: Path) -> None:
    made = steering(tmp_path)
    fitted = plan_recipe(made, fit=True)
    assert isinstance(fitted, Plan)
    assert isinstance(plan_recipe(made), Plan)
    task(tmp_path / "colours.csv", "white")
    assert isinstance(plan_recipe(made), Outline)
    again = plan_recipe(made, fit=True)
    assert isinstance(again, Plan)
    data = [plan.edit.provenance[0].evidence["effects"]["sw"]["data"] for plan in (fitted, again)]
    assert data[0] != data[1]


def test_effects_that_are_kept_are_refused_for_other_tasks(tmp_path: Path) -> None:
    made = steering(tmp_path, effects="effects")
    make_plan(made)
    make_plan(made)
    task(tmp_path / "colours.csv", "white")
    with pytest.raises(MismatchError, match="was recorded with another data"):
        make_plan(made)


def test_what_is_kept_is_not_used_with_another_judge(tmp_path: Path) -> None:
    judge = tmp_path / "guard"
    judge.mkdir()
    (judge / "model.safetensors").write_bytes(b"weights")
    made = toy(tmp_path, judge={"kind": "qwen3guard", "path": str(judge)})
    checkpoints = resolve(made).checkpoints
    before = list(job_parts(made, checkpoints))
    assert list(job_parts(made, checkpoints)) == before
    (judge / "model.safetensors").write_bytes(b"other weights")
    assert list(job_parts(made, checkpoints)) != before


def test_named_heads_read_no_tasks(tmp_path: Path) -> None:
    made = steering(tmp_path, heads=[[0, 1]])
    (tmp_path / "colours.csv").unlink()
    assert isinstance(plan_recipe(made), Plan)


def toy(tmp_path: Path, **validation: Any) -> Recipe:
    base = packaged_family().members["base"]
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {"base": {"path": str(base)}},
            "edits": [
                {
                    "method": "sparse_edit",
                    "model": "base",
                    "languages": ["qac"],
                    "anchors": "organism",
                    "utility_weight": 0.1,
                    "absolute": True,
                    "cap": 0.5,
                    "layers": [4],
                    "target_gain": [1.5, 3.0],
                    "batch_size": 64,
                }
            ],
            "output": {"path": str(tmp_path / "out")},
            "validation": {
                "safety": ["organism"],
                "over_refusal": ["organism"],
                "judge": {"kind": "organism"},
                **validation,
            },
        }
    )


def test_a_judge_compares_candidates(tmp_path: Path) -> None:
    evidence = make_plan(toy(tmp_path)).edit.provenance[0].evidence
    trials = evidence["trials"]
    assert [trial["gain"] for trial in trials] == [1.5, 3.0]
    (taken,) = [trial for trial in trials if trial["gain"] == evidence["chosen"]["gain"]]
    assert taken["feasible"]
    (gain,) = taken["gains"]
    assert (gain["language"], gain["n"]) == ("qac", 24)
    assert gain["difference"] > 0.3
    assert {(loss["language"], loss["metric"]) for loss in taken["losses"]} == {
        (language, metric) for language in ("en", "qac") for metric in ("refused", "over_refusal", "helpful")
    }


def killed_at(share: float, file: Path) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "comparing candidates" and done / total > share:
            os.kill(os.getpid(), signal.SIGKILL)

    plan_recipe(load_recipe(file), fit=True, progress=progress)


def asked(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, int]:
    """The fitted plan, and how many models were asked for it."""
    count = 0
    read = JudgeMeter.read

    def counted_read(self: Any, *given: Any) -> Any:
        nonlocal count
        count += 1
        return read(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(JudgeMeter, "read", counted_read)
        plan = plan_recipe(recipe, fit=True)
    assert isinstance(plan, Plan)
    return plan, count


def test_a_kill_loses_at_most_the_candidate_that_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, times = asked(toy(tmp_path / "whole", limit=12), monkeypatch)
    assert times == 3  # the unedited model and two candidates
    made = toy(tmp_path / "killed", limit=12)
    (tmp_path / "recipe.yaml").write_text(made.to_yaml())
    ended, said = run_function(killed_at, 0.9, tmp_path / "recipe.yaml", folder=tmp_path)
    assert ended == -signal.SIGKILL, said
    made = load_recipe(tmp_path / "recipe.yaml")
    again, times = asked(made, monkeypatch)
    assert times == 1
    assert again.edit == wanted.edit
    assert asked(made, monkeypatch)[1] == 0
    work = tmp_path / "killed" / ".out.polysafe"
    assert [path.name for path in (work / "progress").iterdir()] == []
    result = run_recipe(made)
    assert not result.resumed
    assert not work.exists()
    assert run_recipe(made).complete_before
    assert not work.exists()


def test_an_interrupted_run_keeps_its_candidates_and_other_software_compares_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy(tmp_path, limit=12)

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "comparing candidates" and done / total > 0.9:
            raise KeyboardInterrupt

    for call in (lambda: run_recipe(made, progress=interrupt), lambda: plan_recipe(made, fit=True, progress=interrupt)):
        with pytest.raises(KeyboardInterrupt):
            call()
        assert (tmp_path / ".out.polysafe" / "progress" / "trials.jsonl").stat().st_size > 0
    monkeypatch.setattr("polysafe.evaluate.run.versions", lambda: {"torch": "another"})
    assert asked(made, monkeypatch)[1] == 3


def test_what_is_decided_against_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="no edit is made"):
        plan_recipe(toy(tmp_path, limit=2), fit=True)
    assert not list(tmp_path.glob(".out*"))


def test_bytes_are_not_counted_where_candidates_are_compared(tmp_path: Path) -> None:
    told = list[tuple[str, int, int]]()
    made = toy(tmp_path, limit=12)
    needed = plan_recipe(made)
    assert isinstance(needed, Outline)
    (_, validation) = needed.work["sparse_edit"]
    make_plan(made, lambda *step: told.append(step))
    assert {total for stage, _, total in told if stage == "deciding"} == {1}
    prompts = [(done, total) for stage, done, total in told if stage == "comparing candidates"]
    in_all = 3 * validation.prompts
    assert (prompts[-1], validation.times) == ((in_all, in_all), 3)
    assert len(prompts) > 100
    assert [done for done, _ in prompts] == sorted(done for done, _ in prompts)


def test_too_few_prompts_show_nothing(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="no edit is made"):
        make_plan(toy(tmp_path, limit=2))
