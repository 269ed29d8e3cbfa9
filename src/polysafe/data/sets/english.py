"""Sets in English only: AdvBench, HarmBench, StrongREJECT, JailbreakBench, XSTest, OR-Bench.

Their copies are in different orders and not all have ids, so a prompt is named by its text (`content_id`),
JailbreakBench excepted, whose rows are harmful and harmless pairs with an index.
"""

from __future__ import annotations

from collections.abc import Iterator

from polysafe.data.prompts import Kind, Prompt
from polysafe.data.sets.base import Benchmark, Request, category_of, content_id, joined
from polysafe.data.tables import Table, read_table
from polysafe.errors import DataError

HARMBENCH_SUBSETS = ("standard", "contextual", "copyright")
HARMBENCH_SPLITS = ("test", "val")
ORBENCH_SPLITS = ("train", "test", "val")
JAILBREAK_KINDS: tuple[Kind, ...] = ("harmful", "harmless")
XSTEST_KINDS: dict[str, Kind] = {"unsafe": "harmful", "safe": "harmless"}


def _prompts(name: str, kind: Kind, texts: tuple[str, ...], categories: tuple[str, ...]) -> Iterator[Prompt]:
    for text, category in zip(texts, categories, strict=True):
        yield Prompt(name, content_id(text), "en", text, kind, category_of(category))


def _advbench(request: Request) -> Iterator[Prompt]:
    table = request.table("harmful_behaviors.csv", split="train")
    yield from _prompts("advbench", "harmful", table.texts("goal", "prompt"), ("",) * len(table))


def _strongreject(request: Request) -> Iterator[Prompt]:
    table = request.table("strongreject_dataset.csv", split="train")
    yield from _prompts(
        "strongreject", "harmful", table.texts("forbidden_prompt", "prompt"), table.optional_texts("category")
    )


def _harmbench(request: Request) -> Iterator[Prompt]:
    split = request.parts.get("split", "all")
    local = request.folder / f"harmbench_behaviors_text_{split}.csv"
    for subset in HARMBENCH_SUBSETS:
        if request.wants_part("subset", subset):
            if local.is_file():
                yield from _behaviours(_subset(read_table(local), subset))
            else:
                yield from _behaviours(_harmbench_hub(request, subset, split))


def _subset(table: Table, subset: str) -> Table:
    functional = table.texts("FunctionalCategory")
    rows = tuple(row for row, found in zip(table.rows, functional, strict=True) if found == subset)
    return Table(table.path, table.columns, rows)


def _harmbench_hub(request: Request, subset: str, split: str) -> Table:
    if split != "all":
        raise DataError(
            f"has no {split} split in this layout",
            where=request.folder,
            remedy="the hub's copy has all behaviours in one; use the files of the source repository for splits",
        )
    return joined([read_table(path) for path in request.hub(subset, "train")])


def _behaviours(table: Table) -> Iterator[Prompt]:
    """Behaviours, a context before its question as in HarmBench's direct requests."""
    contexts = table.optional_texts("ContextString", "context")
    behaviours = table.texts("Behavior", "prompt")
    texts = tuple(f"{c}\n\n---\n\n{b}" if c.strip() else b for c, b in zip(contexts, behaviours, strict=True))
    yield from _prompts("harmbench", "harmful", texts, table.optional_texts("SemanticCategory", "category"))


def _jailbreakbench(request: Request) -> Iterator[Prompt]:
    for kind, word in zip(JAILBREAK_KINDS, ("harmful", "benign"), strict=True):
        if request.wants_part("kind", kind):
            table = request.table(f"{word}-behaviors.csv", split=word)
            names, goals = table.texts("Index"), table.texts("Goal")
            for name, text, category in zip(names, goals, table.texts("Category"), strict=True):
                yield Prompt("jailbreakbench", f"{kind}-{name}", "en", text, kind, category_of(category))


def _xstest(request: Request) -> Iterator[Prompt]:
    table = request.table("xstest_prompts.csv", split="test")
    rows = zip(table.texts("prompt"), table.texts("label"), table.texts("type"), strict=True)
    for number, (text, label, category) in enumerate(rows, start=1):
        if label not in XSTEST_KINDS:
            raise DataError(f"row {number} has the label {label!r}", where=table.path, remedy="labels: safe, unsafe")
        kind = XSTEST_KINDS[label]
        if request.wants_part("kind", kind):
            yield Prompt("xstest", content_id(text), "en", text, kind, category_of(category))


def _orbench(request: Request) -> Iterator[Prompt]:
    local = [
        path
        for split in ORBENCH_SPLITS
        if request.wants_part("split", split) and (path := request.folder / f"or_bench_hard_{split}.json").is_file()
    ]
    if not local and "split" in request.parts:
        raise DataError(f"has no {request.parts['split']} split in this layout", where=request.folder)
    table = joined([read_table(path) for path in local or request.hub("or-bench-hard-1k")])
    yield from _prompts("orbench", "harmless", table.texts("instruction", "prompt"), table.optional_texts("category"))


ADVBENCH = Benchmark(
    name="advbench",
    title="harmful behaviours (Zou et al., arXiv:2307.15043)",
    languages=("en",),
    licence="MIT",
    source="harmful_behaviors.csv of github.com/llm-attacks/llm-attacks",
    read=_advbench,
    hub="walledai/AdvBench",
)
HARMBENCH = Benchmark(
    name="harmbench",
    title="text behaviours (Mazeika et al., ICML 2024, arXiv:2402.04249)",
    languages=("en",),
    licence="MIT",
    source="the files harmbench_behaviors_text_*.csv of github.com/centerforaisafety/HarmBench",
    read=_harmbench,
    hub="walledai/HarmBench",
    dimensions={"subset": HARMBENCH_SUBSETS, "split": HARMBENCH_SPLITS},
    notes="copyright behaviours are about reproduction of texts, which a safety judge does not see",
)
STRONGREJECT = Benchmark(
    name="strongreject",
    title="forbidden prompts in six categories (Souly et al., arXiv:2402.10260)",
    languages=("en",),
    licence="MIT",
    source="strongreject_dataset.csv of github.com/alexandrasouly/strongreject",
    read=_strongreject,
    hub="walledai/StrongREJECT",
    # some behaviours of AdvBench; MultiJail drew on the same published red-team prompts
    overlaps={"advbench": "", "multijail": ""},
)
JAILBREAKBENCH = Benchmark(
    name="jailbreakbench",
    title="harmful behaviours and harmless ones on the same topics (Chao et al., NeurIPS 2024, arXiv:2404.01318)",
    languages=("en",),
    licence="MIT",
    source="harmful-behaviors.csv and benign-behaviors.csv of huggingface.co/datasets/JailbreakBench/JBB-Behaviors",
    read=_jailbreakbench,
    hub="JailbreakBench/JBB-Behaviors",
    dimensions={"kind": JAILBREAK_KINDS},
    overlaps={"advbench": "", "harmbench": "", "strongreject": ""},
)
XSTEST = Benchmark(
    name="xstest",
    title="safe prompts that look unsafe, and unsafe contrasts (Röttger et al., NAACL 2024, arXiv:2308.01263)",
    languages=("en",),
    licence="CC BY 4.0",
    source="xstest_prompts.csv of github.com/paul-rottger/exaggerated-safety",
    read=_xstest,
    hub="walledai/XSTest",
    dimensions={"kind": tuple(XSTEST_KINDS.values())},
)
ORBENCH = Benchmark(
    name="orbench",
    title="OR-Bench-Hard-1k: harmless prompts that look harmful (Cui et al., ICML 2025, arXiv:2405.20947)",
    languages=("en",),
    licence="CC BY 4.0",
    source="the files or_bench_hard_*.json of github.com/mainlp/Multilingual-Refusal",
    read=_orbench,
    hub="bench-llm/or-bench",
    dimensions={"split": ORBENCH_SPLITS},
)
