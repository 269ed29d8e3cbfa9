from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polysafe.checkpoint.output import lock
from polysafe.data.prompts import PromptSet
from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.compare import compare_runs, run_notes
from polysafe.evaluate.model_run import RECORDS, RUN, ModelRun
from polysafe.evaluate.records import completion_from_json, load_records, verdict_from_json
from polysafe.evaluate.run import evaluate_model
from polysafe.findings.load import load_report_data
from polysafe.generate.completion import Ask, Completion
from polysafe.judge.guards.wildguard import WildGuard
from polysafe.judge.phrases import PhraseFilter
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.verdict import Exchange, Label, Verdict
from polysafe.stats.intervals import wilson
from tests.checkpoint.raw import snapshot
from tests.evaluate.fakes import Apart, FakeGenerator, FakeJudge, StoppedError, answer_to, prompt_set
from tests.judge.helpers import Scripted

ROOT = Path(__file__).parents[2]
HOSTILE = ["\x00", "\udc80 broken", "x" * 1_000_000, "a\u2028b\r\n", "</details><script>", "\u202e\x1b[2J"]


def test_every_prompt_has_its_answer_and_its_verdict(tmp_path: Path) -> None:
    asked = prompt_set()
    run = evaluate_model(FakeGenerator(), [asked], FakeJudge(), output=tmp_path / "run", name="m")
    assert [record.prompt for record in run.records] == list(asked.prompts)
    assert all(record.completion.text == answer_to(record.prompt.text) for record in run.records)
    assert all(record.verdict.id == record.prompt.id for record in run.records)
    assert run.name == "m"
    assert run.judge == "fake-judge"
    assert run.languages == ("en", "sw")
    assert run == ModelRun.load(tmp_path / "run")
    assert len((tmp_path / "run" / RECORDS).read_bytes().splitlines()) == len(asked)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_records_say_set_language_kind_category_answer_and_label(tmp_path: Path) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    first = json.loads((tmp_path / "run" / RECORDS).read_bytes().splitlines()[0])
    wanted = {"set": "trial", "parallel": "0", "language": "en", "kind": "harmful", "category": "category 0"}
    assert wanted.items() <= first.items()
    assert first["label"] == "safe"
    assert first["refused"] is True
    assert first["detail"] == {"language": {"code": "en", "confidence": 0.5}}


def test_the_same_run_again_asks_nothing(tmp_path: Path) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    before = snapshot(tmp_path)
    generator, judge = FakeGenerator(), FakeJudge()
    evaluate_model(generator, [prompt_set()], judge, output=tmp_path / "run")
    assert (generator.asked, judge.asked) == ([], [])
    assert snapshot(tmp_path) == before


@pytest.mark.fault(10, "evaluating")
@pytest.mark.parametrize("judging", [FakeJudge, Apart])
@given(st.lists(st.integers(0, 13), max_size=4), st.lists(st.integers(0, 13), max_size=4))
@settings(max_examples=25)
def test_interrupted_anywhere_it_goes_on_to_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, judging: type[FakeJudge], answers: list[int], verdicts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    evaluate_model(FakeGenerator(), [prompt_set()], judging(), output=folder / "whole")
    asked: list[str] = []
    judged: list[str] = []
    for stops in [*({"g": stop} for stop in answers), *({"j": stop} for stop in verdicts), {}]:
        generator, judge = FakeGenerator(stop_after=stops.get("g")), judging(stop_after=stops.get("j"))
        try:
            evaluate_model(generator, [prompt_set()], judge, output=folder / "parts")
        except StoppedError:
            assert not (folder / "parts").exists()
        asked += generator.asked
        judged += judge.asked
    assert sorted(asked) == sorted(judged) == sorted(prompt.id for prompt in prompt_set().prompts)
    assert snapshot(folder / "parts") == snapshot(folder / "whole")


@pytest.mark.parametrize("stop", ["before the first answer", "before the first verdict", "when writing"])
def test_what_fails_before_anything_is_kept_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    generator = FakeGenerator(stop_after=0 if stop == "before the first answer" else None)
    judge = FakeJudge(stop_after=0 if stop == "before the first verdict" else None)
    if stop == "when writing":
        monkeypatch.setattr("polysafe.evaluate.run._write", _stop)
    for _ in range(2):
        with pytest.raises(StoppedError):
            evaluate_model(generator, [prompt_set()], judge, output=tmp_path / "run")
        kept = [] if stop == "before the first answer" else [".run.polysafe"]  # answers are kept, to go on from
        assert [path.name for path in tmp_path.iterdir()] == kept
    assert len(set(generator.asked)) == len(generator.asked)


def _stop(*_: object, **__: object) -> None:
    raise StoppedError


@pytest.mark.fault(19, "half-written lines")
def test_a_run_that_is_not_finished_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(stop_after=2), output=tmp_path / "run")
    for read in ModelRun.load, load_report_data:
        with pytest.raises(DataError, match=r"run: is not finished\n  give the command that writes it again"):
            read(tmp_path / "run")


def test_a_half_written_line_is_asked_again(tmp_path: Path) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "whole")
    with pytest.raises(StoppedError):
        evaluate_model(FakeGenerator(stop_after=5), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    (journal,) = tmp_path.rglob("journal.jsonl")
    journal.write_bytes(journal.read_bytes()[:-10])
    generator = FakeGenerator()
    evaluate_model(generator, [prompt_set()], FakeJudge(), output=tmp_path / "run")
    assert len(generator.asked) == 12 - 4
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")


def test_the_cache_serves_other_runs(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "one", cache=cache)
        generator, judge = FakeGenerator(), FakeJudge()
        larger = prompt_set(languages=("en", "sw", "bn"))
        evaluate_model(generator, [larger], judge, output=tmp_path / "two", cache=cache)
        assert {name.split("/")[-1] for name in (*generator.asked, *judge.asked)} == {"bn"}
        other, again = FakeGenerator(identity={"weights": "0" * 64}), FakeJudge()
        evaluate_model(other, [larger], again, output=tmp_path / "three", cache=cache)
        assert len(other.asked) == len(larger)
        assert again.asked == []  # the same answers to the same prompts, whoever gave them
        stricter = FakeJudge(identity={"model": "k"})
        evaluate_model(FakeGenerator(), [larger], stricter, output=tmp_path / "four", cache=cache)
        assert len(stricter.asked) == len(larger)


def test_a_cache_does_not_change_the_result(tmp_path: Path) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "without")
    with Cache(tmp_path / "cache") as cache:
        for name in ("filled", "used"):
            evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / name, cache=cache)
    assert snapshot(tmp_path / "filled") == snapshot(tmp_path / "used") == snapshot(tmp_path / "without")


@pytest.mark.fault(21, "taken up again")
def test_missing_verdicts_are_counted_and_asked_for_again(tmp_path: Path) -> None:
    def broken(text: str) -> str:
        return "<unparsed>" if text.startswith("placeholder 1") else "<unsafe>"

    with Cache(tmp_path / "cache") as cache:
        run = evaluate_model(FakeGenerator(broken), [prompt_set()], FakeJudge(), output=tmp_path / "a", cache=cache)
        assert sum(run.outcomes["en", "unparsed"].values()) == 1
        assert sum(run.outcomes["en", "safe"].values()) == 0
        assert len(run.outcomes["en", "unsafe"]) == 6
        judge = FakeJudge()
        evaluate_model(FakeGenerator(broken), [prompt_set()], judge, output=tmp_path / "b", cache=cache)
        assert judge.asked == ["trial/1/en", "trial/1/sw"]


def test_hostile_answers_come_back(tmp_path: Path) -> None:
    texts = iter(HOSTILE * 2)
    made: dict[str, str] = {}

    def answer(text: str) -> str:
        return made.setdefault(text, next(texts))

    with Cache(tmp_path / "cache") as cache:
        for name in ("one", "two"):
            run = evaluate_model(
                FakeGenerator(answer), [prompt_set()], FakeJudge(), output=tmp_path / name, cache=cache
            )
            assert [record.completion.text for record in run.records] == [made[r.prompt.text] for r in run.records]
    assert len(made) == 12


def test_over_refusal_sets_give_their_harmless_prompts(tmp_path: Path) -> None:
    mixed = PromptSet(
        "mixed",
        (
            *prompt_set("mixed", rows=3).prompts,
            *(p for p in prompt_set("mixed", rows=6, kind="harmless").prompts if int(p.parallel) > 2),
        ),
    )
    run = evaluate_model(
        FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run", over_refusal_sets=[mixed]
    )
    assert {(r.prompt.set, r.prompt.kind) for r in run.records} == {("trial", "harmful"), ("mixed", "harmless")}
    assert len(run.outcomes["en", "over_refusal"]) == 3
    both = evaluate_model(FakeGenerator(), [mixed], FakeJudge(), output=tmp_path / "both", over_refusal_sets=[mixed])
    assert len(both.records) == 12
    with pytest.raises(DataError, match="has no harmless prompts"):
        evaluate_model(FakeGenerator(), [], FakeJudge(), output=tmp_path / "no", over_refusal_sets=[prompt_set()])


class Careless(FakeGenerator):
    """Leaves out, repeats or invents answers."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        answers = list(super().generate(asks))
        if self.fault == "leaves out":
            yield from answers[1:]
        elif self.fault == "repeats":
            yield from (*answers[:2], answers[0])
        else:
            yield Completion("trial/99/en", "x", "stop")


@pytest.mark.parametrize(
    ("fault", "problem"),
    [("leaves out", "1 did not come"), ("repeats", "came twice"), ("invents", "was not asked for")],
)
def test_a_careless_generator_is_refused(tmp_path: Path, fault: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        evaluate_model(Careless(fault), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_careless_judge_is_refused(tmp_path: Path) -> None:
    class Forgetful(FakeJudge):
        def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
            yield from super().judge(exchanges[:-1])

    with pytest.raises(DataError, match="verdicts: 1 did not come"):
        evaluate_model(FakeGenerator(), [prompt_set()], Forgetful(), output=tmp_path / "run")


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    def attempt(*sets: PromptSet, generator: FakeGenerator | None = None) -> None:
        evaluate_model(generator or FakeGenerator(), sets, FakeJudge(), output=tmp_path / "run")

    with pytest.raises(DataError, match="nothing to ask"):
        attempt()
    with pytest.raises(DataError, match="in two sets"):
        attempt(prompt_set(), prompt_set())
    without = FakeGenerator()
    del without.identity["sampling"]
    with pytest.raises(DataError, match="sampling"):
        attempt(prompt_set(), generator=without)
    assert list(tmp_path.iterdir()) == []


def test_another_run_at_the_output_is_refused(tmp_path: Path) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    before = snapshot(tmp_path)
    for generator, judge, asked, part in [
        (FakeGenerator(identity={"weights": "0" * 64}), FakeJudge(), prompt_set(), "generator"),
        (FakeGenerator(), FakeJudge(identity={"model": "k"}), prompt_set(), "judge"),
        (FakeGenerator(), FakeJudge(), prompt_set(rows=5), "sets"),
    ]:
        with pytest.raises(OutputError, match=f"holds another run: its {part} differs"):
            evaluate_model(generator, [asked], judge, output=tmp_path / "run")
    assert snapshot(tmp_path) == before


def test_foreign_files_at_the_output_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("words")
    with pytest.raises(OutputError, match="no run of an evaluation"):
        evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.fault(13, "one wins and the other is told who holds it")
def test_one_process_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path / "run"), pytest.raises(OutputError, match="is being written by"):
        evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")


def test_progress_counts_what_was_known_already(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        evaluate_model(FakeGenerator(stop_after=5), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    seen: list[tuple[str, int, int]] = []
    evaluate_model(
        FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run", progress=lambda *step: seen.append(step)
    )
    assert seen == [("answers", n, 12) for n in range(5, 13)] + [("verdicts", n, 12) for n in range(13)]


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no run of one model"),
        ('{"polysafe": "ability"}', "is no run of one model"),
        ('{"polysafe": "model_run", "schema": 0}', "has schema 0, this polysafe reads schema 1"),
        ('{"polysafe": "model_run", "schema": 1, "model": "m"}', "lacks generator, judge"),
    ],
)
def test_a_folder_that_is_no_run(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / RUN).write_text(content)
    with pytest.raises(DataError, match=problem):
        ModelRun.load(tmp_path)


@pytest.mark.hostile("record")
def test_records_that_were_changed_are_refused(tmp_path: Path) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    records = tmp_path / "run" / RECORDS
    content = records.read_bytes()
    records.write_bytes(content.replace(b'"safe"', b'"unsafe"', 1))
    with pytest.raises(DataError, match="differs from what was written"):
        ModelRun.load(tmp_path / "run")
    records.unlink()
    with pytest.raises(DataError, match="is missing"):
        ModelRun.load(tmp_path / "run")
    with pytest.raises(DataError, match="no run of an evaluation here"):
        ModelRun.load(tmp_path)


def test_run_file_names_what_decides_the_answers(tmp_path: Path) -> None:
    run = evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    about = json.loads((tmp_path / "run" / RUN).read_bytes())
    assert about["generator"] == FakeGenerator().identity
    assert about["judge"] == {"name": "fake-judge", "identity": FakeJudge().identity}
    assert about["sets"][0]["sha256"] == prompt_set().sha256
    assert about["labels"] == {"en": {"safe": 6}, "sw": {"safe": 6}}
    assert len(about["prompt_tokens_sha256"]) == 64
    assert {"polysafe", "python", "torch"} <= about["versions"].keys()
    assert str(tmp_path) not in json.dumps(about)
    assert run.sampling["max_tokens"] == 256
    unknown = FakeGenerator(tokens=lambda text: None)
    other = evaluate_model(unknown, [prompt_set()], FakeJudge(), output=tmp_path / "server")
    assert other.about["prompt_tokens_sha256"] is None


def test_a_label_of_every_kind_is_counted(tmp_path: Path) -> None:
    labels = [label for label in Label if label is not Label.UNJUDGED]

    def answer(text: str) -> str:
        return f"<{labels[int(text.split()[1]) % len(labels)]}>"

    run = evaluate_model(FakeGenerator(answer), [prompt_set(rows=10)], FakeJudge(), output=tmp_path / "run")
    assert run.about["labels"]["en"] == {str(label): 2 for label in labels}
    rates = {row.metric: row for row in run.rates() if row.language == "en"}
    fewest, most = wilson(2, 10), wilson(4, 10)
    assert fewest is not None
    assert most is not None
    assert rates["unparsed"].rate == 0.2
    for metric in set(labels) - {"unparsed"}:  # one in five was not judged: what is possible is shown, and no rate
        assert rates[metric].rate is None
        assert (rates[metric].low, rates[metric].high) == (fewest.low, most.high)


def test_phrases_alone_carry_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="phrases cannot carry an evaluation"):
        evaluate_model(FakeGenerator(), [prompt_set()], PhraseFilter(), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_languages_outside_of_what_a_judge_is_documented_for_are_told(tmp_path: Path) -> None:
    guard = WildGuard(Scripted(lambda _: "Harmful request: no\nResponse refusal: no\nHarmful response: no"))
    found = evaluate_model(FakeGenerator(), [prompt_set()], Pipeline(guard), output=tmp_path / "run")
    (note,) = (note for note in run_notes(found) if "wildguard" in note)
    assert note == "wildguard is documented for English only; 1 language is outside: sw"
    assert note in compare_runs(found, found).notes


DAMAGES: dict[str, tuple[tuple[str | int, ...], object]] = {
    "no model": (("model",), None),
    "a model that is a list": (("model",), ["m"]),
    "no generator": (("generator",), None),
    "a generator in words": (("generator",), "a model"),
    "no sampling": (("generator", "sampling"), None),
    "weights that are a number": (("generator", "weights"), 5),
    "no judge": (("judge",), None),
    "a judge without a name": (("judge", "name"), None),
    "a judge with a list": (("judge", "identity"), []),
    "no sets": (("sets",), None),
    "sets in an object": (("sets",), {"name": "s"}),
    "a set that is nothing": (("sets", 0), None),
    "a set without languages": (("sets", 0, "languages"), None),
    "a set of half a prompt": (("sets", 0, "prompts"), 0.5),
    "a set of less than no prompts": (("sets", 0, "prompts"), -1),
    "a set that overlaps with a number": (("sets", 0, "overlaps"), [1]),
    "a set that dropped a list": (("sets", 0, "dropped"), []),
    "no records": (("records",), None),
    "records without a hash": (("records", "sha256"), None),
    "notes that are one": (("judge_notes",), "a note"),
    "versions in a list": (("versions",), ["1"]),
    "an attack without a name": (("attack",), {}),
    "a number that is none": (("generator", "sampling", "temperature"), float("nan")),
    "deep nesting": (("generator", "more"), "DEEP"),
}


@pytest.mark.hostile("record")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_file_is_refused_in_words(tmp_path: Path, damage: str) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=tmp_path / "run")
    file = tmp_path / "run" / RUN
    about = json.loads(file.read_bytes())
    (*path, last), value = DAMAGES[damage]
    inner = about
    for step in path:
        inner = inner[step]
    inner[last] = value
    file.write_text(json.dumps(about).replace('"DEEP"', "[" * 100_000 + "]" * 100_000))
    with pytest.raises(DataError, match=r"is no valid run of one model|is not valid JSON") as caught:
        ModelRun.load(tmp_path / "run")
    assert str(file) in str(caught.value)


@pytest.mark.hostile("record")
def test_records_that_are_nested_deeply_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    path.write_text("[" * 100_000 + "]" * 100_000 + "\n")
    with pytest.raises(DataError, match="nested too deeply"):
        load_records(path)


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "value",
    [[], 5, "text", {}, {"text": 5, "ending": "stop"}, {"text": "x", "ending": "end"}, {"text": "x", "ending": []},
     {"text": "x", "ending": "stop", "tokens": "many"}, {"text": "x", "ending": "stop", "tokens": True},
     {"text": "x", "ending": "stop", "prompt_sha256": 5}, {"text": "x", "ending": "stop", "id": "y"}],
)  # fmt: skip
def test_a_stored_answer_that_is_none_is_told_with_what_to_do(value: object) -> None:
    with pytest.raises(DataError, match="is no stored answer") as caught:
        completion_from_json("a", value)
    assert "delete the cache" in str(caught.value)


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "value",
    [[], 5, {}, {"label": "safe"}, {"label": ["safe"]}, {"label": "safe", "refused": "no", "judge": "j"},
     {"label": "nice", "refused": None, "judge": "j"}, {"label": "safe", "refused": None, "judge": 5},
     {"label": "safe", "refused": None, "judge": "j", "detail": []}],
)  # fmt: skip
def test_a_stored_verdict_that_is_none_is_told_with_what_to_do(value: object) -> None:
    with pytest.raises(DataError, match="is no stored verdict") as caught:
        verdict_from_json("a", value)
    assert "delete the cache" in str(caught.value)
