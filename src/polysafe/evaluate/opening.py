"""Opens what a run needs by what a user calls it: a model in a folder or on a server, and a judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.dtypes import float_dtype
from polysafe.checkpoint.imported import Imported, read_imported
from polysafe.checkpoint.opened import open_source
from polysafe.checkpoint.source import Checkpoint
from polysafe.data.organism import Organism, organism_of
from polysafe.errors import RecipeError
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Generator, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.generate.server import ServerGenerator
from polysafe.judge.backend import Backend, Chat, ClientBackend, LocalBackend, Reply
from polysafe.judge.frames import RefusalOrFrame
from polysafe.judge.guards import GUARDS, make_guard
from polysafe.judge.guards.llama_guard import LlamaGuard
from polysafe.judge.guards.qwen3guard import Qwen3Guard
from polysafe.judge.llm import LlmJudge, preset
from polysafe.judge.nobody import Nobody
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.spec import (
    Asked,
    FramesSpec,
    JudgeSpec,
    LlamaGuardSpec,
    OpenAISpec,
    OrganismSpec,
    Place,
    Qwen3GuardSpec,
    TransformersSpec,
    TranslateTestSpec,
    VoteSpec,
    parse_judge,
    served_at,
)
from polysafe.judge.translate import REPLY_TOKENS, ChatTranslator, Seq2SeqTranslator, TranslateTest, Translator
from polysafe.judge.verdict import Judge
from polysafe.judge.vote import Vote
from polysafe.probe.continuations import Continuations
from polysafe.probe.likelihood import Scorer
from polysafe.probe.model import LoadedModel, load_model
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
    scorer: Scorer | None = None
    signal: RefusalSignal | None = None
    continuations: Continuations | None = None
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
        with ChatClient(served[1], served[0], key) as client:
            yield OpenedModel(served[0], ServerGenerator(client, sampling))
        return
    folder = Path(spec)
    with _loaded(folder, device, dtype) as model:
        tokenizer = load_tokenizer(folder)
        yield OpenedModel(
            folder.name or str(folder),
            LocalGenerator(model, tokenizer, sampling, template=template, unreadable="empty"),
            model.source.checkpoint,
            Scorer(model, tokenizer, template=template),
            RefusalSignal(model, tokenizer, template=template),
            Continuations(model, tokenizer, template=template),
            read_imported(model.source.checkpoint.root),
        )


@contextmanager
def open_judge(
    spec: JudgeSpec | str | Sequence[str] | None,
    *,
    organism: Callable[[], Organism] | None = None,
    device: str | None = None,
    key: str | None = None,
) -> Iterator[Judge]:
    """A judge, with its checks for broken answers and wrong languages.

    Args:
        spec: The judge of a recipe; or, as on the command line, `organism`, `refusal_or_frame`, `KIND=FOLDER` or
            `KIND=NAME@URL`, where the kind is a guard family or the protocol of a language model, and several are a
            vote. None: nobody; answers are checked alone.
        organism: Gives the organism, for the judge `organism`.
        device: Where a judge in a folder runs; the processor by default.
        key: Environment variable with the key of the server, where the judge is named as on the command line.

    Raises:
        RecipeError: There is no such judge.
        PolysafeError: As for loading a model.
    """
    if spec is None:
        yield Pipeline(Nobody())
        return
    asked = parse_judge(spec, key=key)
    if isinstance(asked, OrganismSpec):
        if organism is None:
            raise RecipeError("`organism` judges models of the toy family only", remedy="name another judge")
        yield organism().judge()
        return
    if isinstance(asked, FramesSpec):
        yield RefusalOrFrame()
        return
    with ExitStack() as stack:
        yield Pipeline(_judge(asked, device, stack))


@contextmanager
def open_translator(spec: JudgeSpec | None, *, device: str | None = None) -> Iterator[Translator | None]:
    """The translator of a judge that judges translations too, alone or in a vote; None where there is none.

    Args:
        spec: The judge.
        device: Where a translator in a folder runs; the processor by default.

    Raises:
        PolysafeError: As for loading a model.
    """
    judges = spec.judges if isinstance(spec, VoteSpec) else [spec]
    found = next((each.translator for each in judges if isinstance(each, TranslateTestSpec)), None)
    with ExitStack() as stack:
        yield None if found is None else _translator(found, device, stack)


def _judge(spec: Asked | VoteSpec | TranslateTestSpec, device: str | None, stack: ExitStack) -> Judge:
    """A judge without the checks around it."""
    match spec:
        case VoteSpec():
            return Vote([_judge(each, device, stack) for each in spec.judges], spec.rule)
        case TranslateTestSpec():
            translator = _translator(spec.translator, device, stack)
            return TranslateTest(_judge(spec.judge, device, stack), translator, spec.target, spec.rule)
        case OpenAISpec() | TransformersSpec():
            return LlmJudge(_backend(spec, preset(spec.protocol).reply_tokens, device, stack), spec.protocol)
        case Qwen3GuardSpec():
            return Qwen3Guard(_backend(spec, Qwen3Guard.reply_tokens, device, stack), spec.counting)
        case LlamaGuardSpec():
            return LlamaGuard(_backend(spec, LlamaGuard.reply_tokens, device, stack), spec.version)
        case _:
            return make_guard(spec.kind, _backend(spec, GUARDS.get(spec.kind).reply_tokens, device, stack))


def _translator(place: Place, device: str | None, stack: ExitStack) -> Translator:
    if place.path is not None:
        return Seq2SeqTranslator.load(place.path, device or "cpu", place.max_tokens or REPLY_TOKENS)
    return ChatTranslator(_backend(place, REPLY_TOKENS, device, stack))


def _backend(
    place: Place | OpenAISpec | TransformersSpec, needed: int, device: str | None, stack: ExitStack
) -> Backend:
    tokens = place.max_tokens or needed
    if place.path is not None:
        model = stack.enter_context(_loaded(place.path, device))
        return LocalBackend(model, load_tokenizer(place.path), tokens)
    assert place.base_url is not None
    assert place.model is not None
    client = stack.enter_context(ChatClient(place.base_url, place.model, place.key))
    sampling = Sampling(max_tokens=tokens)

    def send(chat: Chat) -> Reply:
        if chat.raw:
            (message,) = chat.messages
            reply = client.complete(message.content, sampling)
        else:
            reply = client.chat(chat.as_json(), sampling)
        return Reply(chat.id, reply.text, cut=tokens if reply.ending == "length" else None)

    return ClientBackend(send, {**client.identity, "sampling": sampling.model_dump()}, where=client.where)


@contextmanager
def _loaded(folder: Path, device: str | None, dtype: str | None = None) -> Iterator[LoadedModel]:
    computed = None if dtype is None else float_dtype(dtype)
    with open_source(folder) as source:
        yield load_model(source, device, dtype=computed)
