"""What an evaluation asks: prompts with stable names, in sets that say where they come from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal, Self, get_args

from polysafe.errors import DataError

Kind = Literal["harmful", "harmless"]
"""Whether a prompt should be refused. A refusal of a harmless one is an over-refusal."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt in one language.

    Attributes:
        set: Name of the set that it belongs to, for example `multijail`.
        parallel: Name of the prompt, the same in every language of its set.
        language: Language code, as polysafe spells it everywhere (`en`, `sw`, `zh`).
        text: What the user says, as published.
        kind: Whether it should be refused.
        category: Category of its set, None where the set has none.
        plain: The published prompt that an attack made the text of; None where the text is the published one.
    """

    set: str
    parallel: str
    language: str
    text: str
    kind: Kind
    category: str | None = None
    plain: str | None = None

    @property
    def id(self) -> str:
        """Name of the prompt, unique over sets and languages."""
        return f"{self.set}/{self.parallel}/{self.language}"

    @property
    def underlying(self) -> Prompt:
        """The prompt with its published text, which is what an answer is judged by."""
        return self if self.plain is None else replace(self, text=self.plain, plain=None)

    def to_json(self) -> dict[str, str | None]:
        """The prompt as a flat object; of one that no attack made nothing is said of attacks."""
        return {name: value for name, value in asdict(self).items() if name != "plain" or value is not None}


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one benchmark.

    Attributes:
        name: Name of the set.
        prompts: Its prompts; rows of one language stand together and in the order of the source.
        licence: Licence as stated by the source; empty where none is stated.
        origin: Where it was read from, for messages and records.
        overlaps: Names of other sets that hold some of its prompts (in whatever form), itself not among them.
        dropped: Why prompts of the source were left out -> how many.
    """

    name: str
    prompts: tuple[Prompt, ...]
    licence: str = ""
    origin: str = ""
    overlaps: frozenset[str] = frozenset()
    dropped: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Checks that every prompt has a name of its own.

        Raises:
            DataError: Two prompts have the same name.
        """
        twice = [name for name, times in Counter(prompt.id for prompt in self.prompts).items() if times > 1]
        if twice:
            raise DataError(f"the prompt {twice[0]!r} is there twice", where=self.origin or self.name)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the set, in the order of its prompts."""
        return tuple(dict.fromkeys(prompt.language for prompt in self.prompts))

    @cached_property
    def sha256(self) -> str:
        """Hash over names, languages, texts and kinds of all prompts."""
        rows = [[p.id, p.text, p.kind, p.category, *([] if p.plain is None else [p.plain])] for p in self.prompts]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()

    def of_kind(self, kind: Kind) -> Self:
        """Those of its prompts that should be refused, or that should not."""
        return replace(self, prompts=tuple(prompt for prompt in self.prompts if prompt.kind == kind))

    def select(
        self, languages: Collection[str] | None = None, limit: int | None = None, *, all_of_them: bool = True
    ) -> Self:
        """The prompts of some languages, and the first `limit` parallel rows of either kind.

        Rows are counted by their name, so that a limit keeps languages parallel. Where languages share no row, as in a
        table with a row for every prompt, the first `limit` of each language are kept.

        Args:
            languages: Codes of the languages; all of the set where None.
            limit: Number of parallel rows of either kind.
            all_of_them: Whether the set has to have every language, or one of them at least.

        Raises:
            DataError: The set has no prompts in a language, or in any of them.
        """
        lacking = [language for language in languages or () if language not in self.languages]
        if lacking and (all_of_them or len(lacking) == len(languages or ())):
            raise DataError(
                f"has no prompts in {' or '.join(map(repr, lacking))}",
                where=self.origin or self.name,
                remedy=f"languages: {', '.join(self.languages)}",
            )
        wanted = self.languages if languages is None else tuple(languages)
        kept = [prompt for prompt in self.prompts if prompt.language in wanted]
        if limit is not None:
            first = {p.id for kind in get_args(Kind) for p in _first([p for p in kept if p.kind == kind], limit)}
            kept = [prompt for prompt in kept if prompt.id in first]
        return replace(self, prompts=tuple(kept))


def _first(prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """Those of the first rows; of the first rows of each language where none stands in two."""
    together = dict.fromkeys(prompt.parallel for prompt in prompts)
    rows: dict[str, dict[str, None]] = {}
    for prompt in prompts:
        rows.setdefault(prompt.language, {})[prompt.parallel] = None
    shared = sum(map(len, rows.values())) > len(together)
    kept = {language: set(list(together if shared else names)[:limit]) for language, names in rows.items()}
    return [prompt for prompt in prompts if prompt.parallel in kept[prompt.language]]
