"""The test question: what every judge and translator is asked before anything long starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from polysafe.errors import DataError, PolysafeError, ResourceError
from polysafe.generate.client import UnservedError
from polysafe.judge.backend import Backend, Chat, ClientBackend, Reply
from polysafe.judge.guards import GUARDS
from polysafe.judge.guards.llama_guard import LlamaGuard
from polysafe.judge.guards.polyguard import PolyGuard
from polysafe.judge.guards.qwen3guard import Qwen3Guard
from polysafe.judge.guards.shieldgemma import ShieldGemma
from polysafe.judge.guards.wildguard import WildGuard
from polysafe.judge.kinds.llm import PRESETS, LlmJudge
from polysafe.judge.kinds.translate import ChatTranslator, TranslateTest
from polysafe.judge.kinds.vote import Vote
from polysafe.judge.phrases import PhraseFilter
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.probe import TEST, probe
from polysafe.judge.verdict import NO_AGREEMENT, NO_REPLY, Label, Verdict, unread
from tests.judge.helpers import STEPS, Scripted, always, exchanges, mark_of, only

THREE = "Harmful request: no\nResponse refusal: no\nHarmful response: no"
SAFE: dict[str, str] = {
    "qwen3guard": "Safety: Safe\nCategories: None\nRefusal: No",
    "llama_guard": "\n\nsafe",
    "polyguard": THREE,
    "wildguard": THREE,
    "shieldgemma": "No",
}


def says(word: str) -> Callable[[Chat], str]:
    return lambda chat: f"VERDICT-{mark_of(chat)}: {word}"


@pytest.mark.parametrize("family", GUARDS.names())
def test_every_guard_has_to_call_the_test_exchange_safe(family: str) -> None:
    backend = Scripted(lambda _: SAFE[family])
    probe(Pipeline(GUARDS.get(family)(backend)))
    assert all("capital of France" in chat.messages[0].content + chat.messages[-1].content for chat in backend.chats)


@pytest.mark.parametrize("protocol", PRESETS)
def test_every_protocol_has_a_word_for_it(protocol: str) -> None:
    safe = next(word for word, label in PRESETS[protocol].menu.items() if label is Label.SAFE)
    probe(LlmJudge(Scripted(says(safe)), protocol))
    with pytest.raises(DataError, match="calls a harmless exchange unsafe"):
        probe(
            LlmJudge(
                Scripted(says(next(w for w, label in PRESETS[protocol].menu.items() if label is Label.UNSAFE))),
                protocol,
            )
        )


class Cut(Scripted):
    """Its replies end where the budget does."""

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        yield from (Reply(reply.id, reply.text, cut=64) for reply in super().complete(chats))


def gone(chat: Chat) -> Reply:
    raise UnservedError("nobody is there", where="m@http://host/v1")


@pytest.mark.parametrize(
    ("backend", "kind", "told"),
    [
        (
            ClientBackend(gone, {}, where="m@http://host/v1"),
            ResourceError,
            r"^m@http://host/v1: the judge .* question: nobody is there\n",
        ),
        (Scripted(lambda _: None), ResourceError, "the backend gave no reply"),
        (Scripted(lambda _: "I rather not \x1b[2J say."), DataError, r"cannot read: 'I rather not \\x1b\[2J say\.'"),
        (Scripted(lambda _: "x" * 9999), DataError, r"'x{199}\n"),
        (Cut(lambda _: "Let me think"), DataError, "cut off at 64 tokens; it said 'Let me think'"),
    ],
)
def test_what_is_said_of_a_judge_that_cannot_judge(backend: Backend, kind: type[PolysafeError], told: str) -> None:
    with pytest.raises(kind, match=told) as refusal:
        probe(LlmJudge(backend))
    assert "no prompt was asked yet" in str(refusal.value)


def test_each_part_of_a_judge_is_tried_out_and_what_has_no_test_question_is_not() -> None:
    good, bad = (LlmJudge(Scripted(says(word), word)) for word in ("safe", "unsafe"))
    with pytest.raises(DataError, match="harmless exchange unsafe"):
        probe(Pipeline(Vote([good, bad])))
    probe(PhraseFilter())
    own = always(Label.UNSAFE)
    probe(own)
    assert not own.asked
    translating = TranslateTest(good, ChatTranslator(Scripted(lambda _: "The capital of France is Paris.")))
    probe(translating)
    for said, told in (("La capitale de la France est Paris.", "does not translate"), ("", "does not translate")):
        with pytest.raises(DataError, match=told):
            probe(TranslateTest(good, ChatTranslator(Scripted(lambda _, said=said: said))))  # type: ignore[misc]
    with pytest.raises(ResourceError, match="nobody is there"):
        probe(TranslateTest(good, ChatTranslator(ClientBackend(gone, {}))))


def test_budgets_are_those_of_the_formats() -> None:
    needed = {guard: guard.reply_tokens for guard in (Qwen3Guard, LlamaGuard, PolyGuard, WildGuard, ShieldGemma)}
    assert list(needed.values()) == [128, 64, 192, 32, 8]
    assert {name: LlmJudge(Scripted(lambda _: ""), name).reply_tokens for name in PRESETS} == {
        name: 256 if preset.refusal else 228 for name, preset in PRESETS.items()
    }


def reason(verdict: Verdict) -> str:
    assert verdict.label is Label.UNPARSED
    return unread(verdict)


def test_why_there_is_no_verdict() -> None:
    assert reason(only(LlmJudge(Scripted(lambda _: "hm")), STEPS)) == "no readable verdict"
    assert reason(only(LlmJudge(Cut(lambda _: "hm")), STEPS)) == "cut off at 64 tokens"
    assert reason(only(LlmJudge(ClientBackend(gone, {})), STEPS)) == NO_REPLY
    assert unread(only(LlmJudge(Cut(says("safe"))), STEPS)) == ""  # what is readable counts, cut off or not
    silent, safe = LlmJudge(ClientBackend(gone, {})), always(Label.SAFE, "safe")
    assert reason(only(Vote([silent, safe]), STEPS)) == NO_REPLY
    assert reason(only(Vote([always(Label.UNSAFE, "unsafe"), safe]), STEPS)) == NO_AGREEMENT


@pytest.mark.fault(21, "offline")
def test_a_server_that_is_gone_is_left_alone_and_one_that_stumbles_is_not() -> None:
    sent: list[str] = []

    def dead(chat: Chat) -> Reply:
        sent.append(chat.id)
        return gone(chat)

    found = list(LlmJudge(ClientBackend(dead, {}, workers=2)).judge(exchanges(*["x"] * 50)))
    assert {unread(verdict) for verdict in found} == {NO_REPLY}
    assert len(found) == 50
    assert len(sent) < 10

    def stumbling(chat: Chat) -> Reply:
        sent.append(chat.id)
        return gone(chat) if len(sent) % 2 else Reply(chat.id, says("safe")(chat))

    sent.clear()
    assert len(list(LlmJudge(ClientBackend(stumbling, {}, workers=2)).judge(exchanges(*["x"] * 50)))) == 50
    assert len(sent) == 50


def test_the_test_exchange_is_harmless_and_in_no_benchmark() -> None:
    assert (TEST.prompt.text, TEST.answer) == ("What is the capital of France?", "The capital of France is Paris.")
