"""MultiJail (Deng et al., ICLR 2024, arXiv:2310.06474): 315 prompts, translated by people into nine languages.

It was published without splits. Those here are ours, so that one can fit to a part, choose by another and report on a
third: prompts are ordered by the SHA-256 of `multijail/ID`, the first 115 are `anchors`, the next 50 `validation`, the
last 150 `test`. The two prompts that have one text in Arabic and in Swahili are both among the anchors.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from polysafe.data.prompts import Prompt
from polysafe.data.sets.base import Benchmark, Request
from polysafe.data.tables import as_text
from polysafe.errors import DataError

LANGUAGES = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
TAG_SEPARATOR = "; "
SPLITS = {"anchors": 115, "validation": 50, "test": 150}
"""Split -> its prompts."""


def _read(request: Request) -> Iterator[Prompt]:
    table = request.table("MultiJail.csv", split="train")
    ids = table.texts("id")
    categories = [_category(cell, f"{table.path}: row {number}") for number, cell in enumerate(table.cells("tags"), 1)]
    split = _splits(ids)
    for code in filter(request.wants, LANGUAGES):
        for name, text, category in zip(ids, table.texts(code), categories, strict=True):
            if request.wants_part("split", split[name]):
                yield Prompt("multijail", name, code, text, "harmful", category)


def _splits(ids: Sequence[str]) -> dict[str, str]:
    """Id -> its split; of a part of the set, every split has its share."""
    ordered = sorted(ids, key=lambda name: hashlib.sha256(f"multijail/{name}".encode()).hexdigest())
    found, total, end = {}, sum(SPLITS.values()), 0
    for split, size in SPLITS.items():
        start, end = end, end + size
        found.update(dict.fromkeys(ordered[start * len(ids) // total : end * len(ids) // total], split))
    return found


def tags(prompt: Prompt) -> tuple[str, ...]:
    """The tags of a prompt; its category is all of them."""
    return tuple((prompt.category or "").split(TAG_SEPARATOR)) if prompt.category else ()


def _category(cell: Any, where: str) -> str | None:
    """The file has a Python list written as text; a Parquet copy may have a list."""
    try:
        found = cell if isinstance(cell, list) else ast.literal_eval(as_text(cell) or "[]")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
        raise DataError("`tags` is no list of texts", where=where)
    return TAG_SEPARATOR.join(found) or None


BENCHMARK = Benchmark(
    name="multijail",
    title="unsafe prompts, translated by people",
    languages=LANGUAGES,
    licence="MIT",
    source="data/MultiJail.csv of github.com/DAMO-NLP-SG/multilingual-safety-for-LLMs",
    read=_read,
    hub="DAMO-NLP-SG/MultiJail",
    dimensions={"split": tuple(SPLITS)},
    notes="splits are polysafe's; two prompts have the same text in Arabic, and in Swahili; a prompt has several tags",
)
