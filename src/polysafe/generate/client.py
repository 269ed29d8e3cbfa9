"""One HTTP client for every server with an OpenAI-compatible interface: vLLM, SGLang, llama.cpp, `transformers serve`.

A request that may succeed when it is made again is made again: dropped connections, timeouts, too many requests, errors
of the server, answers that are no JSON. The wait doubles and is drawn at random, so that many workers do not knock at
once; a server that says when to come back is believed. A prompt that the server calls too long for its model has an
empty answer, as it has in this process. Everything else is an error that says what the server said.

A server is a stranger. What it sends is bounded in time and size (`exchange.py`), and the key, which it could say back,
is taken out of whatever it says.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from polysafe.errors import RecipeError, ResourceError
from polysafe.generate.completion import Ending, Sampling
from polysafe.generate.exchange import Answer, UnreadableError, bounded, exchange
from polysafe.generate.keys import host_of, is_loopback, read_key
from polysafe.progress import say
from polysafe.secret import LONG, hide

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|model's context length", re.IGNORECASE
)
"""How servers say that a prompt does not fit: the codes of OpenAI's API and llama.cpp, the words of vLLM and SGLang."""
_LONGEST_WAIT = 60.0
_SHOWN = 300
_MOST_TOKENS = 2**53  # what every reader of JSON can hold
_UNMET = 3  # attempts to reach a server at which nobody ever listened; one that was there may only be starting again
_CONNECT = 10.0  # seconds to wait for a connection; an answer may take far longer
_UNSERVED = frozenset({401, 403, 404})
_OF_PROMPTS = frozenset({400, 413, 422})  # what is said of the prompt; of the key or the model's name, other codes are


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
        timeout: Seconds that a request may take, until the last byte of the answer.
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
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _met: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the address, and that the key may go there.

        Raises:
            RecipeError: It is no address of a web server; or the variable holds no key, or it would be sent for
                everybody on the way to read.
        """
        _check_address(self.url)
        if self.key is not None:
            read_key(self.key, self.url)
            say(f"the key in {self.key} goes to {host_of(self.url)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if "_opened" in self.__dict__:
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
        return self.ask(self.question(messages, sampling))

    def ask(self, question: Mapping[str, Any]) -> ChatReply:
        """The answer to what `question` makes.

        Raises:
            ResourceError: As for `chat`.
        """
        return self._asked("chat/completions", question)

    def complete(self, text: str, sampling: Sampling) -> ChatReply:
        """What follows a text, without a chat template around it.

        Args:
            text: The text; the server adds the token that begins every text.
            sampling: How the continuation is drawn.

        Raises:
            ResourceError: As for `chat`.
        """
        return self._asked("completions", {"model": self.model, "prompt": text, **_settings(sampling)})

    def question(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> dict[str, Any]:
        """What `chat` sends."""
        return {"model": self.model, "messages": [dict(message) for message in messages], **_settings(sampling)}

    def _asked(self, path: str, body: Mapping[str, Any]) -> ChatReply:
        content = json.dumps(body).encode("ascii")
        return self.tried(lambda http: exchange(http, path, content, self.timeout), reply_of)

    def tried(
        self, send: Callable[[httpx.Client], Answer], read: Callable[[Answer], T | None], attempts: int | None = None
    ) -> T:
        """What is read off an answer; the request is made again while that may help.

        Args:
            send: Makes the request.
            read: Reads an answer; None where it has not the expected form.
            attempts: Times that it is made, by default those of the client.

        Raises:
            UnservedError: No attempt succeeded, or the server refuses the key or lacks the model; says what it said
                last.
            ResourceError: The server refuses the request.
        """
        most = attempts or self.attempts
        problem, pause, made = "", 0.0, 0
        while made < (most if self._met.is_set() else min(most, _UNMET)):
            if made:
                self.sleep(max(pause, random.uniform(0.0, min(_LONGEST_WAIT, self.wait * 2.0**made))))  # noqa: S311
            reply, problem, pause = self._attempt(send, read)
            if reply is not None:
                return reply
            made += 1
        raise UnservedError(
            f"gave no answer in {made} attempts; last: {problem}",
            where=self.where,
            remedy="check that the server runs and keeps up; what was answered is kept, run again to go on",
        )

    def _attempt(
        self, send: Callable[[httpx.Client], Answer], read: Callable[[Answer], T | None]
    ) -> tuple[T | None, str, float]:
        """An answer, or why there is none and how long the server wants to be left alone.

        Raises:
            ResourceError: Asking again would not help.
        """
        import httpx

        try:
            answer = send(self._http)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _no_address(self.url) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return None, _told(error), 0.0
        except (httpx.TransportError, UnreadableError) as error:
            self._met.set()
            return None, _told(error), 0.0
        self._met.set()
        if answer.status in AGAIN:
            return None, f"{answer.status} {_shown(answer)}", _retry_after(answer.headers)
        reply = read(answer)
        if reply is None and answer.status != 200:
            raise self.refused(answer)
        return reply, "" if reply is not None else f"no answer of the expected form: {_shown(answer)}", 0.0

    def refused(self, answer: Answer) -> ResourceError:
        """The error for an answer that is none."""
        kind = UnservedError if answer.status in _UNSERVED else ResourceError
        if 300 <= answer.status < 400:
            other = hide(answer.headers.get("location", "nowhere"))[:_SHOWN]
            return kind(
                f"sends its clients to another place ({answer.status}), where nobody is followed: {other}",
                where=self.where,
                remedy="if you trust it, give that address",
            )
        return kind(
            f"refuses the request: {answer.status} {_shown(answer)}",
            where=self.where,
            remedy="check the model's name, the key, and the longest prompt that the server takes",
        )

    @property
    def _http(self) -> httpx.Client:
        with self._lock:  # from Python 3.12 on, threads that come at once would each open their own, and one be closed
            return self._opened

    @cached_property
    def _opened(self) -> httpx.Client:
        try:
            import httpx
        except ImportError as error:
            raise ResourceError(
                "asking a server needs the package httpx", remedy="pip install 'polysafe[server]'"
            ) from error
        # Answers are short, so that nothing is gained by packing them, and a packed one may be of any size.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {read_key(self.key, self.url)}"
        # a proxy of the environment has no business with a server on this machine
        environment = not is_loopback(self.url)
        base = self.url.rstrip("/") + "/"
        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, _CONNECT))
        return bounded(httpx.Client(base_url=base, headers=headers, timeout=timeout, trust_env=environment))


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is no number, or a bracket is missing
        raise _no_address(url) from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # a password is not shown
        raise _no_address(parts.hostname, ": it holds a name, a password or a question")
    if not whole:
        raise _no_address(url)


def _no_address(where: str | None, why: str = "") -> RecipeError:
    return RecipeError(
        f"is no address of a server{why}",
        where=where,
        remedy="use for example http://localhost:8000/v1, and an environment variable for a key",
    )


def _told(error: Exception) -> str:
    return hide(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _shown(answer: Answer) -> str:
    """The beginning of what a server says, without our key, which it may say back."""
    return hide(answer.text)[:_SHOWN]


def _settings(sampling: Sampling) -> dict[str, Any]:
    drawn = {"top_p": sampling.top_p, "seed": sampling.seed} if sampling.temperature else {}
    return {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "stream": False, **drawn}


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait; its dates are not read, since clocks differ."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


def reply_of(answer: Answer) -> ChatReply | None:
    """The reply in an answer, None where there is none; an empty one where the prompt is too long for the model."""
    if answer.status in _OF_PROMPTS and _TOO_LONG.search(answer.text):
        return ChatReply("", "length", 0)
    return _parsed(answer) if answer.status == 200 else None


def _parsed(answer: Answer) -> ChatReply | None:
    try:
        content = json.loads(answer.content)
        choice = content["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        reason = choice.get("finish_reason")
        tokens = (content.get("usage") or {}).get("completion_tokens")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if text is None:
        text = ""
    if not isinstance(text, str):
        return None
    counted = type(tokens) is int and 0 <= tokens < _MOST_TOKENS
    return ChatReply(hide(text, shortest=LONG), "length" if reason == "length" else "stop", tokens if counted else None)
