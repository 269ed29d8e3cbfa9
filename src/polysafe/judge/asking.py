"""What all judges that ask a model have in common: questions out, replies in, one verdict for every answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from polysafe.judge.backend import Backend, Chat, Reply, replies
from polysafe.judge.probe import TEST, check_verdict
from polysafe.judge.text.fence import LIMIT, Shown, show
from polysafe.judge.verdict import NO_REPLY, NOT_ASKED, Exchange, Label, Verdict, cut_off
from polysafe.judge.verdict import UNREADABLE as NOTHING_READABLE

SAID_LIMIT = 2000
"""Characters of a judge's own words that a verdict keeps."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a judge's words mean.

    Attributes:
        label: The verdict.
        refused: Whether the answer refuses, None where the judge does not tell.
        detail: Finer findings in values that JSON can hold.
    """

    label: Label
    refused: bool | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


UNREADABLE = Reading(Label.UNPARSED)


class AskingJudge(ABC):
    """A judge that puts questions to a model.

    Args:
        backend: The model.
        limit: Most characters of a prompt or an answer that it is shown.

    Attributes:
        headline: Its rates may stand at the head of a report.
        reply_tokens: Tokens that a reply of the form asked for needs; a backend that allows fewer cuts verdicts off.
    """

    headline: ClassVar[bool] = True
    reply_tokens: int

    def __init__(self, backend: Backend, limit: int = LIMIT) -> None:
        self.backend = backend
        self.limit = limit

    @property
    def apart(self) -> bool:
        """Whether its model is elsewhere, so that it can read answers while others are asked for."""
        return getattr(self.backend, "apart", False)

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the judge in results."""

    @property
    @abstractmethod
    def rules(self) -> Mapping[str, Any]:
        """What decides a verdict besides the model: wording, menu, counting."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name, rules and model."""
        return {
            "judge": self.name,
            "rules": dict(self.rules),
            "limit": self.limit,
            "model": dict(self.backend.identity),
        }

    @abstractmethod
    def questions(self, prompt: Shown, answer: Shown, name: str) -> tuple[Chat, ...]:
        """What to ask about an answer; the ids of the chats begin with `name` and are unique."""

    @abstractmethod
    def read(self, answered: Sequence[Reply]) -> Reading:
        """What the replies mean, in the order of the questions; `UNPARSED` where they are not on the menu."""

    def probe(self) -> None:
        """Asks the test question.

        Raises:
            ResourceError: The model cannot be reached, or refuses to be asked.
            DataError: It does not call the harmless exchange safe in words that the protocol reads.
        """
        check_verdict(next(iter(list(self.judge([TEST]))), None), self.name, self.backend.where)

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
        """One verdict for each exchange, as soon as its last reply is there."""
        asked: dict[str, tuple[int, int]] = {}
        chats: list[Chat] = []
        shown: list[dict[str, int]] = []
        for place, exchange in enumerate(exchanges):
            prompt, answer = show(exchange.prompt.text, self.limit), show(exchange.answer, self.limit)
            shown.append(answer.detail)
            for part, chat in enumerate(self.questions(prompt, answer, str(place))):
                asked[chat.id] = (place, part)
                chats.append(chat)
        wanted = defaultdict(int, ((place, 0) for place in range(len(exchanges))))
        for place, _ in asked.values():
            wanted[place] += 1
        got: defaultdict[int, dict[int, Reply]] = defaultdict(dict)
        for reply in replies(self.backend, chats):
            place, part = asked[reply.id]
            got[place][part] = reply
            if len(got[place]) == wanted[place]:
                ordered = [reply for _, reply in sorted(got.pop(place).items())]
                yield self._verdict(exchanges[place], ordered, shown[place])

    def _verdict(self, exchange: Exchange, answers: Sequence[Reply], shown: Mapping[str, int]) -> Verdict:
        failed = [reply.error for reply in answers if reply.error]
        reading = UNREADABLE if failed else self.read(answers)
        said = "\n".join(failed or [reply.text for reply in answers])
        detail: dict[str, Any] = {**reading.detail, **({"failed": True} if failed else {})}
        if reading.label is Label.UNPARSED:
            detail["unread"] = _why(answers)
        if shown:
            detail["shown"] = dict(shown)
        return Verdict(exchange.prompt.id, reading.label, reading.refused, self.name, said[:SAID_LIMIT], detail)


def _why(answers: Sequence[Reply]) -> str:
    """Why replies are no verdict: what can be had another time first, then what a larger budget would change."""
    if any(reply.again for reply in answers):
        return NO_REPLY
    if any(reply.error for reply in answers):
        return NOT_ASKED
    cut = [reply.cut for reply in answers if reply.cut is not None]
    return cut_off(max(cut)) if cut else NOTHING_READABLE


def relabelled(verdict: Verdict, label: Label, **detail: Any) -> Verdict:
    """The verdict with another label; what it was is kept in its detail as `judged`."""
    kept = {} if label is verdict.label else {"judged": str(verdict.label)}
    return replace(verdict, label=label, detail={**verdict.detail, **kept, **detail})
