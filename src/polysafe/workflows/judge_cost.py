"""What a judge behind a server would cost: every chat is written, and none is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polysafe.errors import RecipeError
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.keys import content_hash, verdict_key
from polysafe.judge.backend import Backend, Chat, Reply
from polysafe.judge.block import JudgeSpec, Place
from polysafe.judge.opening import Opening
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.spec import parse_judge
from polysafe.workflows.rejudge import answered

BYTES_PER_TOKEN = (2, 5)
"""Of chats, least and most: instructions in English have four or five, scripts that a tokenizer hardly knows two."""


@dataclass
class Asked:
    """What a model would be asked.

    Attributes:
        chats: Requests.
        sent: Bytes of their messages in UTF-8.
        reply_tokens: Tokens of all replies at most.
    """

    chats: int = 0
    sent: int = 0
    reply_tokens: int = 0


@dataclass(frozen=True)
class JudgeCost:
    """What it takes to judge the answers of a run, but for requests that have to be made again.

    Attributes:
        answers: Answers of the run, attacks included.
        known: Those whose verdict the cache has.
        models: Model and its address -> what it would be asked.
        price: Dollars for a million tokens that are sent, and for a million of replies; None where nobody asks.
    """

    answers: int
    known: int
    models: Mapping[str, Asked]
    price: tuple[float, float] | None = None

    @property
    def tokens(self) -> tuple[int, int]:
        """Least and most tokens that are sent."""
        sent = sum(asked.sent for asked in self.models.values())
        fewest, most = BYTES_PER_TOKEN
        return sent // most, -(-sent // fewest)

    @property
    def reply_tokens(self) -> int:
        """Tokens of replies at most."""
        return sum(asked.reply_tokens for asked in self.models.values())

    @property
    def dollars(self) -> tuple[float, float] | None:
        """Least and most: with replies of no length, and with replies as long as they may be."""
        if self.price is None:
            return None
        (fewest, most), (sent, said) = self.tokens, (each / 1e6 for each in self.price)
        return fewest * sent, most * sent + self.reply_tokens * said

    def to_json(self) -> dict[str, Any]:
        """The cost as plain data."""
        return {
            "answers": self.answers,
            "known": self.known,
            "models": {name: asdict(asked) for name, asked in self.models.items()},
            "tokens": list(self.tokens),
            "reply_tokens": self.reply_tokens,
            "price": None if self.price is None else list(self.price),
            "dollars": None if self.dollars is None else list(self.dollars),
        }


class _Counting:
    """A backend that counts what it is given, and says nothing."""

    def __init__(self, backend: Backend, reply_tokens: int, asked: Asked) -> None:
        self._backend, self._reply_tokens, self._asked = backend, reply_tokens, asked
        self.where = backend.where

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._backend.identity

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        for chat in chats:
            self._asked.chats += 1
            self._asked.sent += len(json.dumps(chat.as_json(), ensure_ascii=False).encode("utf-8", "surrogatepass"))
            self._asked.reply_tokens += self._reply_tokens
            yield Reply(chat.id, "")


@dataclass(frozen=True)
class _Estimating(Opening):
    asked: dict[str, Asked] = field(default_factory=dict)

    def backend(self, place: Place, needed: int) -> Backend:
        if place.path is not None:
            raise RecipeError(
                "runs on this machine and costs time alone",
                where=str(place.path),
                remedy="name judges behind servers, NAME@URL",
            )
        found = super().backend(place, needed)
        return _Counting(found, place.max_tokens or needed, self.asked.setdefault(found.where, Asked()))


def judge_cost(
    run: Path,
    *,
    judge: JudgeSpec | str | Sequence[str],
    price: tuple[float, float] | None = None,
    judge_key: str | None = None,
    cache: Path | None = None,
) -> JudgeCost:
    """What it would take to have the answers of a finished run judged by judges behind servers. Nothing is sent.

    Args:
        run: Folder of the run.
        judge: As for `judge_run`; every model of it has to be behind a server.
        price: Dollars for a million tokens that are sent, and for a million of replies.
        judge_key: Environment variable with the key of the servers.
        cache: File of the cache, whose verdicts cost nothing; the user's own by default.

    Raises:
        DataError: There is no run in the folder, or it holds no answers.
        RecipeError: There is no such judge, or a model of it runs on this machine.
    """
    found = answered(run)
    runs = (found, *found.attacks.values())
    exchanges = [record.exchange for each in runs for record in each.records]
    asked = parse_judge(judge, key=judge_key)
    if asked.exact:
        raise RecipeError(f"{asked.kind!r} asks no model and costs nothing")
    with ExitStack() as stack, Cache(cache) as store:
        opening = _Estimating(stack)
        reading = Pipeline(asked.open(opening))
        decider = content_hash(dict(reading.identity))
        left = [each for each in exchanges if store.get(verdict_key(decider, each)) is None]
        for _ in reading.judge(left):
            pass
    return JudgeCost(len(exchanges), len(exchanges) - len(left), opening.asked, price)
