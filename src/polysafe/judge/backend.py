"""How judges reach the models that they ask: chats in, replies out.

A backend answers greedily and never invents a reply: what could not be asked or answered comes back as a reply with an
error, and the judge makes it `UNPARSED`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from polysafe.errors import PolysafeError, ResourceError
from polysafe.generate.client import UnservedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from polysafe.generate.batches import Batches
    from polysafe.generate.completion import Sampling
    from polysafe.generate.shared_prefix import SharedPrefix
    from polysafe.probe.chat.template import Written
    from polysafe.probe.model import LoadedModel

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One message of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """What a judge wants answered.

    Attributes:
        id: Name of the chat, unique within a call.
        messages: Its messages, oldest first.
        raw: The one message is the whole text that the model reads: no chat template around it. Control tokens that it
            spells are control tokens.
        parts: The chat template wants the content of a message as a list of typed parts (Llama Guard 4).
    """

    id: str
    messages: tuple[Message, ...]
    raw: bool = False
    parts: bool = False

    def as_json(self) -> list[dict[str, Any]]:
        """The messages as chat templates and OpenAI-compatible servers take them."""
        if self.parts:
            return [{"role": m.role, "content": [{"type": "text", "text": m.content}]} for m in self.messages]
        return [{"role": m.role, "content": m.content} for m in self.messages]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        id: Name of the chat.
        text: The reply; empty where there is none.
        error: Why there is no reply, empty where there is one.
        again: There is none because nobody answered; another time there may be one.
        cut: Tokens after which the budget ended it, None where the model did.
    """

    id: str
    text: str
    error: str = ""
    again: bool = False
    cut: int | None = None


class Backend(Protocol):
    """Something that answers chats."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides a reply besides the chat, in values that JSON can hold."""

    @property
    def where(self) -> str:
        """The model and where it is, for messages."""

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        """Replies, each as soon as it is there, in any order.

        Raises:
            ResourceError: The model does not fit, or the server stays unreachable.
        """


def replies(backend: Backend, chats: Sequence[Chat]) -> Iterator[Reply]:
    """Exactly one reply for every chat, whatever the backend does: what it leaves out comes last, as an error."""
    open_ = dict.fromkeys(chat.id for chat in chats)
    for reply in backend.complete(chats):
        if reply.id in open_:
            del open_[reply.id]
            yield reply
    for name in open_:
        yield Reply(name, "", "the backend gave no reply", again=True)


class ClientBackend:
    """Asks a server through a client's function, a bounded number of chats at a time.

    A server that left as many chats in a row unanswered as may be in flight is gone: the rest is not sent, since the
    patience of thousands of chats would take days.

    Args:
        send: Answers one chat; retries and timeouts are its business. What it raises for good (`PolysafeError`) becomes
            the error of that reply.
        identity: Server, model and sampling.
        workers: Most chats in flight.
        where: The model and its address, for messages.

    Attributes:
        apart: It waits for another machine, and can do so while this one is busy.
    """

    apart: ClassVar[bool] = True

    def __init__(
        self, send: Callable[[Chat], Reply], identity: Mapping[str, Any], workers: int = 8, where: str = ""
    ) -> None:
        self._send = send
        self._identity = dict(identity)
        self._workers = workers
        self.where = where or str(identity.get("model", "the judge's server"))

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the client says of itself."""
        return self._identity

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        """Replies as they arrive; leaving the iterator drops what was not sent yet."""
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="judge")
        silent = _Silence(self._workers)
        try:
            for done in as_completed([pool.submit(self._reply, chat, silent) for chat in chats]):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _reply(self, chat: Chat, silent: _Silence) -> Reply:
        if silent.lasting:
            return Reply(chat.id, "", f"not sent: {silent.lasting}", again=True)
        try:
            reply = self._send(chat)
        except UnservedError as error:
            silent.heard(str(error))
            return Reply(chat.id, "", str(error), again=True)
        except PolysafeError as error:
            reply = Reply(chat.id, "", str(error))
        silent.heard("")
        return reply


class BatchBackend:
    """Has a server answer chats in batches, within a day.

    Args:
        batches: The server.
        sampling: How replies are drawn.
        identity: Server, model and sampling: those of a server that is asked one chat at a time.
    """

    def __init__(self, batches: Batches, sampling: Sampling, identity: Mapping[str, Any]) -> None:
        self._batches, self._sampling, self._identity = batches, sampling, dict(identity)
        self.where = batches.client.where

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the client says of itself."""
        return self._identity

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        """Replies, batch by batch; a text without a chat around it is no request that batches take."""
        asked = [chat for chat in chats if not chat.raw]
        yield from (Reply(chat.id, "", "is no chat, and batches hold chats alone") for chat in chats if chat.raw)
        questions = [self._batches.client.question(chat.as_json(), self._sampling) for chat in asked]
        for place, found in self._batches.answers(questions):
            name = asked[place].id
            if isinstance(found, ResourceError):
                yield Reply(name, "", str(found), again=isinstance(found, UnservedError))
            else:
                yield Reply(name, found.text, cut=self._sampling.max_tokens if found.ending == "length" else None)


class _Silence:
    """How long a server has been silent.

    Args:
        most: Chats without an answer, one after the other, after which nobody is there.

    Attributes:
        lasting: What was said last of a server that is gone; empty while it is there.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count, self._lock = most, 0, threading.Lock()
        self.lasting = ""

    def heard(self, error: str) -> None:
        """Counts a chat that was answered, or was not and why."""
        with self._lock:
            self._count = self._count + 1 if error else 0
            if self._count >= self._most:
                self.lasting = error


class LocalBackend:
    """A model in this process, with its own chat template: greedy, left-padded batches of similar length.

    Args:
        loaded: The judge's model.
        tokenizer: Its tokenizer.
        max_tokens: Most new tokens of a reply; every protocol and guard says how many it needs, as `reply_tokens`.
        batch_size: Most chats that run together; fewer where memory or, on a processor, time is short.
    """

    def __init__(
        self, loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int, batch_size: int = 16
    ) -> None:
        self._loaded = loaded
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self.where = loaded.source.checkpoint.origin
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        self._control = sorted((text for text in added if len(text) > 2 and text.strip()), key=len, reverse=True)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer with template, type and budget."""
        return {
            "engine": "transformers",
            "weights": self._loaded.sha256,
            "tokenizer": _tokenizer_sha256(self._tokenizer),
            "dtype": self._loaded.dtype,
            "max_tokens": self._max_tokens,
        }

    @cached_property
    def _shared(self) -> SharedPrefix:
        """What a protocol or a guard writes before every exchange, run once."""
        from polysafe.generate.shared_prefix import SharedPrefix

        return SharedPrefix(self._loaded)

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        """Replies, the longest chats first so that memory runs out early or not at all."""
        from polysafe.generate.local import TOKENS
        from polysafe.probe.batches import Pace, fitting_batches

        encoded: dict[str, list[int]] = {}
        for chat, tokens in zip(chats, self._encode(chats), strict=True):
            if isinstance(tokens, str):
                yield Reply(chat.id, "", tokens)
            else:
                encoded[chat.id] = tokens
        names = sorted(encoded, key=lambda name: -len(encoded[name]))

        def too_large(place: int, error: Exception) -> ResourceError:
            return ResourceError(
                f"chat {names[place]!r} does not fit the device of the judge's model: {error}",
                remedy="use a smaller judge, or another device",
            )

        for batch, said in fitting_batches(
            [len(encoded[name]) + self._max_tokens for name in names],
            lambda batch: self._generate([encoded[names[place]] for place in batch]),
            tokens=TOKENS,
            most=self._batch_size,
            too_large=too_large,
            pace=Pace.of(self._loaded.device),
        ):
            yield from (Reply(names[place], text, cut=cut) for place, (text, cut) in zip(batch, said, strict=True))

    def _encode(self, chats: Sequence[Chat]) -> Iterator[list[int] | str]:
        """Token ids of every chat, or why it cannot be asked."""
        from polysafe.probe.chat.rules import require_encodable

        room = min(self._loaded.max_tokens or 2**31, self._tokenizer.model_max_length) - self._max_tokens
        for chat, written in zip(chats, self._render(chats), strict=True):
            if written.problem:
                yield f"the chat template refuses the chat: {written.problem}"
                continue
            require_encodable(self._tokenizer, [written.text])
            tokens = list(self._tokenizer(written.text, add_special_tokens=chat.raw, verbose=False)["input_ids"])
            yield tokens if len(tokens) <= room else f"the chat has {len(tokens)} tokens, the judge takes {room}"

    def _render(self, chats: Sequence[Chat]) -> list[Written]:
        from polysafe.probe.chat.template import Written, in_template

        asked = [self._plain(chat).as_json() for chat in chats if not chat.raw]
        written = iter(in_template(self._tokenizer, asked) if asked else ())
        return [Written(chat.messages[0].content) if chat.raw else next(written) for chat in chats]

    def _plain(self, chat: Chat) -> Chat:
        safe = tuple(Message(m.role, self._without_control(m.content)) for m in chat.messages)
        return Chat(chat.id, safe, parts=chat.parts)

    def _without_control(self, content: str) -> str:
        """The content with a space inside whatever this tokenizer would read as a control token.

        Judges take out the markers of all formats that they know; this catches the ones that only this model has.
        """
        for control in self._control:
            if control in content:
                content = content.replace(control, f"{control[:1]} {control[1:]}")
        return content

    def _generate(self, rows: Sequence[Sequence[int]]) -> list[tuple[str, int | None]]:
        """Texts, each with the number of tokens after which the budget ended it, None where the model did."""
        from transformers import GenerationConfig

        from polysafe.generate.local import continued
        from polysafe.probe.render import RenderedPrompts

        ids = tuple(str(number) for number in range(len(rows)))
        padding = next((i for i in (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id) if i is not None), 0)
        rendered = RenderedPrompts(ids, ids, tuple(map(tuple, rows)), padding, "chat", "")
        stated = self._loaded.model.generation_config.eos_token_id or self._tokenizer.eos_token_id
        ends = stated if isinstance(stated, list) else [stated]
        config = GenerationConfig(
            do_sample=False, max_new_tokens=self._max_tokens, pad_token_id=padding, eos_token_id=stated
        )
        new = continued(self._shared, rendered, range(len(rows)), config)
        texts = [str(self._tokenizer.decode(row, skip_special_tokens=True)) for row in new]
        return [
            (text, None if set(ends) & set(row) else self._max_tokens) for text, row in zip(texts, new, strict=True)
        ]


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash over vocabulary, rules and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    state = ("padding", "truncation")  # settings of the last call
    content = {key: value for key, value in content.items() if key not in state}
    text = json.dumps([content, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
