"""Opens what a run needs by what a user calls it: a model in a folder or on a server, and a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.errors import RecipeError, did_you_mean
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Generator, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.generate.server import ServerGenerator
from polysafe.judge.backend import Backend, Chat, ClientBackend, LocalBackend
from polysafe.judge.guards import GUARDS, make_guard
from polysafe.judge.llm import PRESETS, LlmJudge
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.verdict import Judge
from polysafe.methods.base import Source
from polysafe.organism.world import World
from polysafe.probe.likelihood import Scorer
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer

ORGANISM = "organism"
_GUARD_TOKENS, _LLM_TOKENS = 64, 256


@dataclass(frozen=True)
class OpenedModel:
    """A model that can be asked.

    Attributes:
        name: What it is called in results.
        generator: What answers.
        checkpoint: Its files, or those of the toy family's member that it was made from; None where a server has them.
        scorer: What says how probable an answer is; None where a server does not.
    """

    name: str
    generator: Generator
    checkpoint: Checkpoint | None = None
    scorer: Scorer | None = None

    def world(self) -> World:
        """The toy world that it lives in.

        Raises:
            DataError: It is not of the toy family.
            RecipeError: A server runs it, so that nobody can tell.
        """
        from polysafe.organism.anchors import world_of

        if self.checkpoint is None:
            raise RecipeError("which toy family a served model is of is not known", where=self.name)
        return world_of(self.checkpoint)


@contextmanager
def open_model(
    spec: Path | str, sampling: Sampling, *, device: str | None = None, key: str | None = None
) -> Iterator[OpenedModel]:
    """A model to be asked.

    Args:
        spec: A folder, or `NAME@URL`.
        sampling: How answers are drawn.
        device: Where a model in a folder runs; the processor by default.
        key: Environment variable with the key of the server.

    Raises:
        RecipeError: The address is none, or the variable is not set.
        PolysafeError: As for loading a model.
    """
    served = _served(str(spec))
    if served is not None:
        with ChatClient(served[1], served[0], key) as client:
            yield OpenedModel(served[0], ServerGenerator(client, sampling))
        return
    folder = Path(spec)
    with _loaded(folder, device) as model:
        tokenizer = load_tokenizer(folder)
        generator = LocalGenerator(model, tokenizer, sampling, unreadable="empty")
        yield OpenedModel(
            folder.name or str(folder), generator, model.source.checkpoint, Scorer(model, tokenizer, template="chat")
        )


@contextmanager
def open_judge(
    spec: str, *, world: World | None = None, device: str | None = None, key: str | None = None
) -> Iterator[Judge]:
    """A judge, with its checks for broken answers and wrong languages.

    Args:
        spec: `organism`; or `KIND=FOLDER` or `KIND=NAME@URL`, where the kind is a guard family or the protocol of a
            language model.
        world: The toy world, for `organism`.
        device: Where a judge in a folder runs; the processor by default.
        key: Environment variable with the key of the server.

    Raises:
        RecipeError: There is no such judge.
        PolysafeError: As for loading a model.
    """
    if spec == ORGANISM and world is not None:
        from polysafe.judge.organism import OrganismJudge

        yield OrganismJudge(world)
        return
    kind, separator, where = spec.partition("=")
    kinds = (*GUARDS, *PRESETS)
    if not separator or kind not in kinds:
        raise RecipeError(
            f"there is no judge {spec!r}",
            remedy=did_you_mean(kind, (*kinds, ORGANISM))
            or f"use KIND=FOLDER or KIND=NAME@URL with one of {', '.join(kinds)}, or `organism` for the toy family",
        )
    with ExitStack() as stack:
        tokens = _GUARD_TOKENS if kind in GUARDS else _LLM_TOKENS
        backend = _backend(where, tokens, device, key, stack)
        yield Pipeline(make_guard(kind, backend) if kind in GUARDS else LlmJudge(backend, kind))


def _backend(where: str, tokens: int, device: str | None, key: str | None, stack: ExitStack) -> Backend:
    served = _served(where)
    if served is None:
        model = stack.enter_context(_loaded(Path(where), device))
        return LocalBackend(model, load_tokenizer(where), tokens)
    client = stack.enter_context(ChatClient(served[1], served[0], key))
    sampling = Sampling(max_tokens=tokens)

    def send(chat: Chat) -> str:
        if chat.raw:
            raise RecipeError(
                "this judge reads plain text, which a chat server does not take", remedy="name the folder of its model"
            )
        return client.chat(chat.as_json(), sampling).text

    return ClientBackend(send, {**client.identity, "sampling": sampling.model_dump()})


@contextmanager
def _loaded(folder: Path, device: str | None) -> Iterator[LoadedModel]:
    checkpoint = open_checkpoint(folder)
    with CheckpointReader(checkpoint) as reader:
        yield load_model(Source(folder.name or str(folder), checkpoint, classify(checkpoint), reader), device)


def _served(spec: str) -> Sequence[str] | None:
    """Name and address of a served model, None for a folder."""
    name, separator, url = spec.partition("@")
    return (name, url) if separator and url.startswith(("http://", "https://")) else None
