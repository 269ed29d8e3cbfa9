"""Talk to one model, or to two side by side: each remembers its own answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from polysafe.generate.completion import Completion, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.probe.asked import opened_model
from polysafe.probe.render import load_tokenizer
from polysafe.progress import counted


@dataclass(frozen=True)
class Turn:
    """A prompt with the answers to it.

    Attributes:
        prompt: What the user says.
        answers: Name of the model -> its answer.
        begins: Whether the conversation begins here, so that nothing before was remembered.
    """

    prompt: str
    answers: Mapping[str, Completion]
    begins: bool


@dataclass
class Chat:
    """A conversation with models.

    Attributes:
        generators: Name of the model -> what answers.
        sampling: How answers are drawn.
        system: System message, None where there is none.
        turns: Everything that was said.
    """

    generators: Mapping[str, LocalGenerator]
    sampling: Sampling
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    _since: int = 0

    def reset(self) -> None:
        """Lets the models forget; what was said stays on record."""
        self._since = len(self.turns)

    def ask(self, prompt: str) -> Turn:
        """Puts a prompt to every model, in the conversation that it has had.

        Raises:
            DataError: The conversation does not fit a model any more.
            PolysafeError: As for `LocalGenerator.reply`.
        """
        answers: dict[str, Completion] = {}
        for name, generator in self.generators.items():
            meter = counted(f"{name}, tokens", self.sampling.max_tokens)
            answers[name] = generator.reply(list(self._messages(name, prompt)), meter)
            meter.finish()
        turn = Turn(prompt, answers, begins=len(self.turns) == self._since)
        self.turns.append(turn)
        return turn

    def _messages(self, name: str, prompt: str) -> Iterator[dict[str, str]]:
        if self.system is not None:
            yield {"role": "system", "content": self.system}
        for turn in self.turns[self._since :]:
            yield {"role": "user", "content": turn.prompt}
            yield {"role": "assistant", "content": turn.answers[name].text}
        yield {"role": "user", "content": prompt}


@contextmanager
def open_chat(
    models: Sequence[Path],
    *,
    system: str | None = None,
    sampling: Sampling | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Iterator[Chat]:
    """Loads the models; they are there until the end of the block.

    Args:
        models: Folders of one model or of two, which are called `before` and `after`.
        system: System message.
        sampling: How answers are drawn; greedy by default.
        device: Where models run.
        dtype: Type that they are computed in.

    Raises:
        PolysafeError: A model cannot be opened or loaded.
    """
    drawn = sampling or Sampling()
    names = ("before", "after") if len(models) > 1 else ("model",)
    with ExitStack() as stack:
        generators = {}
        for name, folder in zip(names, models, strict=True):
            loaded = stack.enter_context(opened_model(folder, device, dtype))
            generators[name] = LocalGenerator(loaded, load_tokenizer(folder), drawn)
        yield Chat(generators, drawn, system)
