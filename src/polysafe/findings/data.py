"""What a report is made of: plain values, and `report.json`, from which the page can be built again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from polysafe.edits.edit import Decision
from polysafe.errors import DataError
from polysafe.files.atomic import json_bytes, write_bytes_atomic
from polysafe.files.json_file import Format
from polysafe.findings.choosing import Choosing
from polysafe.findings.contests import Contest
from polysafe.judge.nobody import NOBODY
from polysafe.stats.agreement import Agreement
from polysafe.stats.attacks import AttackRow
from polysafe.stats.gaps import Gap
from polysafe.stats.language_means import MeanRate, MeanShift
from polysafe.stats.means import MeanChange, MeanGap, MeanRow
from polysafe.stats.overlap import ChanceOverlap
from polysafe.stats.rows import RateRow, Row
from polysafe.text.cells import Scalar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = Format(
    "report",
    version=2,
    again="Build the report again from its results with this version of polysafe.",
    half_characters=True,
)
IMPORTED_WEIGHTS = "Weights of another format"
"""Section of `ReportData.meta` that says which models were made of a file of another format."""
MAX_CHANGES = 25
"""Changed prompts that a report holds per method, language and set; the others are in the records of the runs."""

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class ChangedAnswer:
    """A prompt whose verdict differs before and after. All of its text is data, never markup.

    Attributes:
        method: Name of the method.
        language: Language code of the prompt.
        prompts: The set that the prompt is from.
        item: Id of the prompt in that set.
        prompt: What was asked.
        before_answer: Answer of the model that the edit starts from.
        after_answer: Answer of the edited model.
        before_verdict: Verdict on the first.
        after_verdict: Verdict on the second.
    """

    method: str
    language: str
    prompts: str
    item: str
    prompt: str
    before_answer: str
    after_answer: str
    before_verdict: str
    after_verdict: str


@dataclass(frozen=True)
class ChangeCount:
    """How many prompts of one method, language and set went from one verdict to another.

    Attributes:
        method: Name of the method.
        language: Language code of the prompts.
        prompts: The set that they are from.
        before_verdict: Verdict on the answer of the model that the edit starts from.
        after_verdict: Verdict on the answer of the edited model.
        count: Number of prompts.
    """

    method: str
    language: str
    prompts: str
    before_verdict: str
    after_verdict: str
    count: int


def count_changes(changes: Iterable[ChangedAnswer]) -> tuple[ChangeCount, ...]:
    """How many prompts changed, by method, language, set and verdicts, in the order of first appearance."""
    keys = ((c.method, c.language, c.prompts, c.before_verdict, c.after_verdict) for c in changes)
    return tuple(ChangeCount(*key, count) for key, count in Counter(keys).items())


@dataclass(frozen=True)
class LayerUnits:
    """How much of one layer an edit changes.

    Attributes:
        layer: Index of the layer.
        module: attention or mlp; None where the layer is taken as a whole.
        chosen: Indices of the units that are changed.
        total: Number of units of the layer.
        scores: Score of every unit by which they were chosen, for instance the effect of every head; empty where
            units have none.
    """

    layer: int
    module: str | None
    chosen: tuple[int, ...]
    total: int
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Touched:
    """What an edit changes in the weights of the model that it starts from.

    Attributes:
        method: Name of the method.
        target: Language that the edit is for; `all` for several at once.
        edit_sha256: Hash of the edit.
        edit_bytes: Size of the edit's files.
        tensors: Number of tensors that differ from those of the start.
        tensors_total: Number of tensors of the model.
        weights: Number of weights that its operations may change.
        weights_total: Number of weights of the model.
        unit: What is chosen: `neurons`, `heads` or `blocks`.
        layers: The choice in every layer; empty where `decisions` tell it (swaps).
        overlap: Language -> other language -> Jaccard index of what would be chosen for either alone; empty where
            unknown.
        chance: The same for as many units drawn at random; empty where the sizes of the choices are unknown.
    """

    method: str
    target: str
    edit_sha256: str
    edit_bytes: int
    tensors: int
    tensors_total: int
    weights: int
    weights_total: int
    unit: str = "blocks"
    layers: tuple[LayerUnits, ...] = ()
    overlap: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    chance: Mapping[str, Mapping[str, ChanceOverlap]] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeError:
    """How often a judge errs in one language, as measured on labelled answers.

    Attributes:
        judge: Name of the judge.
        language: Language code of the labelled answers.
        sensitivity: Share of unsafe answers that it finds, 0 … 1.
        sensitivity_low: Lower end of the 95 % interval.
        sensitivity_high: Upper end of it.
        unsafe: Number of answers labelled unsafe.
        specificity: Share of other answers that it does not accuse.
        specificity_low: Lower end of the 95 % interval.
        specificity_high: Upper end of it.
        other: Number of answers labelled otherwise.
    """

    judge: str
    language: str
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    unsafe: int
    specificity: float
    specificity_low: float
    specificity_high: float
    other: int


@dataclass(frozen=True)
class CorrectedRate:
    """An unsafe rate as judged, and corrected for the judge's error.

    Attributes:
        model: Name of the model, or of the method for the model that it made.
        language: Language code.
        observed: Rate as judged, 0 … 1.
        rate: The same corrected for the judge's error (Rogan and Gladen 1978).
        low: Lower end of the 95 % interval, which holds the uncertainty of the judge too (Lang and Reiczigel 2014).
        high: Upper end of it.
        n: Number of answers.
    """

    model: str
    language: str
    observed: float
    rate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PhraseRate:
    """How often refusal phrases err in one language, as measured on labelled answers.

    Attributes:
        language: Language code of the labelled answers.
        refusals: Number of refusals among them.
        missed: Refusals that the phrases do not find.
        others: Number of other answers.
        false_alarms: Other answers that the phrases call refusals.
    """

    language: str
    refusals: int
    missed: int
    others: int
    false_alarms: int


@dataclass(frozen=True)
class GapChange:
    """A language against the pivot on the same prompts, before and after an edit.

    Attributes:
        method: Name of the method.
        before: The gap of the model that the edit starts from.
        after: The gap of the edited model.
    """

    method: str
    before: Gap
    after: Gap


@dataclass(frozen=True)
class SeedRate:
    """What a method did to models of one training seed.

    Attributes:
        seed: The training seed.
        development: Whether the method was developed on this seed.
        method: Name of the method in results.
        before: Unsafe rate of the models that the edits start from in each language, 0 … 1.
        after: Unsafe rate of the edited models in each language.
        n: Number of harmful requests in each language.
        ability: Mean change of ability, -1 … 1.
    """

    seed: int
    development: bool
    method: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    n: int
    ability: float


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: Heading of the page.
        rows: Results of all methods.
        toy: Whether the models are a model organism, whose numbers are no evidence about any real model.
        tiers: For each language pivot, mid or low, in the order in which languages are shown.
        headline: The method that the verdict is about. Name the one chosen before the test split was seen;
        None takes
            the first method in `rows` that is neither a control nor a published setting.
        audits: Rates of single models, unedited. The first model named is the one whose gap is drawn.
        decisions: For each method and language, the decision on every block.
        changes: Prompts whose verdict changed, at most `MAX_CHANGES` per method, language and set.
        change_counts: How many changed, by verdicts; where empty, `changes` holds all of them.
        languages: Names of languages for readers; a language without one is shown by its code.
        gaps: Gaps to the pivot before and after, by method, language and metric.
        audit_gaps: Gaps to the pivot of single models, unedited.
        categories: Category of harmful prompts -> rows of its unsafe rate, by method and language.
        audit_categories: The same for single models, unedited.
        touched: What every edit changes in the weights.
        truncation: Share of answers that the token budget ended, by model and language.
        judge_errors: Error of the judges, by judge and language.
        agreements: How far people agree who labelled answers, by language.
        corrected: Unsafe rates corrected for it, by model and language.
        numbers: Means of what was measured of single models in numbers, such as refusal log-odds.
        number_gaps: Gaps to the pivot in them.
        number_changes: What edits changed in them, on the same prompts.
        phrase_errors: Error of the rule that tells refusals by their phrases, by language, where nobody judged.
        contests: Methods that start from the same model, prompt by prompt; empty where only rates are at hand.
        seeds: The same methods on models of other training seeds.
        means: What methods changed in the mean over the languages in scope, and over the ability tasks of each; empty
            where only rates are at hand.
        audit_means: Mean rates of single models over the languages in scope.
        attacks: The same prompts rewritten by attacks, against the published ones, by model, attack and language; they
            are in nothing else that the report says.
        attack_changes: Attack -> rows of its prompts before and after an edit, by method, metric and language.
        choosing: What was tried for each model on validation prompts, and what is taken; empty where nothing was.
        judge: Name of the judge; empty where that is not known.
        meta: Sections (settings, hashes, versions …) of name and value.
        limits: Sentences on what the numbers cannot say, beside those that follow from the data.
    """

    title: str
    rows: tuple[Row, ...]
    toy: bool
    tiers: Mapping[str, str]
    headline: str | None = None
    audits: tuple[RateRow, ...] = ()
    decisions: Mapping[str, Mapping[str, tuple[Decision, ...]]] = field(default_factory=dict)
    changes: tuple[ChangedAnswer, ...] = ()
    change_counts: tuple[ChangeCount, ...] = ()
    languages: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[GapChange, ...] = ()
    audit_gaps: tuple[Gap, ...] = ()
    categories: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    audit_categories: Mapping[str, tuple[RateRow, ...]] = field(default_factory=dict)
    touched: tuple[Touched, ...] = ()
    truncation: tuple[RateRow, ...] = ()
    judge_errors: tuple[JudgeError, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    corrected: tuple[CorrectedRate, ...] = ()
    numbers: tuple[MeanRow, ...] = ()
    number_gaps: tuple[MeanGap, ...] = ()
    number_changes: tuple[MeanChange, ...] = ()
    phrase_errors: tuple[PhraseRate, ...] = ()
    contests: tuple[Contest, ...] = ()
    seeds: tuple[SeedRate, ...] = ()
    means: tuple[MeanShift, ...] = ()
    audit_means: tuple[MeanRate, ...] = ()
    attacks: tuple[AttackRow, ...] = ()
    attack_changes: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    choosing: tuple[Choosing, ...] = ()
    judge: str = ""
    meta: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether a judge looked at the answers; otherwise nothing is known of which are unsafe."""
        return self.judge != NOBODY

    @cached_property
    def _by_method(self) -> Mapping[str, tuple[Row, ...]]:
        return _grouped((row.method, row) for row in self.rows)

    @cached_property
    def _by_model(self) -> Mapping[str, tuple[RateRow, ...]]:
        return _grouped((row.model, row) for row in self.audits)

    def of_method(self, method: str, metric: str | None = None) -> tuple[Row, ...]:
        """The results of a method, of one metric or of all."""
        rows = self._by_method.get(method, ())
        return rows if metric is None else tuple(row for row in rows if row.metric == metric)

    def of_model(self, model: str, metric: str | None = None) -> tuple[RateRow, ...]:
        """The rates of a model that was audited, of one metric or of all."""
        rows = self._by_model.get(model, ())
        return rows if metric is None else tuple(row for row in rows if row.metric == metric)

    def to_json(self) -> bytes:
        """The content of `report.json`: UTF-8 JSON without NaN, byte for byte the same for the same data.

        Raises:
            DataError: A number is not finite.
        """
        try:
            return json_bytes(FORMAT.head | _adapter().dump_python(self))
        except ValueError as error:
            raise DataError(f"a number of the report is not finite: {error}") from error

    @classmethod
    def from_json(cls, data: bytes, where: object = "report.json") -> ReportData:
        """Reads what `to_json` wrote.

        Raises:
            DataError: The content is not that of a `report.json` of this version.
        """
        return FORMAT.built(_adapter().validate_python, FORMAT.parse(data, where), where)

    def save(self, path: Path) -> None:
        """Writes `to_json` atomically.

        Raises:
            OSError: The folder cannot be written to, or the disk is full.
        """
        write_bytes_atomic(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> ReportData:
        """Reads a `report.json`.

        Raises:
            DataError: The file is not one.
        """
        return cls.from_json(path.read_bytes(), where=path)


def _grouped(pairs: Iterable[tuple[str, Entry]]) -> Mapping[str, tuple[Entry, ...]]:
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for name, entry in pairs:
        found[name].append(entry)
    return {name: tuple(entries) for name, entries in found.items()}


@cache
def _adapter() -> TypeAdapter[ReportData]:
    from pydantic import TypeAdapter

    return TypeAdapter(ReportData)
