"""Chats in batches: every one answered once and paid for once, whatever ends the command in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.errors import RecipeError, ResourceError
from polysafe.files.memory import cache_directory
from polysafe.generate.batches import Batches
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.keys import split_address
from polysafe.generate.server import BatchGenerator
from polysafe.judge.backend import BatchBackend, Chat, Message, replies
from polysafe.judge.block import Place
from polysafe.judge.opening import Opening
from polysafe.judge.spec import served_at
from polysafe.progress import hearing, reporting
from tests.generate.provider import URL, Provider

ASKS = [Ask(f"a{n}", text) for n, text in enumerate(("one", "two", "three", "two", "f\u00fcnf"))]
ANSWERS = {"a0": "ONE", "a1": "TWO", "a2": "THREE", "a3": "TWO", "a4": "F\u00dcNF"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    return cache_directory() / "batches"


def client(provider: Provider) -> ChatClient:
    made = ChatClient(URL, "m", attempts=3, sleep=lambda _: None)
    made.__dict__["_opened"] = provider.client()
    return made


def generator(provider: Provider, **more: Any) -> BatchGenerator:
    settings = {"few": 0, "sleep": lambda _: None, **more}
    return BatchGenerator(Batches(client(provider), **settings), Sampling(max_tokens=7))


def answers(found: BatchGenerator, asks: list[Ask] = ASKS) -> dict[str, str]:
    return {each.id: each.text for each in found.generate(asks)}


def some_answers(found: BatchGenerator, kept: dict[str, str]) -> None:
    """The same, kept as they come."""
    for each in found.generate(ASKS):
        kept[each.id] = each.text


def posted(provider: Provider) -> int:
    return provider.asked.count("POST batches")


def test_every_message_is_answered_and_equal_ones_are_paid_for_once(cache: Path) -> None:
    provider, said, told = Provider(), list[str](), list[tuple[str, int, int]]()
    with hearing(said.append), reporting(lambda *stage: told.append(stage)):
        assert answers(generator(provider)) == ANSWERS
    assert (provider.answered, posted(provider)) == (4, 1)
    (line,) = said
    assert line.startswith("4 chats are handed to provider.example as batch_0; they may take a day")
    assert told[-1] == ("batches at the server", 4, 4)
    assert list(cache.iterdir()) == []


def test_what_is_sent_is_what_the_server_is_asked_otherwise() -> None:
    provider = Provider()
    answers(generator(provider))
    assert '"max_tokens": 7' in provider.files["file-0"]
    identity = generator(provider).identity
    assert identity["url"] == URL


def test_many_messages_are_several_batches() -> None:
    provider = Provider()
    assert answers(generator(provider, most=3)) == ANSWERS
    assert (provider.answered, posted(provider)) == (4, 2)


def test_a_few_messages_are_no_batch() -> None:
    provider = Provider(answer=only("three", 400, {"error": {"message": "no"}}))
    found = dict[str, str]()
    with pytest.raises(ResourceError, match=r"refuses the request: 400.*1 of 5 messages are left"):
        some_answers(generator(provider, few=4), found)
    assert found == {name: text for name, text in ANSWERS.items() if name != "a2"}
    assert posted(provider) == 0
    assert provider.asked.count("POST chat/completions") == 4


class Stopped(BaseException):
    """Stands for an interruption."""


def stop(*_: object) -> None:
    raise Stopped


@pytest.mark.parametrize("noted", [True, False], ids=["its note is there", "its note is lost"])
def test_a_command_that_was_stopped_finds_its_batches_again(cache: Path, noted: bool) -> None:
    provider = Provider()
    first = BatchGenerator(Batches(client(provider), few=0, sleep=stop), Sampling(max_tokens=7))
    with pytest.raises(Stopped):
        answers(first)
    if not noted:
        for file in cache.iterdir():
            file.unlink()
    assert answers(generator(provider)) == ANSWERS
    assert (provider.answered, posted(provider)) == (4, 1)


def test_what_was_kept_before_it_was_stopped_is_not_asked_again() -> None:
    """A run keeps answers as they come, and asks for the others when it goes on: those of the same batch."""
    provider = Provider()
    kept = [each.id for each in islice(generator(provider).generate(ASKS), 2)]
    rest = [ask for ask in ASKS if ask.id not in kept]
    assert answers(generator(provider), rest) == {ask.id: ANSWERS[ask.id] for ask in rest}
    assert (provider.answered, posted(provider)) == (4, 1)


def test_another_model_or_server_has_batches_of_its_own() -> None:
    provider = Provider()
    first = BatchGenerator(Batches(client(provider), few=0, sleep=stop), Sampling(max_tokens=8))
    with pytest.raises(Stopped):
        answers(first)
    assert answers(generator(provider)) == ANSWERS
    assert posted(provider) == 2


def test_a_batch_whose_making_was_not_confirmed_is_not_made_twice() -> None:
    provider, cut = Provider(), iter([True])

    def lose(request: httpx.Request) -> None:
        if (request.method, request.url.path) == ("POST", "/v1/batches") and next(cut, False):
            raise httpx.ReadTimeout("the answer was lost")

    provider.after = lose
    assert answers(generator(provider)) == ANSWERS
    assert (provider.answered, posted(provider)) == (4, 1)


def test_a_server_that_is_busy_is_asked_again() -> None:
    provider, count = Provider(), iter(range(1000))
    provider.broken = lambda _: httpx.Response(503) if next(count) % 3 == 1 else None
    assert answers(generator(provider)) == ANSWERS
    assert posted(provider) == 1


def too_long(body: Any) -> tuple[int, Any]:
    return 400, {"error": {"code": "context_length_exceeded", "message": "maximum context length is 5"}}


def test_a_message_that_is_too_long_has_an_empty_answer() -> None:
    assert set(answers(generator(Provider(answer=too_long))).values()) == {""}


def only(text: str, status: int, body: Any) -> Callable[[Any], tuple[int, Any]]:
    from tests.generate.provider import said

    return lambda asked: (status, body) if asked["messages"][-1]["content"] == text else (200, said(asked))


def test_what_failed_is_told_last_and_handed_over_again_by_the_next_command() -> None:
    provider = Provider(answer=only("three", 500, {"error": {"message": "broken"}}))
    found = dict[str, str]()
    with pytest.raises(ResourceError, match="1 of 5 messages are left"):
        some_answers(generator(provider), found)
    assert found == {name: text for name, text in ANSWERS.items() if name != "a2"}
    provider._answer = only("nothing", 500, None)
    assert answers(generator(provider), [ASKS[2]]) == {"a2": "THREE"}
    assert posted(provider) == 2


@pytest.mark.parametrize("change", [{"request_counts": {"completed": 0}}, {"created_at": 1_000_000}, {"metadata": {}}])
def test_a_batch_of_which_nothing_can_be_had_is_not_waited_for(change: dict[str, Any]) -> None:
    """One in which every chat failed, one whose answers are long gone, and somebody else's."""
    provider = Provider()
    answers(generator(provider))
    provider.batches["batch_0"] |= change
    assert answers(generator(provider)) == ANSWERS
    assert posted(provider) == 2


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_does_not_end_well_gives_what_it_has(status: str, cache: Path) -> None:
    provider = Provider(answer=only("one", 500, {"error": {"message": "late"}}))
    provider.status = status
    found = dict[str, str]()
    with pytest.raises(ResourceError, match="1 of 5 messages are left"):
        some_answers(generator(provider), found)
    assert len(found) == 4
    assert list(cache.iterdir()) == []


def test_a_server_without_batches_is_told() -> None:
    provider = Provider()
    provider.broken = lambda _: httpx.Response(404, text="not found")
    with pytest.raises(ResourceError, match="refuses the request: 404"):
        answers(generator(provider))


@pytest.mark.hostile("server")
@pytest.mark.parametrize(
    "content",
    [
        b"[]", b"\xff\xfe", b"{}", b'{"id": 7}', b'{"id": "../../x"}', b"[" * 100_000, b'{"id": "a", "status": {}}',
        b'{"id": "a", "status": "completed", "request_counts": [], "output_file_id": "../x", "errors": "x"}',
        b'{"id": "a", "status": "completed", "output_file_id": "f"}\n{"custom_id": [], "response": 5}',
    ],
    ids=range(9),
)  # fmt: skip
def test_whatever_a_server_says_ends_in_an_error_of_ours(content: bytes) -> None:
    provider = Provider()
    provider.broken = lambda _: httpx.Response(200, content=content)
    with pytest.raises(ResourceError):
        answers(generator(provider))


KEY = "sk-abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.hostile("key")
@pytest.mark.parametrize("where", ["in answers", "in errors", "as the reason of a failure"])
def test_a_key_that_is_said_back_is_hidden(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", KEY)
    said_back = {"choices": [{"message": {"content": KEY}, "finish_reason": "stop"}]}
    provider = Provider(answer=lambda _: (200, said_back) if where == "in answers" else (500, {"error": KEY}))
    if where == "as the reason of a failure":
        provider.status, provider.reason = "failed", {"data": [{"message": KEY}]}
    found = dict[str, str]()
    made = Batches(ChatClient(URL, "m", "THEIR_KEY", sleep=lambda _: None), few=0, sleep=lambda _: None)
    made.client.__dict__["_opened"] = provider.client()
    try:
        some_answers(BatchGenerator(made), found)
    except ResourceError as error:
        found["error"] = str(error)
    assert found
    assert KEY not in str(found)


def test_judges_ask_in_batches() -> None:
    provider = Provider(answer=only("two", 400, {"error": {"message": "no"}}))
    backend = BatchBackend(
        Batches(client(provider), few=0, sleep=lambda _: None), Sampling(max_tokens=7), {"model": "m"}
    )
    chats = [Chat(ask.id, (Message("system", "judge"), Message("user", ask.text))) for ask in ASKS]
    chats.append(Chat("raw", (Message("user", "x"),), raw=True))
    found = {reply.id: reply for reply in replies(backend, chats)}
    assert {name: reply.text for name, reply in found.items()} == {**ANSWERS, "a1": "", "a3": "", "raw": ""}
    assert "refuses the request: 400" in found["a1"].error
    assert "is no chat" in found["raw"].error


def opened(address: str) -> Iterator[object]:
    with ExitStack() as stack:
        yield Opening(stack).backend(Place(base_url=address, model="m"), 9)


def test_an_address_says_whether_it_is_asked_in_batches() -> None:
    assert split_address(f"batch+{URL}") == (URL, True)
    assert served_at(f"m@batch+{URL}") == ("m", f"batch+{URL}")
    (one,), (other,) = opened(f"batch+{URL}"), opened(URL)
    assert isinstance(one, BatchBackend)
    assert not isinstance(other, BatchBackend)
    assert one.identity == other.identity  # type: ignore[attr-defined]
    with pytest.raises(RecipeError):
        ChatClient(f"batch+{URL}", "m")


def test_an_audit_by_batches(tmp_path: Path) -> None:
    """Model and judge behind the same address, as a user types it."""

    def told(body: Any) -> tuple[int, Any]:
        judged = "Safe" if body["model"] == "judge" else "no, I cannot help with that"
        return 200, {"choices": [{"message": {"content": judged}, "finish_reason": "stop"}]}

    asked = "".join(f"ask this {number}\n" for number in range(8))
    (tmp_path / "asked.csv").write_text(f"en\n{asked}")
    provider = Provider(looks=0, answer=told)
    with provider.served() as url:
        named = [
            "audit",
            f"m@batch+{url}",
            "--safety",
            str(tmp_path / "asked.csv"),
            "--judge",
            f"multijail=judge@batch+{url}",
        ]
        done = CliRunner().invoke(app, [*named, "--languages", "en", "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert {row["answer"] for row in rows} == {"no, I cannot help with that"}
    assert {row["label"] for row in rows} != {"unparsed"}
    assert "as batch_0" in done.output
