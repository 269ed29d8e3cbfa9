"""One HTTP client for every server with an OpenAI-compatible interface: vLLM, SGLang, llama.cpp, `transformers serve`.

A request that may succeed when it is made again is made again: dropped connections, timeouts, too many requests, errors
of the server, answers that are no JSON. The wait doubles and is drawn at random, so that many workers do not knock at
once; a server that says when to come back is believed. A prompt that the server calls too long for its model has an
empty answer, as it has in this process. Everything else is an error that says what the server said.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from polysafe.errors import RecipeError, ResourceError
from polysafe.generate.completion import Ending, Sampling

if TYPE_CHECKING:
    import httpx

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|model's context length", re.IGNORECASE
)
"""How servers say that a prompt does not fit: the codes of OpenAI's API and llama.cpp, the words of vLLM and SGLang."""
_LONGEST_WAIT = 60.0
_SHOWN = 300
_UNMET = 3  # attempts to reach a server at which nobody ever listened; one that was there may only be starting again
_CONNECT = 10.0  # seconds to wait for a connection; an answer may take far longer
_UNSERVED = frozenset({401, 403, 404})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class UnservedError(ResourceError):
    """A server serves nobody, or not us: it gave no answer in all attempts, refuses the key, or lacks the model.

    What was not answered for this reason may be answered later.
    """


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a server answered.

    Attributes:
        text: The answer; empty where the server says that its model cannot read a prompt of that length.
        ending: Whether the model ended it, or the budget.
        tokens: New tokens, None where the server does not say.
    """

    text: str
    ending: Ending
    tokens: int | None


@dataclass(frozen=True)
class ChatClient:
    """Asks one model of one server. Safe to use from several threads; connections stay open until it is closed.

    Attributes:
        url: Base address up to and with `/v1`.
        model: Name of the model on the server.
        key: Name of the environment variable that holds the key, None for none; the key is neither shown nor kept.
        timeout: Seconds that a request may take.
        attempts: Times that a request is made before it is given up.
        wait: Seconds of the first wait.
        sleep: How waits are spent; for tests.
    """

    url: str
    model: str
    key: str | None = None
    timeout: float = 300.0
    attempts: int = 8
    wait: float = 0.5
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    _met: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the address.

        Raises:
            RecipeError: It is no address of a web server, or the variable of the key is not set.
        """
        parts = urlsplit(self.url)
        named = parts.username is not None or parts.password is not None
        if parts.scheme not in {"http", "https"} or not parts.hostname or named:
            raise RecipeError(
                "is no address of a server" + (": it holds a name or a password" if named else ""),
                where=parts.hostname if named else self.url,  # a password is not shown
                remedy="use for example http://localhost:8000/v1, and an environment variable for a key",
            )
        if self.key is not None and not os.environ.get(self.key):
            raise RecipeError(f"the environment variable {self.key} holds no key", remedy=f"export {self.key}=…")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if "_http" in self.__dict__:
            self._http.close()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Server and model; what stands behind them only their operator knows."""
        return {"engine": "server", "url": self.url.rstrip("/"), "model": self.model}

    @property
    def where(self) -> str:
        """Model and address, as the command line names them."""
        return f"{self.model}@{self.url}"

    def chat(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> ChatReply:
        """The answer to a conversation.

        Args:
            messages: Role and content of each message.
            sampling: How the answer is drawn.

        Raises:
            UnservedError: No attempt succeeded, or the server refuses the key or lacks the model; says what it said
                last.
            ResourceError: The server refuses the request.
        """
        return self._asked("chat/completions", {"messages": [dict(message) for message in messages]}, sampling)

    def complete(self, text: str, sampling: Sampling) -> ChatReply:
        """What follows a text, without a chat template around it.

        Args:
            text: The text; the server adds the token that begins every text.
            sampling: How the continuation is drawn.

        Raises:
            ResourceError: As for `chat`.
        """
        return self._asked("completions", {"prompt": text}, sampling)

    def _asked(self, path: str, question: Mapping[str, Any], sampling: Sampling) -> ChatReply:
        body = {"model": self.model, **question, **_settings(sampling)}
        problem, pause, made = "", 0.0, 0
        while made < (self.attempts if self._met.is_set() else min(self.attempts, _UNMET)):
            if made:
                self.sleep(max(pause, random.uniform(0.0, min(_LONGEST_WAIT, self.wait * 2.0**made))))  # noqa: S311
            reply, problem, pause = self._attempt(path, body)
            if reply is not None:
                return reply
            made += 1
        raise UnservedError(
            f"gave no answer in {made} attempts; last: {problem}",
            where=self.where,
            remedy="check that the server runs and keeps up; what was answered is kept, run again to go on",
        )

    def _attempt(self, path: str, body: Mapping[str, Any]) -> tuple[ChatReply | None, str, float]:
        """An answer, or why there is none and how long the server wants to be left alone.

        Raises:
            ResourceError: Asking again would not help.
        """
        import httpx

        try:
            response = self._http.post(path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return None, f"{type(error).__name__}: {error}", 0.0
        except httpx.TransportError as error:
            self._met.set()
            return None, f"{type(error).__name__}: {error}", 0.0
        self._met.set()
        if response.status_code in AGAIN:
            return None, f"{response.status_code} {response.text[:_SHOWN]}", _retry_after(response.headers)
        if 400 <= response.status_code < 500 and _TOO_LONG.search(response.text):
            return ChatReply("", "length", 0), "", 0.0
        if response.status_code != 200:
            kind = UnservedError if response.status_code in _UNSERVED else ResourceError
            raise kind(
                f"refuses the request: {response.status_code} {response.text[:_SHOWN]}",
                where=self.where,
                remedy="check the model's name, the key, and the longest prompt that the server takes",
            )
        reply = _parsed(response)
        return reply, "" if reply else f"no answer of the expected form: {response.text[:_SHOWN]}", 0.0

    @cached_property
    def _http(self) -> httpx.Client:
        try:
            import httpx
        except ImportError as error:
            raise ResourceError(
                "asking a server needs the package httpx", remedy="pip install 'polysafe[server]'"
            ) from error
        headers = {"Authorization": f"Bearer {os.environ[self.key]}"} if self.key is not None else {}
        # a proxy of the environment has no business with a server on this machine
        environment = urlsplit(self.url).hostname not in _LOOPBACK
        base = self.url.rstrip("/") + "/"
        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, _CONNECT))
        return httpx.Client(base_url=base, headers=headers, timeout=timeout, trust_env=environment)


def _settings(sampling: Sampling) -> dict[str, Any]:
    drawn = {"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {}
    return {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "stream": False, **drawn}


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait; its dates are not read, since clocks differ."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


def _parsed(response: httpx.Response) -> ChatReply | None:
    try:
        content = response.json()
        choice = content["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        reason = choice.get("finish_reason")
        tokens = (content.get("usage") or {}).get("completion_tokens")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if text is None:
        text = ""
    if not isinstance(text, str):
        return None
    return ChatReply(text, "length" if reason == "length" else "stop", tokens if isinstance(tokens, int) else None)
