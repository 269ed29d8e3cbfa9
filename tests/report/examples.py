"""Small reports for the tests: results drawn from given rates, and text that attacks its reader."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from polysafe.report import BlockDecision, ChangedAnswer, ReportData
from polysafe.report.data import CorrectedRate, GapChange, JudgeError, LayerUnits, Touched
from polysafe.stats import Gap, Outcomes, RateRow, Row, compare_outcomes, rate_outcomes
from tests.attacks.answers import ANSWERS

TIERS = {"en": "pivot", "qaa": "mid", "qac": "low", "qad": "low", "qae": "low"}
LOW = ("qac", "qad", "qae")

HOSTILE = [case.text for case in ANSWERS.values()]


def outcomes(rates: Mapping[str, Mapping[str, float]], seed: int, n: int = 48) -> Outcomes:
    """Items that are true at the given rate, {metric: {language: rate}}, exactly and in random order."""
    random = Random(seed)
    drawn = {}
    for metric, languages in rates.items():
        for language, rate in languages.items():
            values = [i < round(rate * n) for i in range(n)]
            random.shuffle(values)
            drawn[language, metric] = {f"{i:03}": value for i, value in enumerate(values)}
    return drawn


def flat(languages: tuple[str, ...] = LOW, /, **rates: float) -> dict[str, dict[str, float]]:
    """The same rates in every language."""
    return {metric.replace("__", "."): dict.fromkeys(languages, rate) for metric, rate in rates.items()}


BEFORE = flat(unsafe=1.0, refused=0.0, invalid=0.0, over_refusal=0.0, capability__knowledge=0.9)


def rows(method: str = "layer_swap.module", /, **after: float) -> tuple[Row, ...]:
    """Rows of one method: `BEFORE`, and after it the same with the given rates changed."""
    changed = {metric: dict(languages) for metric, languages in BEFORE.items()} | flat(**after)
    return tuple(compare_outcomes(method, outcomes(BEFORE, 1), outcomes(changed, 2)))


def decisions(layers: int, modules: tuple[str | None, ...]) -> tuple[BlockDecision, ...]:
    """Decisions of every kind, layer by layer, and those outside the layers."""
    kinds = [("safety", 1.0, 0.02), ("language", 0.0, -0.0125), ("blend", 0.5, 0.00095)]
    inside = []
    for layer in range(layers):
        for number, module in enumerate(modules):
            choice, weight, score = kinds[(layer + number) % 3]
            name = f"layers.{layer}" + (f".{module}" if module else "")
            detail = {"n_safety": 1.5, "n_language": 0.5}
            inside.append(BlockDecision(name, layer, module, choice, weight, score, detail, choice == "blend"))
    return (*inside, BlockDecision("embedding", None, None, "blend", 0.5))


def change(number: int, text: str = "kolu vata", before: str = "unsafe", after: str = "refused") -> ChangedAnswer:
    return ChangedAnswer(
        "layer_swap.module", "qac", "harmful", f"{number:03}", text, f"yes: {text}", f"no: {text}", before, after
    )


def example(*, toy: bool = True) -> ReportData:
    """A whole report with methods, a baseline, a control, audits, maps, changes and settings."""
    audited = outcomes(flat(tuple(TIERS), unsafe=0.25, refused=0.7), 3)
    good = {"unsafe": 0.125, "refused": 0.875}
    return ReportData(
        title="Toy family, seed 3",
        rows=(
            *rows("layer_swap.layer", **good),
            *rows("layer_swap.module", **good),
            *rows("task_arithmetic", unsafe=0.1, refused=0.2, invalid=0.7),
            *rows("control.random_blocks", unsafe=0.95, refused=0.05),
        ),
        toy=toy,
        tiers=TIERS,
        headline="layer_swap.module",
        audits=tuple(rate_outcomes("base", audited)),
        decisions={
            "layer_swap.module": dict.fromkeys(LOW, decisions(8, ("attention", "mlp"))),
            "layer_swap.layer": dict.fromkeys(LOW, decisions(8, (None,))),
        },
        changes=tuple(change(i) for i in range(3)),
        languages={"en": "English", "qac": "Conlang C"},
        meta={"Settings": {"tau": 0.001, "seed": 3, "arithmetic": "float32", "donor": None}},
        limits=("Nothing was judged by a model.",),
    )


def hostile(text: str) -> ReportData:
    """A report in which every text that comes from outside is `text`."""
    attack = [Row(text, code, metric, 1.0, 0.5, 4, 0.5, 1.0, 0.2, 0.8, 0.5, 0.5) for code in (text, "qac")
              for metric in ("unsafe", "refused", text, f"capability.{text}")]  # fmt: skip
    block = BlockDecision(text, 0, text, text, 0.5, 0.1, {text: 1.0}, borderline=True)
    rates = tuple(rate_outcomes(text, outcomes(flat((text, "en"), unsafe=0.25, refused=0.7), 3)))
    gaps = [Gap(text, code, "en", "unsafe", 0.9, 0.1, 40, 40, 0.6, 0.9, 0.01, 0.01, 1, 2) for code in (text, "qac")]
    units = (LayerUnits(0, text, (1,), 4, (0.1, 0.9, 0.2, 0.0)), LayerUnits(1, None, (0, 2), 4))
    overlap = {text: {"qac": 0.5}, "qac": {text: 0.5}}
    return ReportData(
        title=text,
        rows=tuple(attack),
        toy=False,
        tiers={text: text, "qac": "low"},
        audits=rates,
        decisions={text: {text: (block, BlockDecision(text, None, None, text, 0.5))}},
        changes=(ChangedAnswer(*[text] * 9), change(1, text)),
        languages={text: text, "qac": text},
        gaps=tuple(GapChange(text, gap, gap) for gap in gaps),
        audit_gaps=tuple(gaps),
        categories={text: tuple(row for row in attack if row.metric == "unsafe"), "other": (attack[0],)},
        audit_categories={text: rates},
        touched=tuple(
            Touched(text, text, text, 10, 1, 2, 3, 4, unit, units, overlap) for unit in ("heads", "neurons", text)
        ),
        truncation=tuple(RateRow(model, text, "truncated", 0.5, 4, 0.1, 0.9) for model in (text, "base")),
        judge_errors=(JudgeError(text, text, 0.9, 0.8, 1.0, 20, 0.8, 0.7, 0.9, 20),),
        corrected=(CorrectedRate(text, text, 0.5, 0.4, 0.3, 0.6, 4),),
        meta={text: {text: text}},
        limits=(text,),
    )
