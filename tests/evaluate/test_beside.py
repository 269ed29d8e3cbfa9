"""A judge who is elsewhere reads answers while others are still asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

from polysafe.evaluate.beside import Beside
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.generate.completion import Ask, Completion
from polysafe.judge.backend import ClientBackend, Reply
from polysafe.judge.guards.wildguard import WildGuard
from polysafe.judge.kinds.vote import Vote
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.verdict import Exchange, Verdict
from tests.checkpoint.raw import snapshot
from tests.evaluate.fakes import Apart, FakeGenerator, FakeJudge, prompt_set
from tests.judge.helpers import Scripted

PATIENCE = 60.0


class Watching(FakeGenerator):
    """Gives its second answer only when the first one has been judged, or after a long time, which fails the test."""

    def __init__(self, judged: Event) -> None:
        super().__init__()
        self._judged = judged

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        for place, answer in enumerate(super().generate(asks)):
            assert place == 0 or self._judged.wait(PATIENCE)
            yield answer


class Telling(Apart):
    """Says that it has judged."""

    def __init__(self, judged: Event) -> None:
        super().__init__()
        self._judged = judged

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
        yield from super().judge(exchanges)
        self._judged.set()


def evaluated(output: Path, judge: FakeJudge, generator: FakeGenerator | None = None) -> ModelRun:
    return evaluate_model(generator or FakeGenerator(), [prompt_set()], judge, output=output)


def test_answers_are_judged_before_the_last_one_is_there(tmp_path: Path) -> None:
    judged = Event()
    evaluated(tmp_path / "run", Telling(judged), Watching(judged))


def test_the_run_is_the_same(tmp_path: Path) -> None:
    judge = Apart()
    evaluated(tmp_path / "beside", judge)
    evaluated(tmp_path / "after", FakeJudge())
    assert sorted(judge.asked) == sorted(prompt.id for prompt in prompt_set().prompts)
    assert snapshot(tmp_path / "beside") == snapshot(tmp_path / "after")


def test_who_is_here_waits_for_the_last_answer(tmp_path: Path) -> None:
    generator = FakeGenerator()

    class Here(FakeJudge):
        def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
            assert len(generator.asked) == len(prompt_set())
            return super().judge(exchanges)

    evaluated(tmp_path / "run", Here(), generator)


def test_both_stages_are_told_to_their_ends(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate_model(
        FakeGenerator(),
        [prompt_set()],
        Apart(),
        output=tmp_path / "run",
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    stages = [stage for stage, *_ in told]
    assert {("answers", 12, 12), ("verdicts", 12, 12)} <= set(told)
    assert stages == sorted(stages)  # verdicts are told of when nothing else is


def test_whose_model_is_elsewhere_is_known_through_what_stands_around_it() -> None:
    there = [WildGuard(ClientBackend(lambda chat: Reply(chat.id, ""), {"model": name})) for name in ("one", "two")]
    here = WildGuard(Scripted(lambda _: None))
    assert Pipeline(there[0]).apart
    assert not Pipeline(here).apart
    assert Pipeline(Vote(there)).apart
    assert not Vote([*there, here]).apart


def test_what_comes_together_is_one_batch() -> None:
    batches: list[list[int]] = []
    begun, given_all = Event(), Event()

    def work(batch: Sequence[int]) -> Sequence[int]:
        begun.set()
        assert given_all.wait(PATIENCE)
        batches.append(list(batch))
        return batch

    with Beside(work, most=4) as beside:
        beside.give(0)
        assert begun.wait(PATIENCE)
        for number in range(1, 8):
            beside.give(number)
        given_all.set()
        beside.finish("work", 8)
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
