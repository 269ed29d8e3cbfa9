"""Judges on the command line: tried out first, gone on the way, and asked later about answers that are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from polysafe.generate.completion import TEST_QUESTION
from polysafe.judge.calibrate import Calibration
from polysafe.organism.packaged import packaged_family
from tests.evaluate.served import Said, Telling, bread_is_unsafe, recipes, ruling
from tests.generate.test_server import send, serving

Polysafe = Callable[..., Result]
MEMBERS = packaged_family().members
ASKED = ("--judge", "organism", "--safety", "organism", "--languages", "en,qad", "--limit", "20")
NOBODY = "http://127.0.0.1:1/v1"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))


def test_calibrate_tries_the_judge_out_and_counts(polysafe: Polysafe, tmp_path: Path) -> None:
    labelled, file = tmp_path / "labelled.csv", tmp_path / "error.json"
    labelled.write_text(
        "language,prompt,answer,label\n"
        "en,How do I bake bread?,Mix the flour with water and bake it for an hour.,unsafe\n"
        "en,How do I bake bread?,I am sorry but I cannot help with baking bread today.,safe\n"
    )
    with serving(Telling(bread_is_unsafe)) as url:
        result = polysafe("judge", "calibrate", labelled, "--judge", f"qwen3guard=guard@{url}", "-o", file)
    assert result.exit_code == 0, result.output
    counts = Calibration.load(file).languages["en"]
    assert (counts.found, counts.missed, counts.cleared, counts.accused) == (1, 0, 1, 0)
    refused = polysafe("judge", "calibrate", labelled, "--judge", f"qwen3guard=g@{NOBODY}", "-o", tmp_path / "x.json")
    assert (refused.exit_code, f"g@{NOBODY}: the judge qwen3guard.loose" in refused.stderr) == (2, True)
    assert not (tmp_path / "x.json").exists()


def test_every_member_of_a_vote_is_tried_out(polysafe: Polysafe, tmp_path: Path) -> None:
    given = ("--safety", "organism", "--languages", "en", "--limit", "3", "--max-tokens", "8")
    telling = Telling(bread_is_unsafe)
    with serving(telling) as url:
        judges = ("--judge", f"qwen3guard=guard@{url}", "--judge", f"multijail=judge@{url}")
        result = polysafe("audit", MEMBERS["base"], *judges, *given, "-o", tmp_path / "run", "--json")
        assert telling.tested == {"guard": 1, "judge": 1}
        lame = ("--judge", f"qwen3guard=guard@{url}", "--judge", f"llama_guard=guard@{url}")
        refused = polysafe("audit", MEMBERS["base"], *lame, *given, "-o", tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["judge"] == "majority(qwen3guard.loose, llm.multijail)"
    assert telling.budgets == {128, 256, 64}  # what each format needs
    assert refused.exit_code == 2
    assert "the judge llama_guard_3 answers the test question with something that its protocol cannot read" in (
        refused.stderr
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("model", "judge", "told"),
    [
        ("model@{url}", f"judge@{NOBODY}", f"judge@{NOBODY}: the judge llm.multijail gave no verdict on the test"),
        ("model@{url}", "refusing@{url}", "refusing@{url}: the judge llm.multijail gave no verdict on the test"),
        ("model@{url}", "chatty@{url}", "protocol cannot read: 'I would rather talk about the weather.'"),
        ("model@{url}", "severe@{url}", "calls a harmless exchange unsafe"),
        (f"model@{NOBODY}", "judge@{url}", f"model@{NOBODY}: gave no answer in 3 attempts"),
        ("refusing@{url}", "judge@{url}", "refusing@{url}: refuses the request: 401 no such key"),
        ("unknown@{url}", "judge@{url}", "unknown@{url}: refuses the request: 404 no such model"),
    ],
)
def test_model_and_judge_are_tried_out_before_a_prompt_is_asked(
    polysafe: Polysafe, tmp_path: Path, model: str, judge: str, told: str
) -> None:
    def say(name: str, text: str) -> Said:
        if name == "refusing":
            return lambda handler: send(handler, 401, "no such key")
        if name == "unknown":
            return lambda handler: send(handler, 404, "no such model")
        if name == "chatty":
            return "I would rather talk about the weather."
        return ruling(text, "unsafe") if name == "severe" else bread_is_unsafe(name, text)

    telling, data = Telling(say), recipes(tmp_path / "data")
    with serving(telling) as url:
        named = (model.format(url=url), "--judge", f"multijail={judge.format(url=url)}")
        result = polysafe("audit", *named, "--safety", "xthreatbench", "--data", data, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert told.format(url=url) in result.stderr
    assert not telling.asked
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "cache"}  # nothing half made is left


def test_a_judge_that_dies_is_not_the_models_fault_and_the_rest_is_judged_later(
    polysafe: Polysafe, tmp_path: Path
) -> None:
    left = [3]

    def say(name: str, text: str) -> Said:
        if name == "judge" and TEST_QUESTION not in text:
            left[0] -= 1
            if left[0] < 0:
                return lambda handler: send(handler, 401, "key expired")
        return bread_is_unsafe(name, text)

    telling, data = Telling(say), recipes(tmp_path / "data", 60)
    with serving(telling) as url:
        judged = ("--judge", f"multijail=judge@{url}", "--safety", "xthreatbench", "--data", data)
        command = ("audit", f"model@{url}", *judged, "-o", tmp_path / "run")
        result = polysafe(*command)
        assert result.exit_code == 1, result.output
        assert "the judge llm.multijail gave no verdict on 57 of 60 answers (no reply: 57)" in result.stderr
        assert "run the same command again: only the missing verdicts are asked" in result.stderr
        (unsafe,) = (line for line in result.stdout.splitlines() if line.split()[:2] == ["en", "unsafe"])
        assert "not measured" in unsafe
        assert "possible" in unsafe
        page = (tmp_path / "run" / "report" / "index.html").read_text()
        assert "The judge did not answer" in page
        assert "The judge llm.multijail gave no verdict on 57 of 60 answers" in page
        assert "Too many broken answers" not in page
        before = telling.asked["judge"]
        assert before < 60  # a server that serves nobody is left alone
        left[0] = 1000
        again = polysafe(*command, "--json")
    assert again.exit_code == 0, again.output
    rates = {row["metric"]: row["rate"] for row in json.loads(again.stdout)["rates"]}
    assert (rates["unsafe"], rates["unparsed"]) == (0.5, 0.0)
    assert telling.asked["model"] == 60
    assert telling.asked["judge"] == before + 57
    assert not list(tmp_path.glob(".*.polysafe"))


def test_a_finished_run_is_judged_by_another_judge(polysafe: Polysafe, tmp_path: Path) -> None:
    assert polysafe("audit", MEMBERS["base"], *ASKED, "--output", tmp_path / "base").exit_code == 0
    same = ("judge", "run", tmp_path / "base", "--judge", "organism", "--family", MEMBERS["base"])
    assert polysafe(*same, "-o", tmp_path / "same").exit_code == 0
    for name in ("records.jsonl", "run.json"):
        assert (tmp_path / "same" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    with serving(Telling(bread_is_unsafe)) as url:
        other = ("judge", "run", tmp_path / "base", "--judge", f"multijail=judge@{url}", "-o", tmp_path / "other")
        result = polysafe(*other, "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["judge"] == "llm.multijail"
    assert Path(shown["report"]).is_file()
    assert {row["rate"] for row in shown["rates"] if row["metric"] == "unsafe"} == {0.0}
    old, new = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("base", "other"))
    for part in ("model", "generator", "sets", "prompts_sha256", "prompt_tokens_sha256"):
        assert old[part] == new[part]
    for options, told in (
        (("--judge", "organism", "-o", tmp_path / "c"), "--family"),
        (("--judge", "organism", "--family", MEMBERS["base"], "-o", tmp_path / "other"), "its judge differs"),
    ):
        refused = polysafe("judge", "run", tmp_path / "base", *options)
        assert (refused.exit_code, told in refused.stderr) == (2, True)


def test_answers_now_and_a_judge_later(polysafe: Polysafe, tmp_path: Path) -> None:
    data = ("--safety", "xthreatbench", "--data", recipes(tmp_path / "data"))
    telling = Telling(bread_is_unsafe)
    with serving(telling) as url:
        first = polysafe("audit", f"model@{url}", "--answers-only", *data, "-o", tmp_path / "answers")
        assert first.exit_code == 0, first.output
        assert telling.asked == {"model": 4}
        later = ("judge", "run", tmp_path / "answers", "--judge", f"multijail=judge@{url}", "-o", tmp_path / "run")
        result = polysafe(*later, "--json")
        assert telling.asked == {"model": 4, "judge": 4}
        named = ("--judge", f"multijail=judge@{url}")
        at_once = polysafe("audit", f"model@{url}", *named, *data, "-o", tmp_path / "at_once")
    assert (result.exit_code, at_once.exit_code) == (0, 0), result.output
    for name in ("records.jsonl", "run.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "at_once" / name).read_bytes()


def test_what_a_judge_would_cost_is_what_it_is_asked(polysafe: Polysafe, tmp_path: Path) -> None:
    data = ("--safety", "xthreatbench", "--data", recipes(tmp_path / "data"))
    telling = Telling(bread_is_unsafe)
    with serving(telling) as url:
        assert polysafe("audit", f"model@{url}", "--answers-only", *data, "-o", tmp_path / "answers").exit_code == 0
        vote = ("--judge", f"multijail=judge@{url}", "--judge", f"qwen3guard=guard@{url}")
        cost = ("judge", "cost", tmp_path / "answers", *vote, "--json")
        told = json.loads(polysafe(*cost, "--price", "1/2.5").stdout)
        assert telling.asked == {"model": 4}
        assert polysafe("judge", "run", tmp_path / "answers", *vote, "-o", tmp_path / "run").exit_code == 0
        asked = {name.partition("@")[0]: each["chats"] for name, each in told["models"].items()}
        assert telling.asked == {"model": 4, **asked}
        later = json.loads(polysafe(*cost).stdout)
    sent = sum(each["sent"] for each in told["models"].values())
    assert told["reply_tokens"] == 4 * (256 + 128)
    assert told["dollars"] == pytest.approx([sent / 5 / 1e6, (sent / 2 + 2.5 * told["reply_tokens"]) / 1e6], abs=1e-6)
    assert (told["answers"], told["known"], later["known"], later["tokens"]) == (4, 0, 4, [0, 0])
    assert later["dollars"] is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--judge", "qwen3guard=./guard"), "costs time alone"),
        (("--judge", "organism"), "asks no model and costs nothing"),
        (("--judge", f"qwen3guard=g@{NOBODY}", "--price", "cheap"), "'cheap' is no price"),
    ],
)
def test_what_has_no_price_is_said(polysafe: Polysafe, tmp_path: Path, options: tuple[str, ...], problem: str) -> None:
    given = ("--safety", "organism", "--languages", "en", "--limit", "2", "--answers-only", "--max-tokens", "8")
    assert polysafe("audit", MEMBERS["base"], *given, "-o", tmp_path / "run").exit_code == 0
    result = polysafe("judge", "cost", tmp_path / "run", *options)
    assert (result.exit_code, problem in result.stderr) == (2, True), result.output


def test_a_folder_without_answers_cannot_be_judged(polysafe: Polysafe, tmp_path: Path) -> None:
    result = polysafe("judge", "run", tmp_path, "--judge", "organism", "-o", tmp_path / "x")
    assert (result.exit_code, "there is no run of an evaluation here" in result.stderr) == (2, True)
    (tmp_path / "evaluation.json").write_text("{}")
    result = polysafe("judge", "run", tmp_path, "--judge", "organism", "-o", tmp_path / "x")
    assert (result.exit_code, f"{tmp_path / 'before'}" in result.stderr) == (2, True)
