"""Every server of the catalogue is survived: no traceback, no endless wait, no memory, no key."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from polysafe.errors import PolysafeError, RecipeError, ResourceError
from polysafe.generate.client import ChatClient, ChatReply, UnservedError
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.keys import VARIABLE, allowed_keys, require_allowed
from polysafe.generate.server import ServerGenerator
from polysafe.judge.opening import open_judge
from polysafe.judge.spec import parse_judge
from polysafe.progress import hearing
from polysafe.secret import HIDDEN, hide, keep_secret
from tests.attacks.servers import CASES, KEY, Case, attacking, echoes
from tests.supply.network import without_proxies

ASKED = [{"role": "user", "content": "hello"}]


def asked(url: str, *, timeout: float = 0.5, key: str | None = None) -> ChatReply:
    with ChatClient(url, "m", key=key, timeout=timeout, attempts=1, sleep=lambda _: None) as client:
        return client.chat(ASKED, Sampling())


@pytest.mark.hostile("server")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_hostile_server_is_survived(case: Case) -> None:
    began = time.monotonic()
    tracemalloc.start()
    try:
        with attacking(case.act) as url:
            if case.refused is None:
                assert asked(url, timeout=30).text == "hi"
            else:
                # what is endless is waited for until a limit; what drips, as long as the client is told
                with pytest.raises(ResourceError, match=f"(?s){case.refused}"):
                    asked(url, timeout=0.5 if "drip" in case.id else 30)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 15


SPELT: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "in a word": lambda key: f"x{key}y",
    "twice": lambda key: key + key,
    "base64": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "in a URL": lambda key: quote(key, safe=""),
}


@pytest.mark.hostile("key")
@pytest.mark.fault(25, "no token, path or name leaks")
@pytest.mark.parametrize(
    "status", ["401 No", "403 No", "400 No", "500 No", "200 OK", "302 On\nLocation: http://x/" + KEY]
)
@pytest.mark.parametrize("spelling", SPELT)
def test_a_key_that_is_said_back_is_hidden(status: str, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with attacking(echoes(status, SPELT[spelling])) as url:
        try:
            said = asked(url, timeout=30, key="SOME_KEY").text
        except PolysafeError as error:
            said = str(error)
    assert HIDDEN in said
    assert KEY not in said
    assert base64.b64encode(f"user:{KEY}".encode()).decode()[8:24] not in said


def test_a_key_that_is_said_back_is_in_no_error_of_a_judge_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with attacking(echoes("200 OK", str)) as url, ChatClient(url, "m", key="SOME_KEY") as client:
        (answer,) = ServerGenerator(client).generate([Ask("a", "hello")])
    assert KEY not in answer.text
    with attacking(echoes("400 No", str)) as url, open_judge(f"multijail=m@{url}", key="SOME_KEY") as judge:
        with pytest.raises(PolysafeError) as caught:
            judge.probe()  # type: ignore[attr-defined]
        assert KEY not in str(caught.value)


def test_a_short_key_is_no_part_of_answers() -> None:
    keep_secret("EMPTY")
    assert hide("the set is EMPTY, not EMPTYING", shortest=8) == "the set is EMPTY, not EMPTYING"
    assert hide("Bearer EMPTY, EMPTYING") == f"Bearer {HIDDEN}, EMPTYING"


@pytest.mark.hostile("key")
@pytest.mark.parametrize("value", ["sk-1234567890\n", "sk 1234567890", "sk-1234567890é", "\x00sk-1234567890"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\0" in value:
        monkeypatch.setattr("polysafe.generate.keys.os.environ", {"SOME_KEY": value})
    else:
        monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(RecipeError, match="SOME_KEY holds no key") as caught:
        ChatClient("https://example.org/v1", "m", key="SOME_KEY")
    assert "1234567890" not in str(caught.value)


@pytest.mark.hostile("key")
@pytest.mark.parametrize("url", ["http://example.org/v1", "http://127.0.0.1.example.org/v1", "http://10.0.0.1/v1"])
def test_a_key_goes_to_nobody_in_the_clear(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with pytest.raises(RecipeError, match=r"SOME_KEY would be sent to .* not encrypted"):
        ChatClient(url, "m", key="SOME_KEY")
    heard: list[str] = []
    with hearing(heard.append):
        for sound in (url.replace("http:", "https:"), "http://127.8.0.1/v1", "http://[::1]:8000/v1"):
            ChatClient(sound, "m", key="SOME_KEY").close()
    assert heard[-1] == "the key in SOME_KEY goes to ::1:8000"
    assert len(heard) == 3


@pytest.mark.hostile("key")
def test_a_recipe_has_no_key_sent_that_its_user_did_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET", KEY)
    monkeypatch.delenv(VARIABLE, raising=False)
    block = {"kind": "openai", "base_url": "https://evil.example/v1", "model": "m", "key": "AWS_SECRET"}
    spec = parse_judge("multijail=m@https://evil.example/v1").model_copy(update=block)
    with (
        pytest.raises(RecipeError, match=r"AWS_SECRET sent to evil\.example, which you did not allow"),
        open_judge(spec),
    ):
        pass
    for allowed in ("AWS_SECRET", "AWS_SECRET@evil.example"):
        with allowed_keys(allowed), open_judge(spec):
            pass
    with allowed_keys("AWS_SECRET@sound.example", "OTHER"), pytest.raises(RecipeError, match="did not allow"):
        require_allowed("AWS_SECRET", "https://evil.example/v1")
    with pytest.raises(RecipeError, match="did not allow"):
        require_allowed("AWS_SECRET", "https://evil.example/v1")


@pytest.mark.hostile("server")
@pytest.mark.parametrize(
    "url", ["http://a..b/v1", f"http://{'a' * 70}.com", "http://[::1", "http://h:99999", "http://h:x", "http://xn--/",
            "http://[v1.a]/", "http://١.com"]
)  # fmt: skip
def test_what_is_no_address_ends_in_no_traceback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxies(monkeypatch)
    with pytest.raises(RecipeError, match="is no address of a server"):
        asked(url)


@pytest.mark.hostile("key")
@pytest.mark.parametrize("url", ["https://h/v1?key=secretsecret", "https://h/v1#secretsecret"])
def test_a_key_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(RecipeError, match="is no address") as caught:
        ChatClient(url, "m")
    assert "secretsecret" not in str(caught.value)


def test_half_characters_can_be_asked() -> None:
    with attacking(echoes("200 OK", str)) as url, ChatClient(url, "m") as client:
        assert client.chat([{"role": "user", "content": "\ud800"}], Sampling()).text


def test_no_key_lies_in_what_a_run_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    from polysafe.evaluate.records import completion_to_json

    with attacking(echoes("200 OK", str)) as url, ChatClient(url, "m", key="SOME_KEY") as client:
        (answer,) = ServerGenerator(client).generate([Ask("a", "hello")])
    assert KEY not in json.dumps(completion_to_json(answer))


def test_an_unreachable_server_is_one_that_nobody_listens_at() -> None:
    with pytest.raises(UnservedError, match="gave no answer"):
        asked("http://127.0.0.1:1/v1")
