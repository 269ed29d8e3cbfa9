"""From prompts to token ids, in one place.

Safety, capability and capture must see the same tokens, or their numbers differ by more than an edit does: a second
beginning-of-sequence token, a missing chat template or a cut prompt changes a model's answers silently. Everything that
feeds a model goes through `render`, and what it produced can be hashed, logged and compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from polysafe.checkpoint.sidecar import DONOR_FILES, MODEL_FILES, TOKENIZER_FILES, matching
from polysafe.checkpoint.source import MAX_TOKENIZER
from polysafe.errors import CheckpointError, DataError, RecipeError
from polysafe.probe.chat.rules import keep_rules, require_encodable
from polysafe.probe.chat.template import Messages, in_template
from polysafe.probe.tokenizer_identity import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "raw"]
Side = Literal["left", "right"]
_PANIC = "pyo3_runtime"
_REMEDY = "the folder needs tokenizer.json and tokenizer_config.json of its model"
"""Module of what Rust panics with, which is no `Exception`."""


@dataclass(frozen=True)
class Batch:
    """Some prompts as a model takes them.

    Attributes:
        input_ids: Token ids, int64 [prompts, length].
        attention_mask: 1 at tokens, 0 at padding, int64 [prompts, length].
        position_ids: Position of every token within its own prompt, int64 [prompts, length]; 0 at padding.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.position_ids.to(device))


@dataclass(frozen=True)
class RenderedPrompts:
    """Prompts as token ids.

    Attributes:
        ids: Name of every prompt, in order; rows of captured activations are in the same order.
        texts: The prompts as they were tokenized, template included.
        tokens: Token ids of every prompt.
        padding: Token id to fill up with; it is always masked.
        template: `chat` or `raw`.
        tokenizer: SHA-256 of tokenizer, chat template and the way it was used.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    padding: int
    template: Template
    tokenizer: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of all prompts together."""
        return sum(map(len, self.tokens))

    @cached_property
    def sha256(self) -> str:
        """Hash over the names and token ids of all prompts: equal hashes mean that a model sees the same."""
        return _sha256([[name, *tokens] for name, tokens in zip(self.ids, self.tokens, strict=True)])

    def preview(self, count: int = 3) -> list[dict[str, Any]]:
        """The first prompts with their token ids, for logs."""
        rows = zip(self.ids, self.texts, self.tokens, strict=True)
        return [{"id": name, "text": text, "tokens": list(ids)} for name, text, ids in list(rows)[:count]]

    def select(self, indices: Sequence[int]) -> RenderedPrompts:
        """Some of the prompts, in the order of `indices`."""
        return RenderedPrompts(
            tuple(self.ids[i] for i in indices),
            tuple(self.texts[i] for i in indices),
            tuple(self.tokens[i] for i in indices),
            self.padding,
            self.template,
            self.tokenizer,
        )

    def batch(self, indices: Sequence[int], side: Side = "left", shared: int = 0) -> Batch:
        """Some of the prompts as tensors, filled up to the longest of them.

        Args:
            indices: Which prompts.
            side: Where padding goes; left keeps the last token of every prompt in the last column.
            shared: Tokens at their beginning that stay in the first columns, before padding on the left.
        """
        rows = [self.tokens[i] for i in indices]
        length = max(map(len, rows))
        gaps = [length - len(row) for row in rows]
        first = [shared if side == "left" else len(row) for row in rows]  # tokens before the padding
        filled = list(zip(rows, first, gaps, strict=True))
        ids = [(*row[:at], *gap * (self.padding,), *row[at:]) for row, at, gap in filled]
        mask = [at * [1] + gap * [0] + (len(row) - at) * [1] for row, at, gap in filled]
        attention = torch.tensor(mask)
        return Batch(torch.tensor(ids), attention, (attention.cumsum(1) - 1).clamp_min(0) * attention)


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder. No code from the folder runs and nothing is downloaded.

    Raises:
        CheckpointError: The folder holds no tokenizer that transformers can read, or one whose rules take too much time
            or memory.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    _check_files(Path(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BaseException as error:  # readers of untrusted files raise anything
        if not isinstance(error, Exception) and type(error).__module__ != _PANIC:
            raise
        raise CheckpointError(
            f"its tokenizer cannot be read: {error}",
            where=folder,
            remedy=_REMEDY,
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    keep_rules(tokenizer, folder)
    return tokenizer


def _check_files(folder: Path) -> None:
    """Refuses what would fill the memory, or never end, before anything of it is read.

    Also a folder without a tokenizer: transformers 5.0 makes one up that knows two tokens.
    """
    if not any(matching(folder, TOKENIZER_FILES)):
        raise CheckpointError("its tokenizer cannot be read: there is none", where=folder, remedy=_REMEDY)
    for name in matching(folder, (*MODEL_FILES, *DONOR_FILES)):
        file = folder / name
        if not file.is_file():
            raise CheckpointError("is a device or a broken link, not a file", where=file)
        if file.stat().st_size > MAX_TOKENIZER:
            raise CheckpointError(f"is larger than {MAX_TOKENIZER} bytes, too large for a tokenizer", where=file)


def cached_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The same, loaded once for many edits of one model: a large vocabulary takes seconds.

    Raises:
        CheckpointError: As `load_tokenizer`.
    """
    return _cached_tokenizer(folder, tuple((file.name, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())))


@lru_cache(maxsize=2)
def _cached_tokenizer(folder: Path, _files: tuple[tuple[str, int], ...]) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder)


def render(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, str],
    *,
    template: Template = "chat",
    system: str | None = None,
    max_tokens: int | None = None,
    leave_out: bool = False,
) -> RenderedPrompts:
    """Turns prompts into token ids.

    A chat prompt is the user's message in the tokenizer's chat template with the generation prompt at the end; a raw
    prompt is tokenized as it stands. Where the tokenizer or its template begins sequences with a
    beginning-of-sequence token, every prompt has exactly one at its start. A template may write the same token again as
    the marker of a turn (ChatML does in some models); a prompt may not.

    Args:
        tokenizer: The model's tokenizer.
        prompts: Name of a prompt -> its text.
        template: Whether to use the chat template.
        system: A system message for chat prompts.
        max_tokens: Longest prompt to accept; the tokenizer's own limit always holds.
        leave_out: Whether a prompt that is too long is left out, instead of being refused; then none may be left.

    Raises:
        DataError: There is no prompt; one is empty or too long (prompts are never cut); or one begins with two
            beginning-of-sequence tokens, holds one itself, or lacks the one that is always there. Names the prompt.
        RecipeError: A chat template is asked for and there is none, or it leaves out what prompts say; or a system
            message is given without one.
        CheckpointError: The chat template takes more time or memory than any template needs.
    """
    if not prompts:
        raise DataError("there are no prompts", remedy="name at least one")
    if template == "raw" and system is not None:
        raise RecipeError("a system message needs the chat template", remedy="use template: chat, or leave it out")
    texts = _texts(tokenizer, tuple(prompts.values()), template, system)
    begin = _Beginning.of(tokenizer, template, system)
    tokens = [tuple(begin.complete(ids)) for ids in _encode(tokenizer, texts, template)]
    limit = min(filter(None, (tokenizer.model_max_length, max_tokens)))
    rows = list(zip(prompts, texts, tokens, strict=True))
    if leave_out:
        rows = [row for row in rows if len(row[2]) <= limit]
    for name, _, ids in rows:
        _check_length(name, ids, limit)
        begin.check(name, ids)
    padding = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(i, int)), 0)
    return RenderedPrompts(
        tuple(name for name, _, _ in rows),
        tuple(text for _, text, _ in rows),
        tuple(ids for _, _, ids in rows),
        padding,
        template,
        tokenizer_sha256(tokenizer, template, system),
    )


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, *, max_tokens: int | None = None
) -> RenderedPrompts:
    """One chat of several turns, with the beginning of the next answer at its end; as `render` does it with one turn.

    Args:
        tokenizer: The model's tokenizer.
        messages: All messages so far, the last one the user's.
        max_tokens: Longest chat to accept; the tokenizer's own limit always holds.

    Raises:
        DataError: The chat is too long, or a message holds a beginning-of-sequence token.
        RecipeError: There is no chat template, or it refuses the chat.
        CheckpointError: As for `render`.
    """
    _require_template(tokenizer)
    alike = [{**message, "content": "a"} for message in messages]
    chat, plain = in_template(tokenizer, [messages, alike])
    if chat.problem:
        raise RecipeError(f"the chat template refuses the chat: {chat.problem}")
    begin = _Beginning.of(tokenizer, "chat")
    ids, empty = (tuple(begin.complete(each)) for each in _encode(tokenizer, [chat.text, plain.text], "chat"))
    _check_length("chat", ids, min(filter(None, (tokenizer.model_max_length, max_tokens))))
    begin.check("chat", ids, empty)
    padding = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(i, int)), 0)
    sha256 = tokenizer_sha256(tokenizer, "chat", None)
    return RenderedPrompts(("chat",), (chat.text,), (ids,), padding, "chat", sha256)


def continued(
    tokenizer: PreTrainedTokenizerBase, prompts: RenderedPrompts, answers: Sequence[tuple[int, str]]
) -> list[tuple[tuple[int, ...], int]]:
    """Token ids of prompts with an answer after each, and how many of them are the prompt's.

    An answer is tokenized in its context: the tokens of both, without as many as the prompt alone has. White space at
    the end of a prompt belongs to the answer, whose first token it may be part of. That is lm-eval's rule.

    Args:
        tokenizer: The tokenizer that rendered the prompts.
        prompts: The prompts.
        answers: (place of a prompt, answer).

    Raises:
        DataError: A prompt or an answer has no token, or one holds a beginning-of-sequence token.
    """
    template = prompts.template
    begin = _Beginning.of(tokenizer, template)
    places = dict.fromkeys(place for place, _ in answers)
    heads = _encode(tokenizer, [prompts.texts[place].rstrip() for place in places], template)
    lengths = dict(zip(places, (len(begin.complete(ids)) for ids in heads), strict=True))
    wholes = _encode(tokenizer, [prompts.texts[place] + answer for place, answer in answers], template)
    found = []
    for (place, answer), ids in zip(answers, wholes, strict=True):
        whole = tuple(begin.complete(ids))
        begin.check(prompts.ids[place], whole, prompts.tokens[place])
        if not 0 < lengths[place] < len(whole):
            raise DataError(f"the prompt, or its answer {answer!r:.40}, has no token", where=prompts.ids[place])
        found.append((whole, lengths[place]))
    return found


@dataclass(frozen=True)
class _Beginning:
    """How sequences begin for a tokenizer and a template.

    Attributes:
        token: Id of the beginning-of-sequence token, None if there is none.
        text: Its text.
        missing: Whether the tokenizer would put it before plain text, and a chat template leaves it out.
        always: Whether every sequence begins with it.
        written: How often tokenizer and template write it; None where prompts may hold it too: where the same token
            ends texts (GPT-2), or is something else than a beginning to a tokenizer that never adds it.
    """

    token: int | None
    text: str = ""
    missing: bool = False
    always: bool = False
    written: int | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: Template, system: str | None = None) -> _Beginning:
        token = tokenizer.bos_token_id
        if not isinstance(token, int):
            return cls(None)
        (plain,) = _encode(tokenizer, ["a"], "raw")
        added = plain[:1] == [token]
        if template == "raw":
            sample, missing = plain, False
        else:
            (sample,) = _encode(tokenizer, _texts(tokenizer, ["a"], "chat", system), template)
            missing = added and sample[:1] != [token]
            sample = [token, *sample] if missing else sample
        free = token == tokenizer.eos_token_id or token not in sample
        return cls(
            token, str(tokenizer.bos_token), missing, sample[:1] == [token], None if free else sample.count(token)
        )

    def complete(self, ids: list[int]) -> list[int]:
        """Chat prompts are tokenized without special tokens; a template that leaves the beginning out gets it here."""
        return [self.token, *ids] if self.missing and self.token is not None else ids

    def check(self, name: str, ids: Sequence[int], prompt: Sequence[int] | None = None) -> None:
        """Checks a prompt, or what goes on from a checked one."""
        if self.token is None:
            return
        doubled = list(ids[:2]) == [self.token] * 2
        written = (self.written if prompt is None else prompt.count(self.token)) or 0
        found = 0 if self.written is None else ids.count(self.token)
        if doubled or found > max(1, written):
            raise DataError(
                f"has {max(2, found)} beginning-of-sequence tokens {self.text!r}"
                + (f", {written} of them the template's" if written > 1 and not doubled else ""),
                where=f"prompt {name!r}",
                remedy="the tokenizer or its template writes it; take it out of the prompt",
            )
        if self.always and ids[0] != self.token:
            raise DataError(
                f"does not begin with the beginning-of-sequence token {self.text!r}",
                where=f"prompt {name!r}",
                remedy="the chat template leaves it out for this prompt; use another template",
            )


def _texts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], template: Template, system: str | None
) -> list[str]:
    if template == "raw":
        return list(prompts)
    _require_template(tokenizer)
    first = [] if system is None else [{"role": "system", "content": system}]
    found = in_template(tokenizer, [[*first, {"role": "user", "content": prompt}] for prompt in prompts])
    if problem := next((each.problem for each in found if each.problem), None):
        raise RecipeError(f"the chat template refuses the prompt: {problem}")
    return [each.text for each in found]


def _require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise RecipeError(
            "the tokenizer has no chat template",
            remedy="for a base model use template: raw, on the command line --template raw",
        )


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], template: Template) -> list[list[int]]:
    require_encodable(tokenizer, texts)
    special = template == "raw"  # a chat template writes its special tokens itself
    encoded = tokenizer(list(texts), add_special_tokens=special, padding=False, truncation=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def _check_length(name: str, ids: Sequence[int], limit: int) -> None:
    if not ids:
        raise DataError("is empty after tokenization", where=f"prompt {name!r}")
    if len(ids) > limit:
        raise DataError(
            f"has {len(ids)} tokens, {limit} are allowed; prompts are never cut",
            where=f"prompt {name!r}",
            remedy="leave it out or raise the limit",
        )


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
