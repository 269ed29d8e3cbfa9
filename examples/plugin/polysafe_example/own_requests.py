"""A set of prompts of your own: `own_requests/requests.csv` in the folder of the sets, one row for each text.

Rows of one `id` in several languages are translations of each other; comparisons between languages are paired by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from polysafe.data.prompts import Kind, Prompt
from polysafe.data.sets.base import Benchmark, Request

NAME = "own_requests"
KINDS: tuple[Kind, ...] = ("harmful", "harmless")


def _read(request: Request) -> Iterator[Prompt]:
    table = request.table("requests.csv", split="test")
    columns = (table.texts(name) for name in ("id", "language", "text", "kind"))
    for name, code, text, kind in zip(*columns, strict=True):
        if request.wants(code) and request.wants_part("kind", kind):
            yield Prompt(NAME, name, code, text, cast("Kind", kind))


BENCHMARK = Benchmark(
    name=NAME,
    title="requests of our own",
    languages=(),  # known when the table is read
    licence="ours",
    source="our support desk",
    read=_read,
    dimensions={"kind": KINDS},
)
