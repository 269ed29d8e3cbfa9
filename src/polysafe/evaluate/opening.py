"""Opens a model that is asked by what a user calls it: a folder, or a name on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.imported import Imported, read_imported
from polysafe.checkpoint.source import Checkpoint
from polysafe.data.organism import Organism, organism_of
from polysafe.errors import RecipeError
from polysafe.generate.batches import Batches
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Generator, Sampling
from polysafe.generate.keys import split_address
from polysafe.generate.local import LocalGenerator
from polysafe.generate.server import BatchGenerator, ServerGenerator
from polysafe.judge.spec import served_at
from polysafe.probe.asked import opened_model
from polysafe.probe.continuations import Continuations, Continues
from polysafe.probe.likelihood import Scorer, Scores
from polysafe.probe.refusal import RefusalSignal
from polysafe.probe.render import Template, load_tokenizer


@dataclass(frozen=True)
class OpenedModel:
    """A model that can be asked.

    Attributes:
        name: What it is called in results.
        generator: What answers.
        checkpoint: Its files, or those of the toy family's member that it was made from; None where a server has them.
        scorer: What says how probable an answer is; None where a server does not.
        signal: What says how inclined the model is to refuse; None where a server does not.
        continuations: What scores several answers to one prompt; None where a server does not.
        imported: The files of other formats that its weights were made of; empty too where a server has them.
    """

    name: str
    generator: Generator
    checkpoint: Checkpoint | None = None
    scorer: Scores | None = None
    signal: RefusalSignal | None = None
    continuations: Continues | None = None
    imported: tuple[Imported, ...] = ()

    def organism(self) -> Organism:
        """The organism that it is a member of.

        Raises:
            DataError: It is a member of none.
            RecipeError: A server runs it, so that nobody can tell.
        """
        if self.checkpoint is None:
            raise RecipeError("which toy family a served model is of is not known", where=self.name)
        return organism_of(self.checkpoint)


Opener = Callable[..., AbstractContextManager[OpenedModel]]
"""Opens a model as `open_model` does."""


@contextmanager
def open_model(
    spec: Path | str,
    sampling: Sampling,
    *,
    template: Template = "chat",
    device: str | None = None,
    dtype: str | None = None,
    key: str | None = None,
) -> Iterator[OpenedModel]:
    """A model to be asked.

    Args:
        spec: A folder, or `NAME@URL`.
        sampling: How answers are drawn.
        template: Whether a model in a folder is asked in its chat template, or goes on from the prompt as it stands.
        device: Where a model in a folder runs; the processor by default.
        dtype: Type that it is computed in, by the name that files use (`BF16`); as for `load_model` by default.
        key: Environment variable with the key of the server.

    Raises:
        RecipeError: The address is none, the variable is not set, or a template is named that the model has not, or
            that a server decides.
        PolysafeError: As for loading a model.
    """
    served = served_at(str(spec))
    if served is not None:
        if template != "chat":
            raise RecipeError(
                "a server puts messages into the chat template itself",
                where=served[0],
                remedy="leave the template out, or name the folder of the model",
            )
        url, in_batches = split_address(served[1])
        with ChatClient(url, served[0], key) as client:
            generator = BatchGenerator(Batches(client), sampling) if in_batches else ServerGenerator(client, sampling)
            yield OpenedModel(served[0], generator)
        return
    folder = Path(spec)
    with opened_model(folder, device, dtype) as model:
        tokenizer = load_tokenizer(folder)
        continuations = Continuations(model, tokenizer, template=template)
        yield OpenedModel(
            folder.name or str(folder),
            LocalGenerator(model, tokenizer, sampling, template=template, unreadable="empty"),
            model.source.checkpoint,
            Scorer(model, tokenizer, template=template),
            RefusalSignal(continuations),
            continuations,
            read_imported(model.source.checkpoint.root),
        )
