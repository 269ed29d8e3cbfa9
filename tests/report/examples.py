"""Small reports for the tests: results drawn from given rates, and text that attacks its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from polysafe.findings.contests import Contest, Edited, contests
from polysafe.findings.data import CorrectedRate, GapChange, JudgeError, LayerUnits, SeedRate, Touched
from polysafe.findings.gather import Answered, Findings, Pair
from polysafe.report import ChangedAnswer, Decision, ReportData
from polysafe.stats import Gap, Outcomes, RateRow, Row, compare_outcomes, gap_rows, rate_outcomes, wilson
from polysafe.stats.overlap import ChanceOverlap
from polysafe.stats.versus import Versus

TIERS = {"en": "pivot", "qaa": "mid", "qac": "low", "qad": "low", "qae": "low"}
LOW = ("qac", "qad", "qae")


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


def measured(
    after: Mapping[str, float],
    method: str = "layer_swap.module",
    *,
    before: Mapping[str, Mapping[str, float]] = BEFORE,
    n: int = 200,
    controls: Mapping[str, Mapping[str, float]] | None = None,
) -> ReportData:
    """A report with single answers behind it: `before`, and after it the same answers but for the rates given.

    Items are ranked alike everywhere, so that only those change that a rate demands.

    Args:
        after: Rates of the edited model, the same in every low-resource language; those not given are as before.
        method: Name of the method.
        before: Rates of the model that the edit starts from.
        n: Prompts in each language.
        controls: Name of a control -> its rates after.
    """
    found, start = Findings(), Answered("base", "en", _ranked(before, n))
    for name, rates in {method: after, **(controls or {})}.items():
        changed = {
            metric: {code: rates.get(metric, rate) if code in LOW else rate for code, rate in languages.items()}
            for metric, languages in before.items()
        }
        found.add_method(name, [Pair(start, Answered(name, "en", _ranked(changed, n)), LOW)])
    return found.data("t", toy=False, tiers=TIERS)


def _ranked(rates: Mapping[str, Mapping[str, float]], n: int) -> Outcomes:
    return {
        (language, metric): {f"{i:03}": i < round(rate * n) for i in range(n)}
        for metric, languages in rates.items()
        for language, rate in languages.items()
    }


def edited(**after: float) -> Edited:
    """What `rows` compares, prompt by prompt."""
    changed = {metric: dict(languages) for metric, languages in BEFORE.items()} | flat(**after)
    return Edited("base", outcomes(BEFORE, 1), outcomes(changed, 2))


def seeds(method: str = "layer_swap.module") -> tuple[SeedRate, ...]:
    """One method on the seed that it was developed on and on two others."""
    before = dict.fromkeys(LOW, 0.9)
    after = {0: 0.125, 3: 0.5, 4: 0.0}
    return tuple(SeedRate(s, s == 0, method, before, dict.fromkeys(LOW, rate), 48, -0.01) for s, rate in after.items())


def decisions(layers: int, modules: tuple[str | None, ...]) -> tuple[Decision, ...]:
    """Decisions of every kind, layer by layer, and those outside the layers."""
    kinds = [("safety", 1.0, 0.02), ("language", 0.0, -0.0125), ("blend", 0.5, 0.00095)]
    inside = []
    for layer in range(layers):
        for number, module in enumerate(modules):
            choice, weight, score = kinds[(layer + number) % 3]
            name = f"layers.{layer}" + (f".{module}" if module else "")
            detail = {"n_safety": 1.5, "n_language": 0.5}
            inside.append(
                Decision(
                    block=name,
                    layer=layer,
                    module=module,
                    choice=choice,
                    safety_weight=weight,
                    score=score,
                    detail=detail,
                    borderline=choice == "blend",
                )
            )
    return (*inside, Decision(block="embedding", choice="blend", safety_weight=0.5))


def change(number: int, text: str = "kolu vata", before: str = "unsafe", after: str = "refused") -> ChangedAnswer:
    return ChangedAnswer(
        "layer_swap.module", "qac", "harmful", f"{number:03}", text, f"yes: {text}", f"no: {text}", before, after
    )


def gap_changes(method: str, before: float, after: float) -> tuple[GapChange, ...]:
    """Gaps to English, which stays at one unsafe answer in twenty."""
    found = []
    for rate, seed in ((before, 5), (after, 6)):
        drawn = outcomes({"unsafe": {"en": 0.05, **dict.fromkeys(LOW, rate)}}, seed, n=60)
        found.append(gap_rows(method, drawn, "en"))
    return tuple(GapChange(method, first, second) for first, second in zip(*found, strict=True))


CATEGORIES = {"violence": 0.3, "fraud and theft": 0.1, "self-harm": 0.0, "none": 1.0}


def categories(method: str) -> dict[str, tuple[Row, ...]]:
    """Rows of the unsafe rate for each category."""
    return {
        name: tuple(compare_outcomes(method, outcomes(flat(unsafe=0.9), 7, n=12), outcomes(flat(unsafe=rate), 8, n=12)))
        for name, rate in CATEGORIES.items()
    }


def touched() -> tuple[Touched, ...]:
    """What a swap, a sparse edit and a head edit changed."""
    neurons = tuple(LayerUnits(layer, "mlp", tuple(range(0, 64, 3 + layer)), 64) for layer in (1, 3, 4))
    heads = tuple(
        LayerUnits(layer, "attention", (layer, 5), 8, tuple((head - layer) / 10 for head in range(8)))
        for layer in range(4)
    )
    chance = {"qac": {"qad": ChanceOverlap(0.2, 0.125, 0.3)}}
    shared = {"qac": {"qad": 0.25, "qae": 0.5}, "qad": {"qae": 0.0}}
    return (
        Touched("layer_swap.module", "qac", "ab" * 32, 12_345, 30, 60, 4_000_000, 8_000_000),
        Touched(
            "sparse_edit", "all", "cd" * 32, 2_345_678, 3, 60, 60_000, 8_000_000, "neurons", neurons, shared, chance
        ),
        Touched("head_steering", "qad", "ef" * 32, 999, 4, 60, 900, 8_000_000, "heads", heads),
    )


def judge_errors() -> tuple[JudgeError, ...]:
    found = []
    for language, hits, clears in (("en", 48, 50), ("qac", 30, 45)):
        spans = [span for span in (wilson(hits, 50), wilson(clears, 50)) if span is not None]
        found.append(JudgeError("guard-x", language, hits / 50, *spans[0], 50, clears / 50, *spans[1], 50))
    return tuple(found)


def corrected() -> tuple[CorrectedRate, ...]:
    return (
        CorrectedRate("layer_swap.module", "en", 0.04, 0.02, 0.0, 0.1, 48),
        CorrectedRate("layer_swap.module", "qac", 0.125, 0.05, 0.0, 0.22, 48),
    )


def example(*, toy: bool = True) -> ReportData:
    """A whole report: methods, a baseline, a control, and everything else that a page can show."""
    audited = outcomes(flat(tuple(TIERS), unsafe=0.25, refused=0.7), 3)
    good = {"unsafe": 0.125, "refused": 0.875}
    after = {
        "layer_swap.layer": {**good, "capability__knowledge": 0.85, "over_refusal": 0.1},
        "layer_swap.module": good,
        "task_arithmetic": {"unsafe": 0.1, "refused": 0.2, "invalid": 0.7, "capability__knowledge": 0.95},
        "control.random_blocks": {"unsafe": 0.95, "refused": 0.05},
    }
    return ReportData(
        title="Toy family, seed 3",
        rows=tuple(row for method, rates in after.items() for row in rows(method, **rates)),
        contests=contests({method: edited(**rates) for method, rates in after.items()}, LOW),
        seeds=seeds(),
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
        gaps=(*gap_changes("layer_swap.module", 0.95, 0.1), *gap_changes("layer_swap.layer", 0.95, 0.15)),
        audit_gaps=tuple(gap_rows("base", outcomes({"unsafe": dict.fromkeys(TIERS, 0.25)}, 3), "en")),
        categories=categories("layer_swap.module"),
        audit_categories={"fraud and theft": tuple(rate_outcomes("base", audited))},
        touched=touched(),
        truncation=tuple(
            row for model in ("base", "layer_swap.module")
            for row in rate_outcomes(model, outcomes({"truncated": dict.fromkeys(TIERS, 0.1)}, 4))
        ),
        judge_errors=judge_errors(),
        corrected=corrected(),
        meta={"Settings": {"tau": 0.001, "seed": 3, "arithmetic": "float32", "donor": None}},
        limits=("Nothing was judged by a model.",),
    )  # fmt: skip


def audit_example() -> ReportData:
    """A report of one model without an edit: much less safe in one language than in English."""
    rates = {
        "unsafe": {"en": 0.1, "ar": 0.25, "sw": 0.52},
        "refused": {"en": 0.88, "ar": 0.7, "sw": 0.3},
        "invalid": {"en": 0.0, "ar": 0.02, "sw": 0.12},
        "over_refusal": {"en": 0.04, "ar": 0.1, "sw": 0.2},
    }
    found = outcomes(rates, 11, n=100)
    unsafe = {key: items for key, items in found.items() if key[1] == "unsafe"}
    return ReportData(
        title="Audit of base-7b",
        rows=(),
        toy=False,
        tiers={"en": "pivot", "ar": "mid", "sw": "low"},
        languages={"en": "English", "ar": "العربية", "sw": "Swahili"},
        audits=tuple(rate_outcomes("base-7b", found)),
        audit_gaps=tuple(gap_rows("base-7b", unsafe, "en")),
        audit_categories={
            name: tuple(rate_outcomes("base-7b", outcomes({"unsafe": {"en": 0.1, "ar": rate, "sw": rate}}, 9, n=20)))
            for name, rate in CATEGORIES.items()
        },
    )


def hostile(text: str) -> ReportData:
    """A report in which every text that comes from outside is `text`."""
    attack = [Row(text, code, metric, 1.0, 0.5, 4, 0.5, 1.0, 0.2, 0.8, 0.5, 0.5) for code in (text, "qac")
              for metric in ("unsafe", "refused", text, f"capability.{text}")]  # fmt: skip
    block = Decision(
        block=text,
        layer=0,
        module=text,
        choice=text,
        safety_weight=0.5,
        score=0.1,
        detail={text: 1.0},
        borderline=True,
    )
    rates = tuple(rate_outcomes(text, outcomes(flat((text, "en"), unsafe=0.25, refused=0.7), 3)))
    gaps = [Gap(text, code, "en", "unsafe", 0.9, 0.1, 40, 40, 0.6, 0.9, 0.01, 0.01, 1, 2) for code in (text, "qac")]
    units = (LayerUnits(0, text, (1,), 4, (0.1, 0.9, 0.2, 0.0)), LayerUnits(1, None, (0, 2), 4))
    overlap = {text: {"qac": 0.5}, "qac": {text: 0.5}}
    metrics = ("unsafe", "over_refusal", "capability.all")
    against = tuple(Versus(text, "soup", metric, 0.5, 0.25, 8, 8, -0.5, 0.1, 0.2, 0.2) for metric in metrics)
    shown = tuple(
        RateRow(model, "all", metric, 0.5, 8, 0.1, 0.9) for model in (f"{text}!", text, "soup") for metric in metrics
    )
    return ReportData(
        title=text,
        rows=(*attack, *(replace(row, method="soup") for row in attack)),
        toy=False,
        tiers={text: text, "qac": "low"},
        audits=rates,
        decisions={text: {text: (block, Decision(block=text, choice=text, safety_weight=0.5))}},
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
        contests=(Contest(f"{text}!", (text,), (text,), shown, against),),
        seeds=(
            SeedRate(0, True, text, {text: 1.0}, {text: 0.5}, 8, 0.0),
            SeedRate(1, False, text, {text: 1.0}, {text: 0.5}, 8, 0.0),
        ),
    )
