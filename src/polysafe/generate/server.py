"""Completions by a server, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from polysafe.errors import ResourceError
from polysafe.generate.batches import Batches
from polysafe.generate.client import ChatClient, ChatReply
from polysafe.generate.completion import TEST_QUESTION, Ask, Completion, Sampling

_PROBE_TOKENS = 8


class ServerGenerator:
    """Answers of a model that a server runs.

    Args:
        client: The server.
        sampling: How answers are drawn; greedy by default.
        system: System message.
        workers: Requests in flight.
        revision: What tells one state of the served model from another, for the cache: a commit, a date. The server's
            name of the model says nothing about its weights.
    """

    def __init__(
        self,
        client: ChatClient,
        sampling: Sampling | None = None,
        *,
        system: str | None = None,
        workers: int = 8,
        revision: str | None = None,
    ) -> None:
        self._client, self._sampling = client, sampling or Sampling()
        self._system, self._workers, self._revision = system, workers, revision

    @property
    def identity(self) -> Mapping[str, Any]:
        """Server, model, revision, system message and sampling."""
        return {
            **self._client.identity,
            "revision": self._revision,
            "system": self._system,
            "template": "server",
            "sampling": self._sampling.model_dump(),
        }

    def probe(self) -> None:
        """Asks the test question, with room for a few tokens: does the server answer, and know key and model?

        Raises:
            ResourceError: It does not; says what it said.
        """
        self._client.chat(self._messages(TEST_QUESTION), Sampling(max_tokens=_PROBE_TOKENS))

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        """Answers as they arrive; each message is answered once.

        Where a message cannot be answered, nothing new is sent, what is in flight is still given, and the error comes
        last: whoever keeps answers loses none.

        Raises:
            ResourceError: The server refuses a message, or does not answer it in all attempts; says how many are left.
        """
        waiting = list(reversed(asks))
        flying: dict[Future[Completion], Ask] = {}
        failure: ResourceError | None = None
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="generate")
        try:
            while flying or (waiting and failure is None):
                while waiting and failure is None and len(flying) < self._workers:
                    ask = waiting.pop()
                    flying[pool.submit(self._answer, ask)] = ask
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    ask = flying.pop(future)
                    try:
                        completion = future.result()
                    except ResourceError as error:
                        failure = failure or error
                        waiting.append(ask)
                        continue
                    yield completion
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failure is not None:
            raise _left(failure, len(waiting), len(asks)) from failure

    def _answer(self, ask: Ask) -> Completion:
        reply = self._client.chat(self._messages(ask.text), self._sampling)
        return _completion(ask, reply)

    def _messages(self, text: str) -> list[dict[str, str]]:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*system, {"role": "user", "content": text}]


class BatchGenerator(ServerGenerator):
    """The same by batches that the server answers within a day. Answers are those of the server, whoever asked before.

    Args:
        batches: The server.
        sampling: As for `ServerGenerator`, like the rest.
        more: The rest.
    """

    def __init__(self, batches: Batches, sampling: Sampling | None = None, **more: Any) -> None:
        super().__init__(batches.client, sampling, **more)
        self._batches = batches

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        """Answers, batch by batch, as they end; the error of what has none comes last.

        Raises:
            ResourceError: As for `ServerGenerator`.
        """
        failures: list[ResourceError] = []
        questions = [self._client.question(self._messages(ask.text), self._sampling) for ask in asks]
        for place, found in self._batches.answers(questions):
            if isinstance(found, ResourceError):
                failures.append(found)
            else:
                yield _completion(asks[place], found)
        if failures:
            raise _left(failures[0], len(failures), len(asks)) from failures[0]


def _completion(ask: Ask, reply: ChatReply) -> Completion:
    return Completion(ask.id, reply.text, reply.ending, reply.tokens)


def _left(failure: ResourceError, left: int, asked: int) -> ResourceError:
    return ResourceError(
        f"{failure.problem}; {left} of {asked} messages are left", where=failure.where, remedy=failure.remedy
    )
