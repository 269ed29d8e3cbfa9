"""Global-MMLU and its lite edition (Singh et al., arXiv:2412.03304): questions of 57 subjects, four choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from polysafe.data.exams.base import PROMPTS, complete, in_metadata, in_prompt, letters
from polysafe.data.languages import language
from polysafe.data.questions import Question
from polysafe.data.sets.base import Benchmark, Request
from polysafe.data.tables import Table

LITE = "ar bn de en es fr hi id it ja ko ms pt sw tl vi yo zh"
FULL = (
    "am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn so sr sv sw te "
    "tr uk vi yo zh"
)
SPLITS = ("test", "dev")
_OPTIONS = ("option_a", "option_b", "option_c", "option_d")


def _reader(name: str, published: str) -> Callable[[Request], Iterator[Question]]:
    def read(request: Request) -> Iterator[Question]:
        # Looked up here and not at import: some spellings need CLDR.
        configs = {language(config).code: config for config in published.split()}
        split = request.parts["split"]
        local = {code: f"{name}_{config}_{split}.jsonl" for code, config in configs.items()}
        for code, table in request.tables(local, configs, split):
            yield from _questions(name, table, code)

    return read


def _questions(name: str, table: Table, code: str) -> Iterator[Question]:
    """Rows in the hub's shape, or in SEA-HELM's."""
    nested = table.find(PROMPTS) is not None

    def texts(field: str) -> tuple[str, ...]:
        return in_prompt(table, field) if nested else table.texts(field)

    def about(field: str) -> tuple[str, ...]:
        return in_metadata(table, field) if nested else table.texts(field)

    ids, subjects, categories = map(about, ("sample_id", "subject", "subject_category"))
    golds = letters(table, "label" if nested else "answer")
    choices = zip(*map(texts, _OPTIONS), strict=True)
    rows = zip(ids, texts("question"), golds, choices, categories, subjects, strict=True)
    yield from complete(
        table,
        (
            Question(name, id_, code, question, gold, options, category=category or None, subject=subject or None)
            for id_, question, gold, options, category, subject in rows
        ),
    )


def _benchmark(name: str, title: str, hub: str, published: str) -> Benchmark[Question]:
    return Benchmark(
        name=name,
        title=title,
        languages=tuple(published.split()),
        licence="Apache-2.0",
        source=f"the files of {hub}, one folder per language",
        read=_reader(name, published),
        hub=hub,
        dimensions={"split": SPLITS},
        defaults={"split": "test"},
    )


BENCHMARK = _benchmark("global_mmlu", "exam questions of 57 subjects", "CohereLabs/Global-MMLU", FULL)
BENCHMARK_LITE = _benchmark("global_mmlu_lite", "a balanced part of Global-MMLU", "CohereLabs/Global-MMLU-Lite", LITE)
