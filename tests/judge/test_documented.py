"""What judges are documented for, and what a reader is told."""

from __future__ import annotations

import pytest

from polysafe.data.sets.registry import benchmark
from polysafe.judge.documented import judge_notes
from polysafe.judge.guards import GUARDS, make_guard
from polysafe.judge.guards.llama_guard import LlamaGuard
from polysafe.judge.guards.polyguard import PolyGuard
from polysafe.judge.guards.qwen3guard import Qwen3Guard
from polysafe.judge.guards.shieldgemma import ShieldGemma
from polysafe.judge.guards.wildguard import WildGuard
from polysafe.judge.kinds.llm import LlmJudge
from polysafe.judge.kinds.translate import ChatTranslator, Rule, TranslateTest
from polysafe.judge.kinds.vote import Vote
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.verdict import Judge, Label
from tests.judge.helpers import Scripted, always

BACKEND = Scripted(lambda _: "")
MULTIJAIL = benchmark("multijail").languages

NOTES: list[tuple[Judge, list[str]]] = [
    (
        WildGuard(BACKEND),
        [
            "wildguard is documented for English only; 9 languages are outside: "
            + ", ".join(code for code in MULTIJAIL if code != "en")
        ],
    ),
    (ShieldGemma(BACKEND), ["shieldgemma is documented for English only; 9 languages are outside"]),
    (LlamaGuard(BACKEND), ["llama_guard_3 is documented for 8 languages; 7 languages are outside: zh, vi, ar"]),
    (PolyGuard(BACKEND), ["polyguard is documented for 17 languages; 4 languages are outside: vi, bn, sw, jv"]),
    (Qwen3Guard(BACKEND), []),
    (LlmJudge(BACKEND), []),
    (LlmJudge(BACKEND, "soteria.published"), ["llm.soteria.published does not see what was asked"]),
    (Vote([Qwen3Guard(BACKEND), PolyGuard(BACKEND)]), ["polyguard is documented for 17 languages"]),
    (always(Label.SAFE), []),
]


@pytest.mark.parametrize(("judge", "beginnings"), NOTES, ids=[judge.name for judge, _ in NOTES])
def test_a_reader_is_told_what_is_outside(judge: Judge, beginnings: list[str]) -> None:
    for asked in (judge, Pipeline(judge)):
        notes = list(judge_notes(asked, MULTIJAIL))
        assert len(notes) == len(beginnings)
        assert all(note.startswith(beginning) for note, beginning in zip(notes, beginnings, strict=True))


def test_spellings_are_no_other_languages() -> None:
    assert not list(judge_notes(PolyGuard(BACKEND), ["zh-Hant", "en", "pt-BR"]))
    assert list(judge_notes(WildGuard(BACKEND), ["en", "sw"])) == [
        "wildguard is documented for English only; 1 language is outside: sw"
    ]


@pytest.mark.parametrize(("rule", "outside"), [("translation", 0), ("any", 1), ("agree", 1)])
def test_translations_are_in_a_language_that_the_judge_is_documented_for(rule: Rule, outside: int) -> None:
    judge = TranslateTest(WildGuard(BACKEND), ChatTranslator(BACKEND), rule=rule)
    assert len(list(judge_notes(judge, MULTIJAIL))) == outside


def test_every_guard_says_what_it_is_documented_for() -> None:
    for family in GUARDS.names():
        assert "en" in make_guard(family, BACKEND).languages
