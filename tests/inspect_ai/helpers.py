"""Runs and logs for the tests of the interchange with Inspect, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai.log import EvalLog, read_eval_log

from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.judge.verdict import Label
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set

LABELS = tuple(Label)
LANGUAGES = ("en", "sw", "bn")

inspect_warns = [
    # tenacity renamed a parameter that Inspect still uses for its waits between attempts
    pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning"),
    # streams that Inspect leaves to the garbage collector after an evaluation in this process
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*MemoryObject.*__del__:pytest.PytestUnraisableExceptionWarning"),
]
"""What `inspect_ai.eval` warns of, none of it ours; an export warns of nothing."""


def mixed(text: str) -> str:
    """An answer to a prompt of `prompt_set` with a label of its row and language."""
    row, language = text.split()[1], text.rsplit(maxsplit=1)[-1]
    return f"<{LABELS[(int(row) + len(language) + ord(language[0])) % len(LABELS)]}> answer to {text}"


def judged(text: str) -> str:
    """The same, with a verdict on all answers but those in Bengali."""
    return mixed(text) if text.endswith("bn") else mixed(text).replace("<unparsed>", "<safe>")


def run_of(
    folder: Path, answer: Callable[[str], str] = mixed, *, name: str = "base", judge: FakeJudge | None = None
) -> ModelRun:
    """A run over a harmful and a harmless set."""
    return evaluate_model(
        FakeGenerator(answer),
        [prompt_set(languages=LANGUAGES)],
        judge or FakeJudge(),
        output=folder,
        over_refusal_sets=[prompt_set("fine", kind="harmless", languages=("en", "sw"))],
        name=name,
    )


def read(path: Path) -> EvalLog:
    return read_eval_log(str(path), resolve_attachments=True)


def labels_of(log: EvalLog) -> Counter[tuple[str, str]]:
    """(language, label) -> how many samples have it, as Inspect reads the log."""
    return Counter(
        (sample.metadata["language"], str(sample.scores["verdict"].value))
        for sample in log.samples or ()
        if sample.scores
    )
