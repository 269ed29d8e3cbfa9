"""Completions by a model in this process.

Prompts are rendered the one way that everything else here uses, sorted by length and continued in left-padded batches
of about as many tokens each, on a processor of about ten seconds each; continuous batching by transformers is measured
beside it (`benchmarks/speed/generate.py`). Every setting that decides an answer is given: a checkpoint's own generation
config, which samples in one model and is greedy in another, takes no part but for the tokens that end a turn. Answers
that are drawn are drawn one at a time, from a seed that depends on the message alone, whatever else is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import torch

from polysafe.checkpoint.quantised import quantisation
from polysafe.errors import RecipeError, ResourceError
from polysafe.generate.completion import TEST_QUESTION, Ask, Completion, Sampling
from polysafe.generate.shared_prefix import SharedPrefix
from polysafe.probe.batches import Pace, fitting_batches
from polysafe.probe.chat.template import Messages
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import RenderedPrompts, Template, render, render_chat
from polysafe.probe.tokenizer_identity import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

TOKENS = 16_384
"""Tokens of a batch, prompts and answers with their padding."""
ROWS = 256
"""Most prompts of a batch."""
TOGETHER = 8
"""Prompts that are answered together on a processor however long they take: eight take little longer than one."""


@contextmanager
def only(model: LoadedModel, config: GenerationConfig) -> Iterator[None]:
    """Lets a model generate by these settings alone.

    transformers fills in what a given config leaves open from the checkpoint's own (a repetition penalty, a least
    length), so that the checkpoint's has to be out of the way.
    """
    original = model.model.generation_config
    model.model.generation_config = config
    try:
        yield
    finally:
        model.model.generation_config = original


def continued(
    shared: SharedPrefix, prompts: RenderedPrompts, indices: Sequence[int], config: GenerationConfig, **more: Any
) -> list[list[int]]:
    """New tokens of some prompts in one batch, filled up to the longest answer; `more` is for transformers."""
    model, beginning = shared.model, shared.of(prompts, indices)
    batch = prompts.batch(indices, shared=beginning).to(model.device)
    begun = shared.options(len(indices)) if beginning else {}
    with torch.inference_mode(), only(model, config):
        output = model.model.generate(  # type: ignore[operator]
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **begun, **more
        )
    new: list[list[int]] = output[:, batch.input_ids.shape[1] :].tolist()
    return new


class Heard:
    """What transformers calls a streamer: hears of every token of an answer as it comes.

    Args:
        advance: Called with every token.
    """

    def __init__(self, advance: Callable[[], None]) -> None:
        self._advance, self._begun = advance, False

    def put(self, _tokens: torch.Tensor) -> None:
        """Hears of the prompt first, and then of a token at a time."""
        if self._begun:
            self._advance()
        self._begun = True

    def end(self) -> None:
        """Hears that the answer is done."""


class LocalGenerator:
    """Answers with a loaded model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        sampling: How answers are drawn; greedy by default.
        template: Whether messages go into the chat template.
        system: System message.
        unreadable: What becomes of a message that does not fit the model's positions with its answer: the whole call
            is refused, or its answer is empty, which every judge has to call invalid. Messages are never cut.
        batch_tokens: Tokens of a batch. Where memory runs out, batches are halved until they fit.

    Raises:
        RecipeError: The tokenizer has no chat template, and one is asked for; or answers may be as long as the model
            has positions.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling | None = None,
        *,
        template: Template = "chat",
        system: str | None = None,
        unreadable: Literal["refuse", "empty"] = "refuse",
        batch_tokens: int = TOKENS,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._sampling = sampling or Sampling()
        self._template, self._system, self._unreadable = template, system, unreadable
        self._batch_tokens = batch_tokens

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer with template, engine and versions, type, how they are quantised, device and sampling."""
        found = quantisation(self._model.source.checkpoint)
        return {
            "engine": "transformers",
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
            "weights": self._model.sha256,
            "tokenizer": tokenizer_sha256(self._tokenizer, self._template, self._system),
            "template": self._template,
            "system": self._system,
            "unreadable": self._unreadable,
            "dtype": self._model.dtype,
            **({} if found is None else {"quantised": found.label}),
            "device": self._model.device.type,
            "ends": list(self._ends),
            "sampling": self._sampling.model_dump(),
        }

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """Tokens that end an answer: those of the checkpoint's generation config and of its tokenizer."""
        stated = getattr(self._model.model.generation_config, "eos_token_id", None)
        listed = stated if isinstance(stated, list) else [stated]
        found = (*listed, self._tokenizer.eos_token_id)
        return tuple(sorted({token for token in found if isinstance(token, int)}))

    def probe(self) -> None:
        """Puts the test question into the template and takes one token: what fails there fails with every prompt.

        Raises:
            DataError: The template does not fit the tokenizer.
            ResourceError: A single prompt does not fit the device.
        """
        one = self._sampling.model_copy(update={"max_tokens": 1})
        first = LocalGenerator(
            self._model, self._tokenizer, one, template=self._template, system=self._system, unreadable="empty"
        )
        list(first.generate([Ask("test question", TEST_QUESTION)]))

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        """Answers, batch by batch, the longest prompts first: what does not fit the device fails at once.

        Raises:
            DataError: A message is empty, or too long for the model with its answer and not to be left empty; names it.
            ResourceError: A single prompt does not fit the device.
        """
        if not asks:
            return
        prompts = self._render({ask.id: ask.text for ask in asks})
        readable = frozenset(prompts.ids)
        yield from (Completion(ask.id, "", "length", 0) for ask in asks if ask.id not in readable)
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts.tokens[index]))
        shared = SharedPrefix(self._model)  # of this call alone: by the next one, the model may have been edited

        def answer(batch: range) -> list[Completion]:
            return self._continue(prompts, [order[place] for place in batch], shared)

        def too_large(place: int, error: torch.OutOfMemoryError) -> ResourceError:
            return ResourceError(
                f"message {prompts.ids[order[place]]!r} does not fit the device: {error}",
                remedy="use a smaller max_tokens, a smaller type, or another device",
            )

        lengths = [len(prompts.tokens[index]) + self._sampling.max_tokens for index in order]
        most = 1 if self._sampling.temperature else ROWS  # what is drawn must not depend on what else is asked
        batches = fitting_batches(
            lengths,
            answer,
            tokens=self._batch_tokens,
            most=most,
            too_large=too_large,
            pace=Pace.of(self._model.device, TOGETHER),
        )
        for _, answers in batches:
            yield from answers

    def reply(self, messages: Messages, advance: Callable[[], None] = lambda: None) -> Completion:
        """The next answer of a chat.

        Args:
            messages: All messages so far, the system message among them; the last one is the user's.
            advance: Called with every token.

        Raises:
            DataError: The chat is too long for the model with its answer.
            RecipeError: The tokenizer has no chat template, or it refuses the chat.
            ResourceError: The chat does not fit the device.
        """
        try:
            prompts = render_chat(self._tokenizer, messages, max_tokens=self._room)
            return self._continue(prompts, [0], SharedPrefix(self._model), Heard(advance))[0]
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"the chat does not fit the device: {error}", remedy="begin a new one") from error

    @property
    def _room(self) -> int:
        """Most tokens of a prompt."""
        positions = self._model.max_tokens
        stated = self._tokenizer.model_max_length
        if positions is None:
            return stated
        if positions <= self._sampling.max_tokens:
            raise RecipeError(
                f"answers of {self._sampling.max_tokens} tokens leave no room for a prompt: the model has {positions} "
                "positions",
                where=self._model.source.name,
                remedy="use a smaller max_tokens",
            )
        return min(stated, positions - self._sampling.max_tokens)

    def _render(self, texts: Mapping[str, str]) -> RenderedPrompts:
        return render(
            self._tokenizer,
            texts,
            template=self._template,
            system=self._system,
            max_tokens=self._room,
            leave_out=self._unreadable == "empty",
        )

    def _continue(
        self, prompts: RenderedPrompts, indices: Sequence[int], shared: SharedPrefix, heard: Heard | None = None
    ) -> list[Completion]:
        with torch.random.fork_rng():
            torch.manual_seed(self._seed(prompts, indices[0]))
            new = continued(shared, prompts, indices, self._config(prompts.padding), streamer=heard)
        return [self._completion(prompts, index, row) for index, row in zip(indices, new, strict=True)]

    def _seed(self, prompts: RenderedPrompts, index: int) -> int:
        text = f"{self._sampling.seed} {prompts.ids[index]} {prompts.texts[index]}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

    def _config(self, padding: int) -> GenerationConfig:
        from transformers import GenerationConfig

        sampling = self._sampling
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=sampling.temperature > 0,
            num_beams=1,
            pad_token_id=padding,
            eos_token_id=list(self._ends) or None,
            **(drawn if sampling.temperature else {}),
        )

    def _completion(self, prompts: RenderedPrompts, index: int, row: Sequence[int]) -> Completion:
        ends = next((place for place, token in enumerate(row) if token in self._ends), None)
        kept = row if ends is None else row[:ends]
        return Completion(
            id=prompts.ids[index],
            text=str(self._tokenizer.decode(list(kept), skip_special_tokens=True)),
            ending="length" if ends is None else "stop",
            tokens=len(kept) + (ends is not None),
            prompt_sha256=hashlib.sha256(str(list(prompts.tokens[index])).encode()).hexdigest(),
            token_ids=tuple(kept),
        )
