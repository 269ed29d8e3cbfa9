"""PolyRefuse (Wang et al., NeurIPS 2025): machine-translated harmful and harmless instructions in eight languages.

Where the translation stands differs by split: test files hold it as `instruction_translated` beside the English source,
train and validation files as `instruction`, and their English rows are in files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from polysafe.data.languages import language
from polysafe.data.prompts import Kind, Prompt
from polysafe.data.sets.base import Benchmark, Request, category_of
from polysafe.data.tables import read_table
from polysafe.errors import DataError

LANGUAGES = ("en", "it", "ar", "ja", "ko", "th", "yo", "zh")
KINDS: tuple[Kind, ...] = ("harmful", "harmless")
SPLITS = ("test", "train", "val")

_ENGLISH = {
    ("harmful", "train"): "harmful_train.json",
    ("harmful", "val"): "harmful_val.json",
    ("harmless", "train"): "harmless_train_200_sampled.json",
    ("harmless", "val"): "harmless_val_200_sampled.json",
}


def _read(request: Request) -> Iterator[Prompt]:
    for kind in KINDS:
        for split in SPLITS:
            if request.wants_part("kind", kind) and request.wants_part("split", split):
                yield from _split(request, kind, split)


def _split(request: Request, kind: Kind, split: str) -> Iterator[Prompt]:
    files = _files(request.folder, kind, split)
    if not files:
        raise DataError(f"has no file of the {kind} {split} split", where=request.folder)
    rows = {code: _texts(path, code, split) for code, path in files.items()}
    lengths = {code: len(texts) for code, texts in rows.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the {kind} {split} split has {lengths} rows", where=request.folder, remedy="get it again")
    for code in filter(request.wants, files):
        categories = map(category_of, read_table(files[code]).optional_texts("category"))
        for number, (text, category) in enumerate(zip(rows[code], categories, strict=True)):
            yield Prompt("polyrefuse", f"{kind}-{split}-{number}", code, text, kind, category)


def _files(folder: Path, kind: Kind, split: str) -> dict[str, Path]:
    """Code -> file; English first, then as published."""
    found = {}
    pattern = re.compile(rf"{kind}_{split}_translated_(\w+)\.json")
    for path in folder.iterdir():
        if match := pattern.fullmatch(path.name):
            found[language(match[1]).code] = path
    english = folder / _ENGLISH.get((kind, split), "")
    if "en" not in found and english.is_file():
        found["en"] = english
    order = (*LANGUAGES, *sorted(set(found) - set(LANGUAGES)))
    return {code: found[code] for code in order if code in found}


def _texts(path: Path, code: str, split: str) -> tuple[str, ...]:
    table = read_table(path)
    return table.texts("instruction_translated") if split == "test" and code != "en" else table.texts("instruction")


BENCHMARK = Benchmark(
    name="polyrefuse",
    title="harmful and harmless instructions, machine-translated",
    languages=LANGUAGES,
    licence="Apache-2.0; the harmless part derives from Alpaca, CC BY-NC 4.0",
    source="the folder PolyRefuse of github.com/mainlp/Multilingual-Refusal",
    read=_read,
    dimensions={"kind": KINDS, "split": SPLITS},
    defaults={"kind": "harmful", "split": "test"},
    notes="the harmless test split has no Chinese",
    # test = JailbreakBench, HarmBench test, StrongREJECT; train = AdvBench and others; val = HarmBench val
    overlaps={"jailbreakbench": "", "harmbench": "", "strongreject": "", "advbench": "", "multijail": "test"},
)
