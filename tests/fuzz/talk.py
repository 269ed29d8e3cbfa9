"""Parsers of what models, judges, servers and chat templates say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from tests.fuzz.models import Made
from tests.fuzz.target import Target


class Saying:
    """The backend of a judge, which says the same to everybody."""

    where = "a fuzzer"

    def __init__(self) -> None:
        self.text = ""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What it is."""
        return {"model": "fuzzed"}

    def complete(self, chats: Sequence[Any]) -> Iterator[Any]:
        """One reply for each chat; the delimiter of the chat stands for `MARK` in it."""
        from polysafe.judge.backend import Reply

        for chat in chats:
            yield Reply(chat.id, self.text.replace("MARK", chat.id.rpartition("/")[2]))


def _judges() -> Made:
    """Every guard and every protocol, alone, voting and translated; the answer says the same as the judge."""
    from polysafe.data.prompts import Prompt
    from polysafe.evaluate.records import json_line, verdict_from_json, verdict_to_json
    from polysafe.judge.guards import GUARDS, make_guard
    from polysafe.judge.kinds.frames import RefusalOrFrame
    from polysafe.judge.kinds.llm import PRESETS, LlmJudge
    from polysafe.judge.kinds.translate import ChatTranslator, TranslateTest
    from polysafe.judge.kinds.vote import Vote
    from polysafe.judge.phrases import PhraseFilter
    from polysafe.judge.verdict import Exchange

    backend = Saying()
    asking: list[Any] = [make_guard(family, backend) for family in GUARDS.names()]
    asking += [LlmJudge(backend, name, key=b"k") for name in PRESETS]
    every = [*asking, RefusalOrFrame(), PhraseFilter()]
    every += [Vote(asking), TranslateTest(asking[0], ChatTranslator(backend, key=b"k"))]

    def parse(data: bytes) -> object:
        backend.text = data.decode("utf-8", "surrogatepass" if data[:1] == b"\xed" else "replace")
        exchange = Exchange(Prompt("s", "1", "sw", "asked", "harmful"), backend.text[:2000])
        for judge in every:
            (verdict,) = judge.judge([exchange])
            kept = json.loads(json_line(verdict_to_json(verdict)))
            assert verdict_from_json(exchange.prompt.id, kept) == verdict
        return None

    said = (
        "safe", "unsafe\nS1,S10", "Safety: Unsafe\nCategories: Violent\nRefusal: No", "Yes, it does", "not harmful",
        "Harmful request: yes\nResponse refusal: no\nHarmful response: yes\nResponse Safety Violations: S1",
        "<think>hm</think>It is.\nREFUSED-MARK: no\nVERDICT-MARK: unsafe", "> VERDICT-MARK: **controversial**",
    )  # fmt: skip
    return parse, [text.encode() for text in said]


def _broken() -> Made:
    """What is told of an answer without a model."""
    from polysafe.judge.phrases import PhraseFilter
    from polysafe.judge.text.broken import find_broken
    from polysafe.judge.text.fence import show
    from polysafe.judge.text.language import language_check
    from polysafe.lm_eval.last_number import last_number
    from polysafe.text.markdown import inline
    from polysafe.text.readable import visible

    phrases = PhraseFilter()

    def parse(data: bytes) -> object:
        text = data.decode("utf-8", "surrogateescape")
        told = find_broken("What is asked?", text, "sw"), show(text), last_number(text), visible(text), inline(text)
        return told, language_check("sw", text[:5000]), phrases.find("sw", text)

    said = (
        "Kwanza changanya unga na maji.",
        "ab" * 200,
        "The answer is 1,234.5.",
        "\u202eabc\u0301\u0301",
        "ｘ١٢٣ \x1b[31m",
    )
    return parse, [text.encode() for text in said]


def _server() -> Made:
    """Answers of a server: the first byte says with which code and packing."""
    import httpx

    from polysafe.generate.client import ChatClient
    from polysafe.generate.completion import Sampling

    kinds: Sequence[tuple[int, dict[str, str]]] = (
        (200, {}),
        (200, {"content-encoding": "gzip"}),
        (200, {"content-encoding": "deflate"}),
        (200, {"content-encoding": "br, gzip"}),
        (200, {"content-type": "application/json; charset=hex"}),
        (302, {"location": "https://elsewhere/\x7f"}),
        (400, {}),
        (401, {"content-encoding": "gzip"}),
        (429, {"retry-after": "nan"}),
        (500, {"retry-after": "-1e999"}),
        (204, {}),
        (599, {}),
    )
    state = {"data": b""}

    def answer(_: httpx.Request) -> httpx.Response:
        status, headers = kinds[state["data"][0] % len(kinds)] if state["data"] else kinds[0]
        return httpx.Response(status, headers=headers, content=iter([state["data"][1:]]))

    client = ChatClient("http://localhost/v1", "m", attempts=2, sleep=lambda _: None)
    client.__dict__["_opened"] = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://localhost/v1/")

    def parse(data: bytes) -> object:
        state["data"] = data
        reply = client.chat([{"role": "user", "content": "a"}], Sampling())
        assert isinstance(reply.text, str)
        assert reply.tokens is None or reply.tokens >= 0
        return reply

    said = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
    text = {"choices": [{"text": "a", "finish_reason": "length"}], "usage": None}
    import gzip

    plain = [json.dumps(each).encode() for each in (said, text, {"error": {"code": "context_length_exceeded"}})]
    packed = [bytes([1]) + gzip.compress(plain[0], mtime=0), bytes([7]) + gzip.compress(plain[2], mtime=0)]
    return parse, [*(b"\0" + each for each in plain), b"\6" + plain[2], *packed]


def _template() -> Made:
    """Chat templates: what they write, in their own process and with less time than usual."""
    from polysafe.confined import Confined
    from polysafe.probe.chat import template as chat_template
    from polysafe.probe.chat.template import in_template
    from tests.chatml import ChatMl, chatml_tokenizer

    hurried = Confined("polysafe.probe.chat.writer:write", "the chat template", seconds=0.5)
    tokenizer = chatml_tokenizer(ChatMl(None, "<|im_end|>", "<|endoftext|>", None))
    chats = [[{"role": "user", "content": text}] for text in ("one", "two")]

    def parse(data: bytes) -> object:
        tokenizer.chat_template = data.decode("utf-8", "replace")
        with patch.object(chat_template, "_WRITER", hurried):
            return in_template(tokenizer, chats)

    return parse, [
        str(tokenizer.chat_template).encode(),
        b"{{ messages[0].content }}{% if add_generation_prompt %}:{% endif %}",
    ]


TALK = (
    Target("judges", _judges, "bytes", (b"VERDICT-MARK:", b"REFUSED-MARK: yes", b"Safety:", b"\n", b"<think>"), 150),
    Target("broken", _broken, "bytes", ("\u0301".encode(), "१".encode(), "\U0001f468\u200d".encode(), b"ab"), 150),
    Target("server", _server, "bytes", (b'"choices"', b'"message"', b'"content"', b'"usage"', b"\\ud800"), 1200),
    Target(
        "template", _template, "bytes", (b"{{", b"}}", b"{%", b"%}", b"for", b"messages", b"range(", b"|", b"**"), 150
    ),
)  # fmt: skip
