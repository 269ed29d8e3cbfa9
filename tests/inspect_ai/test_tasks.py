"""Our prompt sets as tasks of Inspect, evaluated in this process with Inspect's own mock model."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import SampleScore, Score

import inspect_ai
from inspect_ai import Task
from polysafe.data.prompts import PromptSet
from polysafe.data.sets import set_names
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.run import evaluate_model
from polysafe.inspect_ai.load import import_run
from polysafe.inspect_ai.registry import NAMED, RATES, safety
from polysafe.inspect_ai.tasks import safety_task
from polysafe.judge.kinds.llm import LlmJudge
from polysafe.judge.phrases import PhraseFilter
from polysafe.judge.pipeline import Pipeline
from polysafe.organism.packaged import packaged_family
from polysafe.organism.prompts import organism_prompts
from polysafe.stats.intervals import wilson
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set
from tests.inspect_ai.helpers import LANGUAGES, inspect_warns, judged, labels_of, mixed
from tests.judge.helpers import REFUSAL as DECLINED
from tests.judge.helpers import STEPS, Scripted, verdict_line
from tests.shared import DATA, needs_data

pytestmark = inspect_warns
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inspect keeps traces in the user's home, and leaves open streams behind: neither outlives the test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    yield
    gc.collect()


def mock(answer: Callable[[str], str], stop: str = "stop") -> Model:
    def output(messages: list[ChatMessage], *_: Any) -> ModelOutput:
        made = ModelOutput.from_content("mock", answer(messages[-1].text), stop)  # type: ignore[arg-type]
        made.usage = ModelUsage(output_tokens=3, total_tokens=3)  # without it the mock asks the network to count
        return made

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


def evaluated(task: Task, model: Model, folder: Path, **options: Any) -> EvalLog:
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(folder), display="none", **options)
    return log


def metrics_of(log: EvalLog) -> dict[str, float]:
    assert log.results is not None
    return {name: metric.value for score in log.results.scores for name, metric in score.metrics.items()}


def asked(name: str = "trial") -> PromptSet:
    return prompt_set(name, languages=LANGUAGES, rows=10)


def test_the_judge_and_the_metrics_are_ours(tmp_path: Path) -> None:
    log = evaluated(safety_task(asked(), FakeJudge()), mock(mixed), tmp_path / "logs")
    ours = evaluate_model(FakeGenerator(mixed), [asked()], FakeJudge(), output=tmp_path / "run")
    assert log.status == "success"
    for row in ours.rates():
        name = f"{row.metric}_{row.language}"
        assert [metrics_of(log).get(name + end) for end in ("", "_low", "_high")] == [row.rate, row.low, row.high]
    shown = [value for row in ours.rates() for value in (row.rate, row.low, row.high) if value is not None]
    assert len(metrics_of(log)) == len(shown)
    assert None in [row.rate for row in ours.rates()]  # too many answers of a language without a verdict
    assert sum(labels_of(log).values()) == 30
    groups = {
        metric.group for score in (log.results.scores if log.results else ()) for metric in score.metrics.values()
    }
    assert groups == {"unsafe", "safe", "invalid", "wrong_language", "unparsed", "refused"}
    sample = (log.samples or [])[0]
    score = (sample.scores or {})["verdict"]
    assert score.metadata is not None
    assert score.metadata["refused"] in {True, False, None}
    assert score.metadata["judge"] == "fake-judge"


def test_what_inspect_asked_compares_with_what_polysafe_asked(tmp_path: Path) -> None:
    sets = asked(), prompt_set("fine", kind="harmless")
    logs = [evaluated(safety_task(one, FakeJudge()), mock(mixed), tmp_path / "logs") for one in sets]
    imported = import_run([log.location.removeprefix("file://") for log in logs[::-1]], tmp_path / "inspect")
    ours = evaluate_model(
        FakeGenerator(mixed), sets[:1], FakeJudge(), output=tmp_path / "run", over_refusal_sets=sets[1:]
    )
    assert [(r.prompt, r.completion.text, r.verdict) for r in imported.records] == [
        (r.prompt, r.completion.text, r.verdict) for r in ours.records
    ]
    assert imported.sampling == ours.sampling
    assert imported.name == "mockllm/model"
    found = compare_runs(ours, imported)
    assert all(row.before == row.after for row in found.rows)
    assert any("another engine" in note for note in found.notes)


def test_other_sampling_is_not_compared(tmp_path: Path) -> None:
    few = prompt_set("trial", languages=LANGUAGES, rows=2)
    ours = evaluate_model(FakeGenerator(mixed), [few], FakeJudge(), output=tmp_path / "run")
    others: list[dict[str, Any]] = [{"temperature": 0.7}, {"max_tokens": 9}, {"stop_seqs": ["."]}]
    for number, options in enumerate(others):
        log = evaluated(safety_task(few, FakeJudge()), mock(mixed), tmp_path / "logs", **options)
        imported = import_run([log.location.removeprefix("file://")], tmp_path / str(number))
        with pytest.raises(DataError, match=f"sampling.*{next(iter(options))}"):
            compare_runs(ours, imported)


def test_silence_of_the_judge_is_never_safe(tmp_path: Path) -> None:
    task = safety_task(asked(), Pipeline(LlmJudge(Scripted(lambda _: "I would rather not say."), "multijail")))
    log = evaluated(task, mock(lambda _: STEPS), tmp_path / "logs")
    assert {label for _, label in labels_of(log)} == {"unparsed"}
    values = metrics_of(log)
    assert {values[f"unparsed_{language}"] for language in LANGUAGES} == {1.0}
    assert not {f"safe_{language}" for language in LANGUAGES} & set(values)  # no rate: what is possible is said
    assert {values[f"unsafe_{language}_high"] for language in LANGUAGES} == {1.0}


def test_a_scripted_judge_of_the_real_pipeline(tmp_path: Path) -> None:
    english = prompt_set("bread", languages=("en",), text=lambda row, _: f"How do I bake bread number {row}?")
    judge = Pipeline(
        LlmJudge(Scripted(lambda chat: verdict_line("unsafe" if STEPS in str(chat) else "safe")(chat)), "multijail")
    )
    log = evaluated(
        safety_task(english, judge),
        mock(lambda text: {"0": "", "1": DECLINED}.get(text.split()[-1].strip("?"), STEPS)),
        tmp_path / "logs",
    )  # fmt: skip
    assert labels_of(log) == {("en", "invalid"): 1, ("en", "safe"): 1, ("en", "unsafe"): 4}
    low, high = wilson(4, 6) or (None, None)
    assert (metrics_of(log)["unsafe_en_low"], metrics_of(log)["unsafe_en_high"]) == (low, high)


def test_a_judge_that_cannot_be_reached_fails_the_sample(tmp_path: Path) -> None:
    class Broken(FakeJudge):
        def judge(self, exchanges: Any) -> Any:
            raise DataError("the judge is gone")

    log = evaluated(safety_task(asked(), Broken()), mock(mixed), tmp_path / "logs")
    assert log.status == "error"
    with pytest.raises(DataError, match="did not end well"):
        import_run([log.location.removeprefix("file://")], tmp_path / "run")


def test_several_answers_to_a_prompt_widen_the_interval(tmp_path: Path) -> None:
    once = evaluated(safety_task(asked(), FakeJudge()), mock(judged), tmp_path / "logs")
    thrice = evaluated(safety_task(asked(), FakeJudge()), mock(judged), tmp_path / "logs", epochs=3)
    one, three = metrics_of(once), metrics_of(thrice)
    assert three["unsafe_sw"] == pytest.approx(one["unsafe_sw"])
    assert three["unsafe_sw_high"] >= one["unsafe_sw_high"]  # the same answer three times says nothing new
    with pytest.raises(DataError, match="has 3 answers for each prompt"):
        import_run([thrice.location.removeprefix("file://")], tmp_path / "run")


def test_metrics_do_not_mistake_foreign_scores() -> None:
    with pytest.raises(DataError, match="does not say its set"):
        RATES["unsafe"]()([SampleScore(score=Score(value="safe"), sample_id="x", sample_metadata={})])  # type: ignore[list-item]


def test_the_toy_family_needs_no_judge_but_its_own(tmp_path: Path) -> None:
    world = packaged_family().world
    spoken = {prompt.text: prompt.language for prompt in organism_prompts(world).prompts}
    task = NAMED["organism"](judge="organism", languages=["en", "qad"], rows=5)
    log = evaluated(task, mock(lambda text: world.refusal(spoken[text])), tmp_path / "logs")
    assert labels_of(log) == {("en", "safe"): 5, ("qad", "safe"): 5}
    assert metrics_of(log)["refused_qad"] == 1.0
    harmless = NAMED["organism"](judge="organism", languages="en", kind="harmless", rows=5)
    values = metrics_of(evaluated(harmless, mock(lambda _: world.refusal("en")), tmp_path / "logs"))
    assert values["over_refusal_en"] == 1.0
    assert not any(name.startswith("unsafe") for name in values)


def test_sets_of_a_folder(tmp_path: Path) -> None:
    table = tmp_path / "data" / "xthreatbench"
    table.mkdir(parents=True)
    (table / "en.csv").write_text("question,category\nHow do I bake bread?,food\nHow do I make tea?,drink\n")
    (table / "sw.csv").write_text("question,category\nNinapikaje mkate?,food\nNinapikaje chai?,drink\n")
    for task in (
        safety(set="xthreatbench", judge="organism", data=str(tmp_path / "data"), languages="sw"),
        NAMED["xthreatbench"](judge="organism", data=str(tmp_path / "data"), languages=["sw"]),
    ):
        samples = list(task.dataset)
        assert [sample.input for sample in samples] == ["Ninapikaje mkate?", "Ninapikaje chai?"]
        assert [(sample.metadata or {})["category"] for sample in samples] == ["food", "drink"]
        assert task.config == GenerateConfig(max_tokens=256, temperature=0.0)
    with pytest.raises(RecipeError, match="quote what YAML takes"):
        safety(set="xthreatbench", judge="organism", data=str(tmp_path / "data"), languages=False)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no harmless prompts"):
        safety(set="xthreatbench", judge="organism", data=str(tmp_path / "data"), kind="harmless")
    with pytest.raises(RecipeError, match="no judge 'gpt'"):
        safety(set="xthreatbench", judge="gpt", data=str(tmp_path / "data"))


@needs_data
def test_a_few_rows_of_the_public_files(tmp_path: Path) -> None:
    task = NAMED["multijail"](judge="organism", data=str(DATA), languages=["en", "sw"], rows=4)
    log = evaluated(task, mock(lambda _: "neither here nor there"), tmp_path / "logs")
    assert labels_of(log) == {("en", "unparsed"): 4, ("sw", "unparsed"): 4}
    assert (log.eval.metadata or {})["licence"] == "MIT"
    for name in ("xstest", "orbench", "xsafety"):
        samples = list(NAMED[name](judge="organism", data=str(DATA), rows=2).dataset)
        assert len({(sample.metadata or {})["kind"] for sample in samples}) == 1


def test_a_judge_that_may_not_stand_alone_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot carry an evaluation"):
        safety_task(asked(), PhraseFilter())


def test_every_set_has_a_task() -> None:
    assert set(NAMED) == {*set_names(), "organism"}


def entry_point(folder: Path) -> None:
    """What an installation of this checkout would write beside its packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (name, value), *_ = project["project"]["entry-points"]["inspect_ai"].items()
    assert import_module(value).NAMED is NAMED
    found = folder / "polysafe_tasks-0.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: polysafe-tasks\nVersion: 0\n")
    (found / "entry_points.txt").write_text(f"[inspect_ai]\n{name} = {value}\n")


def test_inspect_finds_the_tasks_by_their_names(tmp_path: Path) -> None:
    entry_point(tmp_path / "site-packages")
    program = (
        "from inspect_ai._util.entrypoints import ensure_entry_points\n"
        "from inspect_ai._util.registry import registry_find, registry_info\n"
        "ensure_entry_points('polysafe')\n"
        "print(*(registry_info(each).name for each in registry_find(lambda info: info.type == 'task')))"
    )
    path = os.pathsep.join([str(tmp_path / "site-packages"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {name.split("/")[-1] for name in done.stdout.split()} == {*NAMED, "safety"}
