"""Opens a judge by what a user calls it: the block of a recipe, or the short form of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pydantic import BaseModel

from polysafe.data.organism import Organism
from polysafe.errors import CheckpointError
from polysafe.generate.batches import Batches
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Sampling
from polysafe.generate.keys import require_allowed, split_address
from polysafe.judge.backend import Backend, BatchBackend, Chat, ClientBackend, LocalBackend, Reply
from polysafe.judge.block import JudgeSpec, Place
from polysafe.judge.nobody import Nobody
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.spec import parse_judge
from polysafe.judge.verdict import Judge
from polysafe.probe.asked import opened_model
from polysafe.probe.render import load_tokenizer


@dataclass(frozen=True)
class Opening:
    """What judges are opened with.

    Attributes:
        stack: What closes their models.
        device: Where a model in a folder runs; the processor by default.
        organism: Gives the organism, for its own judge.
    """

    stack: ExitStack
    device: str | None = None
    organism: Callable[[], Organism] | None = None

    def backend(self, place: Place, needed: int) -> Backend:
        """The model at a place.

        Args:
            place: Where it is.
            needed: Tokens of the longest reply, where the place does not say how many there may be.

        Raises:
            RecipeError: It names a key that its user did not allow.
            PolysafeError: As for loading a model.
        """
        tokens = place.max_tokens or needed
        if place.path is not None:
            model = self.stack.enter_context(opened_model(place.path, self.device))
            return LocalBackend(model, load_tokenizer(place.path), tokens)
        assert place.base_url is not None
        assert place.model is not None
        url, in_batches = split_address(place.base_url)
        if place.key is not None:
            require_allowed(place.key, url)
        client = self.stack.enter_context(ChatClient(url, place.model, place.key))
        sampling = Sampling(max_tokens=tokens)
        identity = {**client.identity, "sampling": sampling.model_dump()}
        if in_batches:
            return BatchBackend(Batches(client), sampling, identity)

        def send(chat: Chat) -> Reply:
            if chat.raw:
                (message,) = chat.messages
                reply = client.complete(message.content, sampling)
            else:
                reply = client.chat(chat.as_json(), sampling)
            return Reply(chat.id, reply.text, cut=tokens if reply.ending == "length" else None)

        return ClientBackend(send, identity, where=client.where)


def require_folders(spec: BaseModel) -> None:
    """Looks for every folder that a judge names, which costs nothing; models are loaded much later.

    Raises:
        CheckpointError: One is not there.
    """
    if isinstance(spec, Place) and spec.path is not None and not spec.path.is_dir():
        raise CheckpointError("there is no such folder", where=spec.path, remedy="name the folder of the judge's model")
    for _, value in spec:
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, BaseModel):
                require_folders(each)


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
    with ExitStack() as stack:
        judge = asked.open(Opening(stack, device, organism))
        yield judge if asked.exact else Pipeline(judge)
