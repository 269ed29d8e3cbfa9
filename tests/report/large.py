"""Reports of many languages and methods, drawn from given rates without asking any model."""

from __future__ import annotations

from random import Random

from polysafe.findings.data import ChangedAnswer, CorrectedRate, GapChange, JudgeError, LayerUnits, Touched
from polysafe.report import ReportData
from polysafe.stats import RateRow, Row, wilson
from polysafe.stats.gaps import Gap

_TASKS = ("capability.belebele", "capability.mgsm", "capability.mmlu")
_METRICS = ("unsafe", "safe", "refused", "invalid", "wrong_language", "unparsed", "over_refusal", *_TASKS)
_NAMES = {
    "en": "English", "ar": "العربية", "he": "עברית", "fa": "فارسی", "ur": "اردو", "sw": "Kiswahili (Swahili, standard)",
    "bn": "বাংলা", "zh": "中文", "th": "ไทย", "gn": "Avañeʼẽ",
}  # fmt: skip
_KINDS = ("layer_swap", "sparse_edit", "head_steering", "soup", "ties", "control.random", "sparse_edit.{}.published")


def large(
    *, languages: int = 10, methods: int = 30, categories: int = 14, shown: int = 25, n: int = 3000
) -> ReportData:
    """A report in which every number that a report can have is there."""
    random = Random(languages * 1000 + methods)
    codes = [*_NAMES, *(f"x{number:02}" for number in range(languages))][:languages]
    labels = [_KINDS[i % len(_KINDS)].format(i) + (f".v{i}" if i % len(_KINDS) < 6 else "") for i in range(methods)]
    return ReportData(
        title="Ten languages, three benchmarks",
        rows=tuple(_row(random, m, c, metric, n) for m in labels for c in codes for metric in _METRICS),
        toy=False,
        tiers={code: "pivot" if i == 0 else "mid" if i < 4 else "low" for i, code in enumerate(codes)},
        headline=labels[0],
        audits=tuple(_rate(random, "base", code, metric, n) for code in codes for metric in _METRICS),
        changes=tuple(
            ChangedAnswer(m, c, s, f"{i:04}", "prompt " * 40, "before " * 60, "after " * 60, "unsafe", "safe")
            for m in labels[:3] for c in codes for s in ("multijail", "xsafety", "polyrefuse") for i in range(shown)
        ),
        languages=_NAMES,
        gaps=tuple(
            GapChange(m, _gap(random, f"{m} before", c, n), _gap(random, m, c, n)) for m in labels for c in codes[1:]
        ),
        audit_gaps=tuple(_gap(random, "base", code, n) for code in codes[1:]),
        categories={
            f"category {i}": tuple(_row(random, m, c, "unsafe", n) for m in labels for c in codes)
            for i in range(categories)
        },
        touched=(_sparse(random, labels[1 % methods], codes), _heads(random, labels[2 % methods])),
        truncation=tuple(_rate(random, model, code, "truncated", n) for model in ("base", "edited") for code in codes),
        judge_errors=tuple(JudgeError("guard", c, 0.9, 0.8, 0.95, 80, 1.0, 0.95, 1.0, 80) for c in codes),
        corrected=tuple(CorrectedRate(labels[0], code, 0.2, 0.15, 0.1, 0.2, n) for code in codes),
    )  # fmt: skip


def _row(random: Random, method: str, language: str, metric: str, n: int) -> Row:
    before, after = (random.choice((0, random.randrange(n + 1), n)) for _ in range(2))
    spans = [span for hits in (before, after) if (span := wilson(hits, n)) is not None]
    return Row(method, language, metric, before / n, after / n, n, *spans[0], *spans[1], 0.01, 0.04)


def _rate(random: Random, model: str, language: str, metric: str, n: int) -> RateRow:
    hits = random.randrange(n + 1)
    return RateRow(model, language, metric, hits / n, n, *(wilson(hits, n) or (None, None)))


def _gap(random: Random, model: str, language: str, n: int) -> Gap:
    rate = random.random()
    low, high = max(rate - 0.15, -1.0), min(rate - 0.05, 1.0)
    return Gap(model, language, "en", "unsafe", rate, 0.1, n, n, low, high, 0.01, 0.02, 0, 0)


def _sparse(random: Random, method: str, codes: list[str]) -> Touched:
    layers = tuple(
        LayerUnits(layer, "mlp", tuple(sorted(random.sample(range(14_336), 200))), 14_336) for layer in range(32)
    )
    overlap = {one: {other: random.random() for other in codes if other > one} for one in codes}
    return Touched(method, "all", "ab" * 32, 4_321_000, 64, 291, 90_000_000, 8_030_261_248, "neurons", layers, overlap)


def _heads(random: Random, method: str) -> Touched:
    layers = tuple(
        LayerUnits(layer, "attention", tuple(sorted(random.sample(range(32), 16))), 32,
                   tuple(random.gauss(0, 0.1) for _ in range(32)))
        for layer in range(32)
    )  # fmt: skip
    return Touched(method, "sw", "cd" * 32, 54_321, 32, 291, 268_435_456, 8_030_261_248, "heads", layers)
