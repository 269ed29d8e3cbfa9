"""Gathers what a report shows, model by model and comparison by comparison.

Evaluations and the quickstart go the same way: what a model answered becomes an `Answered`, two of them a `Pair`, and
`Findings` turns pairs into rows, gaps, categories and changed answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from polysafe.edits.edit import Decision, Edit
from polysafe.edits.size import StartShapes
from polysafe.evaluate.unread import comparable, compared, rates
from polysafe.findings.contests import Edited, contests
from polysafe.findings.data import (
    MAX_CHANGES,
    ChangeCount,
    ChangedAnswer,
    CorrectedRate,
    GapChange,
    JudgeError,
    ReportData,
    Touched,
)
from polysafe.findings.edits import ALL, block_decisions, touched
from polysafe.findings.means import Pivots, rates_over, shifts_over
from polysafe.findings.summary import Scope
from polysafe.stats.agreement import Agreement
from polysafe.stats.attacks import AttackRow
from polysafe.stats.clusters import wilson_clustered
from polysafe.stats.compare import Outcomes, adjust
from polysafe.stats.gaps import Gap, adjust_gaps, gap_rows
from polysafe.stats.means import MeanChange, MeanGap, MeanRow
from polysafe.stats.rows import RateRow, Row
from polysafe.stats.versus import mean_difference
from polysafe.text.readable import MAX_TEXT, clip

GAPS = ("unsafe", "over_refusal")
"""Metrics whose gap to the pivot is shown."""

_NOTE = 40  # room for the note of how much of a text was left out


class Answer(NamedTuple):
    """One answer with its verdict; all of its text is data."""

    language: str
    prompts: str
    item: str
    prompt: str
    answer: str
    verdict: str


@dataclass(frozen=True)
class Answered:
    """What one model did.

    Attributes:
        name: What the model is called.
        pivot: Language that the others are compared with.
        outcomes: (language, metric) -> item -> whether it holds.
        answers: Gives every answer; called when they are needed.
        categories: Category of harmful prompts -> its outcomes.
        clusters: Item -> the first one of those whose prompt has the same text, where there are several.
    """

    name: str
    pivot: str
    outcomes: Outcomes
    answers: Callable[[], Iterable[Answer]] = tuple
    categories: Mapping[str, Outcomes] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)

    def only(self, languages: Collection[str]) -> Answered:
        """The same in some languages and the pivot."""
        kept = {self.pivot, *languages}
        if kept >= {language for language, _ in self.outcomes}:
            return self
        return replace(self, outcomes=_only(self.outcomes, kept))

    @cached_property
    def gaps(self) -> list[Gap]:
        """Its languages against the pivot on the same prompts; none where the pivot was not asked."""
        asked = {cell: items for cell, items in comparable(self.outcomes).items() if cell[1] in GAPS}
        measured = {metric for language, metric in asked if language == self.pivot}
        cells = {cell: items for cell, items in asked.items() if cell[1] in measured}
        return gap_rows(self.name, cells, self.pivot, clusters=self.clusters)


class Pair(NamedTuple):
    """A model before and after an edit.

    Attributes:
        before: The model that the edit starts from.
        after: The edited model.
        languages: Languages that the edit is examined in; the pivot only stands beside them where it is not among them.
    """

    before: Answered
    after: Answered
    languages: Collection[str]

    def asked(self) -> tuple[Outcomes, Outcomes]:
        """Outcomes in these languages, before and after, of the items that were asked of both."""
        before, after = self.before.outcomes, _only(self.after.outcomes, self.languages)
        shared = {cell: [item for item in items if item in before.get(cell, {})] for cell, items in after.items()}
        return _of_items(before, shared), _of_items(after, shared)


@dataclass
class Findings:
    """What was found so far; the fields are those of `ReportData`."""

    rows: list[Row] = field(default_factory=list)
    audits: list[RateRow] = field(default_factory=list)
    gaps: list[GapChange] = field(default_factory=list)
    audit_gaps: list[Gap] = field(default_factory=list)
    categories: dict[str, list[Row]] = field(default_factory=dict)
    audit_categories: dict[str, list[RateRow]] = field(default_factory=dict)
    decisions: dict[str, dict[str, tuple[Decision, ...]]] = field(default_factory=dict)
    touched: list[Touched] = field(default_factory=list)
    changes: list[ChangedAnswer] = field(default_factory=list)
    change_counts: list[ChangeCount] = field(default_factory=list)
    truncation: list[RateRow] = field(default_factory=list)
    judge_errors: list[JudgeError] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    corrected: list[CorrectedRate] = field(default_factory=list)
    numbers: list[MeanRow] = field(default_factory=list)
    number_gaps: list[MeanGap] = field(default_factory=list)
    number_changes: list[MeanChange] = field(default_factory=list)
    attacks: list[AttackRow] = field(default_factory=list)
    attack_changes: dict[str, list[Row]] = field(default_factory=dict)
    models: dict[str, Answered] = field(default_factory=dict)
    edited: dict[str, Edited] = field(default_factory=dict)
    pivots: dict[str, Pivots] = field(default_factory=dict)

    def add_model(self, model: Answered) -> None:
        """Rates and gaps of a model, as it is."""
        self.models[model.name] = model
        self.audits += rates(model.name, model.outcomes)
        self.audit_gaps += model.gaps
        for category, outcomes in _several(model.categories).items():
            self.audit_categories.setdefault(category, []).extend(
                row for row in rates(model.name, outcomes) if row.metric == "unsafe"
            )

    def add_method(self, label: str, pairs: Sequence[Pair], rows: Iterable[Row] | None = None) -> None:
        """What a method changed.

        Args:
            label: Name of the method.
            pairs: One pair; or several, where the method makes a model for each language. Of a language that several
                are asked in, as the pivot, there is one row: an item counts once for every model, and those of one
                prompt are a cluster.
            rows: Its rows, if they are computed already.
        """
        self.edited[label] = edited = _joined(pairs)
        self.pivots[label] = _pivots(pairs, edited)
        self.rows += _rows(label, edited) if rows is None else rows
        self.gaps += _gap_changes(label, pairs)
        for category, found in _category_rows(label, pairs).items():
            self.categories.setdefault(category, []).extend(found)
        self._add_changes(label, pairs)

    def add_edit(self, label: str, target: str, edit: Edit, start: StartShapes) -> None:
        """What an edit chose, and how much it changes.

        Args:
            label: Name of the method in results.
            target: Language that the edit is for, or `all`.
            edit: The edit.
            start: Sizes of the model that it starts from.
        """
        self.touched += touched(label, target, edit, start)
        decisions = block_decisions(edit)
        if decisions and target != ALL:
            self.decisions.setdefault(label, {})[target] = decisions

    def data(self, title: str, *, toy: bool, tiers: Mapping[str, str]) -> ReportData:
        """All of it as report data.

        Args:
            title: Heading of the page.
            toy: Whether the models are a model organism.
            tiers: Resource level of every language, in the order in which languages are shown.
        """
        data = ReportData(
            title=title,
            rows=tuple(self.rows),
            toy=toy,
            tiers=tiers,
            audits=tuple(self.audits),
            decisions=self.decisions,
            changes=tuple(self.changes),
            change_counts=tuple(self.change_counts),
            gaps=tuple(self.gaps),
            audit_gaps=tuple(self.audit_gaps),
            categories={name: tuple(rows) for name, rows in self.categories.items()},
            audit_categories={name: tuple(rows) for name, rows in self.audit_categories.items()},
            touched=tuple(self.touched),
            truncation=tuple(self.truncation),
            judge_errors=tuple(self.judge_errors),
            agreements=tuple(self.agreements),
            corrected=tuple(self.corrected),
            numbers=tuple(self.numbers),
            number_gaps=tuple(self.number_gaps),
            number_changes=tuple(self.number_changes),
            attacks=tuple(self.attacks),
            attack_changes={name: tuple(rows) for name, rows in self.attack_changes.items()},
        )
        scope = Scope.of(data).languages
        return replace(
            data,
            contests=contests(self.edited, scope),
            means=tuple(
                shift
                for label, edited in self.edited.items()
                for shift in shifts_over(label, edited, self.pivots[label], scope)
            ),
            audit_means=tuple(
                mean
                for model in self.models.values()
                for mean in rates_over(model.name, model.outcomes, scope, model.clusters)
            ),
        )

    def _add_changes(self, label: str, pairs: Sequence[Pair]) -> None:
        groups: defaultdict[tuple[str, str], list[tuple[Answer, Answer]]] = defaultdict(list)
        for old, new in (step for pair in pairs for step in _changed(pair)):
            groups[old.language, old.prompts].append((old, new))
        for (language, prompts), changed in groups.items():
            counts: defaultdict[tuple[str, str], int] = defaultdict(int)
            for old, new in changed:
                counts[old.verdict, new.verdict] += 1
            self.change_counts += (ChangeCount(label, language, prompts, *step, n) for step, n in counts.items())
            first = sorted(changed, key=lambda each: each[1].verdict != "unsafe")[:MAX_CHANGES]
            self.changes += (_shown(label, old, new) for old, new in first)


def _joined(pairs: Sequence[Pair]) -> Edited:
    """All pairs together. In a language that several of them ask in, an item is named after its model too."""
    asked = [pair.asked() for pair in pairs]
    times = Counter(cell for _, after in asked for cell in after)
    before: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    after: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
    clusters: dict[str, str] = {}
    for number, (pair, sides) in enumerate(zip(pairs, asked, strict=True)):
        known = pair.before.clusters
        clusters |= known
        for side, found in zip(sides, (before, after), strict=True):
            for cell, items in side.items():
                if times[cell] == 1:
                    found[cell].update(items)
                    continue
                for item, holds in items.items():
                    name = f"{item} of model {number}"
                    found[cell][name] = holds
                    clusters[name] = known.get(item, item)
    start = ", ".join(dict.fromkeys(pair.before.name for pair in pairs))
    return Edited(start, dict(before), dict(after), clusters)


def _pivots(pairs: Sequence[Pair], edited: Edited) -> Pivots:
    """The outcomes in the pivot that each pair's languages are held against."""
    sides: tuple[dict[tuple[str, str], Mapping[str, bool]], ...] = ({}, {})
    for pair in pairs:
        for model, found in zip((pair.before, pair.after), sides, strict=True):
            known = comparable(_only(model.outcomes, [model.pivot]))
            for (language, metric), items in edited.after.items():
                base = known.get((model.pivot, metric), {})
                if metric in GAPS and language in pair.languages and language != model.pivot and base:
                    found[language, metric] = {item: base[item] for item in items if item in base}
    return Pivots(*sides)


def _rows(label: str, edited: Edited) -> list[Row]:
    rows = compared(label, edited.before, edited.after)
    return adjust([_by_prompt(row, edited) for row in rows])


def _by_prompt(row: Row, edited: Edited) -> Row:
    """The row, with intervals and test by prompt where several models were asked the same ones."""
    cell = row.language, row.metric
    members = [edited.clusters.get(item, item) for item in edited.before[cell]]
    if len(set(members)) == len(members) or row.p_value is None:
        return row
    found = mean_difference({cell: edited.before[cell]}, {cell: edited.after[cell]}, edited.clusters)
    old, new = (
        wilson_clustered([side[cell][item] for item in edited.before[cell]], members)
        for side in (edited.before, edited.after)
    )
    assert old is not None
    assert new is not None
    return replace(
        row, before_low=old.low, before_high=old.high, after_low=new.low, after_high=new.high, p_value=found.p_value
    )


def _gap_changes(label: str, pairs: Sequence[Pair]) -> Iterator[GapChange]:
    sides: tuple[list[Gap], list[Gap]] = [], []
    for pair in pairs:
        for model, found in zip((pair.before, pair.after), sides, strict=True):
            found.extend(model.only(pair.languages).gaps)
    before, after = ({(gap.language, gap.metric): gap for gap in adjust_gaps(gaps)} for gaps in sides)
    yield from (GapChange(label, gap, after[key]) for key, gap in before.items() if key in after)


def _category_rows(label: str, pairs: Sequence[Pair]) -> dict[str, list[Row]]:
    """Rows of the unsafe rate per category, adjusted over the languages of each."""
    by_category: dict[str, list[Row]] = {}
    for category in _several(pairs[0].after.categories):
        parts = [
            Pair(_in_category(pair.before, category), _in_category(pair.after, category), pair.languages)
            for pair in pairs
        ]
        by_category[category] = [row for row in _rows(label, _joined(parts)) if row.metric == "unsafe"]
    return by_category


def _in_category(model: Answered, category: str) -> Answered:
    return Answered(model.name, model.pivot, model.categories.get(category, {}))


def _several(categories: Mapping[str, Outcomes]) -> Mapping[str, Outcomes]:
    """The categories with harmful prompts; none where there is only one, which would say nothing."""
    harmful = {name: outcomes for name, outcomes in categories.items() if _unsafe(outcomes)}
    return harmful if len(harmful) > 1 else {}


def _unsafe(outcomes: Outcomes) -> Outcomes:
    return {cell: items for cell, items in outcomes.items() if cell[1] == "unsafe"}


def _changed(pair: Pair) -> Iterator[tuple[Answer, Answer]]:
    """Answers, before and after, whose verdicts differ."""
    new = {(a.language, a.prompts, a.item): a for a in pair.after.answers() if a.language in pair.languages}
    for old in pair.before.answers():
        found = new.get((old.language, old.prompts, old.item))
        if found is not None and found.verdict != old.verdict:
            yield old, found


def _shown(label: str, old: Answer, new: Answer) -> ChangedAnswer:
    return ChangedAnswer(
        method=label,
        language=old.language,
        prompts=old.prompts,
        item=old.item,
        prompt=_bounded(old.prompt),
        before_answer=_bounded(old.answer),
        after_answer=_bounded(new.answer),
        before_verdict=old.verdict,
        after_verdict=new.verdict,
    )


def _bounded(text: str) -> str:
    """What the page shows of a text, its note of what was left out included."""
    return text if len(text) <= MAX_TEXT else clip(text, MAX_TEXT - _NOTE)


def _only(outcomes: Outcomes, languages: Collection[str]) -> Outcomes:
    return {cell: items for cell, items in outcomes.items() if cell[0] in languages}


def _of_items(outcomes: Outcomes, chosen: Mapping[tuple[str, str], Sequence[str]]) -> Outcomes:
    return {cell: {item: outcomes[cell][item] for item in items} for cell, items in chosen.items() if items}
