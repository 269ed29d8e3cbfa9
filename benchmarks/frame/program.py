"""What programs that run families for hours share: a file of results for each, and tables of what has been run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
Gather = Callable[[Iterable[Result]], Sequence[Result]]


def options_of(doc: str | None) -> argparse.ArgumentParser:
    """`run OUT FAMILY…`, or `tables OUT… | FILE [--keep FILE]`."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("places", nargs="+")
    parser.add_argument("--keep", type=Path, help="file to write all results to")
    return parser


def print_tables(
    options: argparse.Namespace, tables: Callable[[Sequence[Result]], Iterable[str]], gather: Gather = tuple
) -> None:
    """Prints the tables of results in folders or in one file, and keeps them all in a file where one is named.

    Args:
        options: Of `options_of`.
        tables: Makes them.
        gather: What becomes of the results first.
    """
    results = gather(read_results(map(Path, options.places)))
    if options.keep:
        lines = ",\n".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in results)
        options.keep.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print("\n\n".join(tables(results)))


def run_or_print(
    doc: str | None,
    run: Callable[[Path, Sequence[str]], None],
    tables: Callable[[Sequence[Result]], Iterable[str]],
    arguments: Sequence[str] | None,
) -> None:
    """Runs families, or prints the tables of what has been run, for programs without options of their own."""
    options = options_of(doc).parse_args(arguments)
    if options.what == "run":
        run(Path(options.places[0]), options.places[1:])
    else:
        print_tables(options, tables)


def read_results(places: Iterable[Path]) -> Iterator[Result]:
    """Results in folders, a file each, or in a file of all."""
    for place in places:
        for file in [place] if place.is_file() else sorted(place.glob("*.json")):
            content = json.loads(file.read_text(encoding="utf-8"))
            yield from content if isinstance(content, list) else [content]
