"""Anchors: parallel sets of harmful and harmless prompts that an edit is fitted to.

A row that lacks a language is dropped in all languages, so that row i is the same prompt everywhere
(`data.anchor_sets` reads them). Anchors that occur among the prompts of an evaluation would make it worthless; they are
found by normalised text and refused.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from polysafe.errors import DataError

_SHOWN = 3


@dataclass(frozen=True)
class ParallelPrompts:
    """The same prompts in several languages.

    Attributes:
        ids: Name of every row.
        texts: Language -> its prompts, in the order of `ids`.
        dropped: Number of rows that lacked a language and were left out as a whole.
        origin: Where they come from, for messages.
    """

    ids: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    dropped: int = 0
    origin: str = ""

    def __post_init__(self) -> None:
        """Checks that the languages are parallel.

        Raises:
            DataError: An id is given twice, or a language has more or fewer prompts than there are ids.
        """
        if len(set(self.ids)) < len(self.ids):
            twice = next(name for name in self.ids if self.ids.count(name) > 1)
            raise DataError(f"the id {twice!r} is given twice", where=self.origin or None)
        for language, texts in self.texts.items():
            if len(texts) != len(self.ids):
                raise DataError(
                    f"{language!r} has {len(texts)} prompts for {len(self.ids)} ids", where=self.origin or None
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the set."""
        return tuple(self.texts)

    @cached_property
    def sha256(self) -> str:
        """Hash over ids, languages and prompts."""
        content = [list(self.ids), {language: list(texts) for language, texts in sorted(self.texts.items())}]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()

    def prompts(self, language: str) -> dict[str, str]:
        """Id -> prompt of one language.

        Raises:
            DataError: The language has no prompts.
        """
        if language not in self.texts:
            raise DataError(
                f"there are no prompts in {language!r}",
                where=self.origin or None,
                remedy=f"languages: {', '.join(self.texts)}",
            )
        return dict(zip(self.ids, self.texts[language], strict=True))

    def select(self, rows: Sequence[int]) -> Self:
        """Some of the rows, in all languages."""
        return type(self)(
            tuple(self.ids[i] for i in rows),
            {language: tuple(texts[i] for i in rows) for language, texts in self.texts.items()},
            self.dropped,
            self.origin,
        )

    def split(self, share: float) -> tuple[Self, Self]:
        """The rows in two parts, the second with about `share` of them.

        Which part a row belongs to depends on its id alone, so that adding rows moves none.
        """
        second = [_fraction(name) < share for name in self.ids]
        parts = [[i for i, is_second in enumerate(second) if is_second is part] for part in (False, True)]
        return self.select(parts[0]), self.select(parts[1])

    def overlap(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Ids of the rows of which some language occurs among `texts`, compared by normalised text."""
        known = {normalised(text) for text in texts}
        return tuple(
            name
            for name, *row in zip(self.ids, *self.texts.values(), strict=True)
            if any(normalised(text) in known for text in row)
        )


@dataclass(frozen=True)
class Anchors:
    """What an edit is fitted to.

    Attributes:
        harmful: Prompts whose responses in the pivot are the target.
        harmless: Prompts that are to be answered as before.
    """

    harmful: ParallelPrompts
    harmless: ParallelPrompts

    @property
    def sha256(self) -> str:
        """Hash over both sets."""
        return hashlib.sha256(f"{self.harmful.sha256}\n{self.harmless.sha256}".encode()).hexdigest()

    def require_disjoint(self, evaluation: Mapping[str, Iterable[str]], *, forced: bool = False) -> tuple[str, ...]:
        """Refuses anchors that an evaluation asks about.

        Args:
            evaluation: Name of an evaluation set -> its prompts in all languages.
            forced: Whether to tell instead of to refuse.

        Returns:
            What was found, in words; nothing unless `forced`.

        Raises:
            DataError: An anchor is among the prompts of an evaluation.
        """
        found = []
        for name, texts in evaluation.items():
            shared = {*self.harmful.overlap(known := tuple(texts)), *self.harmless.overlap(known)}
            if shared:
                found.append(f"{len(shared)} anchors are among the prompts of {name}: {_listed(sorted(shared))}")
        if found and not forced:
            raise DataError(
                "; ".join(found),
                remedy="take them out of the anchors, or set `allow_overlap: true` and do not report the results",
            )
        return tuple(found)


def normalised(text: str) -> str:
    """What two prompts are compared by: letters, marks and digits, without regard to case, width or spacing."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).translate(_COMPARED)


class _Compared(dict[int, int | None]):
    """For `str.translate`: letters, marks and digits stay, everything else goes; each sign is looked up once."""

    def __missing__(self, sign: int) -> int | None:
        self[sign] = sign if unicodedata.category(chr(sign))[0] in "LMN" else None
        return self[sign]


_COMPARED = _Compared()


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2.0**64


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
