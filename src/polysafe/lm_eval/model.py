"""A model as lm-eval asks it: our rendering, our batches, our cache.

lm-eval hands over what the user says as plain text, and the chat template is put around it where safety prompts get
theirs. What comes back is stored under the identity of the weights, never in lm-eval's own cache, which does not know
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import DAMAGED, Key, content_hash
from polysafe.evaluate.records import completion_from_json, completion_to_json
from polysafe.generate.completion import Ask, Completion, Generator
from polysafe.probe.likelihood import Likelihood, Scores
from polysafe.progress import counted

_PART = 8192
"""Requests that are tokenized and sorted together: memory does not grow with the benchmark."""
UNREADABLE = (float("-inf"), False)
"""What is given for a prompt that does not fit the model's positions."""


def one_message(history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """The user's message of a conversation of one turn; a system message is put before it.

    Not every template knows system messages, and lm-eval drops them silently where it does not.

    Raises:
        RecipeError: The task begins the model's answer, or shows it answered examples as turns of their own.
    """
    if not add_generation_prompt or any(message["role"] == "assistant" for message in history):
        raise RecipeError("the task begins the model's answer, which only works without a chat template")
    return "\n\n".join(message["content"].strip("\n") for message in history)


class HarnessModel(LM):  # type: ignore[misc]
    """A model of polysafe behind lm-eval's interface.

    Args:
        generator: What writes answers, greedily.
        scorer: What says how probable answers are; None where a server does not.
        store: What was answered before.
        stage: What the asking is called where progress is shown.
    """

    def __init__(
        self,
        generator: Generator,
        scorer: Scores | None,
        store: Store,
        stage: str = "answers",
    ) -> None:
        super().__init__()
        self._generator, self._scorer, self._store, self._stage = generator, scorer, store, stage
        self.likelihoods: dict[tuple[str, str], Likelihood | None] = {}
        self.completions: dict[str, Completion] = {}

    @property
    def tokenizer_name(self) -> str:
        """Hash of the tokenizer and its template."""
        return str(self._generator.identity.get("tokenizer", ""))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The user's message; the template is put around it when the model is asked."""
        return one_message(chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Sum of the log-probabilities of each answer, and whether greedy decoding gives it.

        Raises:
            RecipeError: A server runs the model.
        """
        asked: list[tuple[str, str]] = [request.args for request in requests]
        self._score(list(dict.fromkeys(asked)))
        found = (self.likelihoods[each] for each in asked)
        return [UNREADABLE if one is None else (one.total, one.greedy) for one in found]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each prompt, up to the first of its stop sequences."""
        asked = [(str(prompt), _stops(settings)) for prompt, settings in (request.args for request in requests)]
        self._generate(list(dict.fromkeys(prompt for prompt, _ in asked)))
        return [cut(self.completions[prompt].text, stops) for prompt, stops in asked]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:  # noqa: ARG002 — lm-eval's interface
        """Not there: no task of ours asks for perplexity.

        Raises:
            RecipeError: Always.
        """
        raise RecipeError("tasks that measure perplexity cannot be asked")

    def _score(self, requests: Sequence[tuple[str, str]]) -> None:
        scorer = self._scorer
        if scorer is None:
            raise RecipeError("a served model does not say how probable an answer is")
        owner = content_hash(dict(scorer.identity))
        keys = {each: Key("loglikelihood", owner, content_hash(list(each))) for each in requests}
        for each, key in keys.items():
            if (value := self._store.get(key)) is not None:
                self.likelihoods[each] = _likelihood(value)
        open_ = [each for each in requests if each not in self.likelihoods]
        advance = counted(self._stage, len(requests), len(requests) - len(open_))
        for first in range(0, len(open_), _PART):
            part = open_[first : first + _PART]
            for place, found in scorer.score(part):
                if found is not None and isfinite(found.total):  # what a broken model says is no JSON
                    self._store.put(keys[part[place]], asdict(found))
                self.likelihoods[part[place]] = found
                advance()

    def _generate(self, prompts: Sequence[str]) -> None:
        owner = content_hash(dict(self._generator.identity))
        keys = {prompt: Key("generation", owner, content_hash(prompt)) for prompt in prompts}
        for prompt, key in keys.items():
            if (value := self._store.get(key)) is not None:
                self.completions[prompt] = completion_from_json(prompt, value)
        asks = {f"request {place}": prompt for place, prompt in enumerate(prompts) if prompt not in self.completions}
        advance = counted(self._stage, len(prompts), len(prompts) - len(asks))
        for found in self._generator.generate([Ask(name, text) for name, text in asks.items()]) if asks else ():
            prompt = asks[found.id]
            self._store.put(keys[prompt], completion_to_json(found))
            self.completions[prompt] = found
            advance()
        if missing := [name for name, prompt in asks.items() if prompt not in self.completions]:
            raise DataError(
                f"{len(missing)} answers did not come, first {missing[0]!r}", remedy="run again; it resumes"
            )


def cut(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of some stop sequences."""
    for stop in stops:
        text = text.split(stop, maxsplit=1)[0]
    return text


def _stops(settings: Mapping[str, Any]) -> tuple[str, ...]:
    until = settings.get("until") or ()
    return tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)


def _likelihood(value: Any) -> Likelihood:
    try:
        found = Likelihood(**value)
        sound = isfinite(found.total)
    except TypeError as error:
        raise DataError(f"is no stored likelihood: {error}", where="the cache", remedy=DAMAGED) from error
    if not sound:
        raise DataError("is no stored likelihood", where="the cache", remedy=DAMAGED)
    return found
