"""Two runs of the same questions: what an edit changed, language by language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polysafe.checkpoint.writer import output_error
from polysafe.errors import DataError
from polysafe.evaluate import metrics
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.correction import CorrectedPair, corrected_pairs, same_calibration
from polysafe.evaluate.keys import content_hash, differing
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.numbers import changed_numbers
from polysafe.evaluate.unread import compared
from polysafe.stats.attacks import under
from polysafe.stats.means import MeanChange
from polysafe.stats.rows import RateRow, Row, save_rows

RESULTS = "results.json"

# What makes two runs of one model differ besides the edit, and yet may have a reason: it is said, not refused.
_TOLD = ("engine", "dtype", "template", "tokenizer")


@dataclass(frozen=True)
class Comparison:
    """What an edit changed.

    Attributes:
        method: Name of the method, as rows carry it.
        before: The run of the model that the edit starts from.
        after: The run of the edited model.
        rows: Every metric in every language, paired over the same items.
        categories: Category of the prompts -> its rows, adjusted on their own.
        truncation: Share of answers that the budget ended, before and after, per language.
        notes: What a reader should know before comparing.
        corrected: Per language, both unsafe rates corrected for the judge's error; empty without a calibration.
        numbers: What changed in numbers that both runs have, such as refusal log-odds, per language.
        attacks: Attack -> the rows of its prompts, before and after; of attacks that both runs have.
    """

    method: str
    before: ModelRun
    after: ModelRun
    rows: tuple[Row, ...]
    categories: Mapping[str, tuple[Row, ...]]
    truncation: tuple[RateRow, ...]
    notes: tuple[str, ...]
    corrected: tuple[CorrectedPair, ...] = ()
    numbers: tuple[MeanChange, ...] = ()
    attacks: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows as `results.json` has them: those under attack come last, under methods of their own."""
        return (*self.rows, *(row for attack, rows in self.attacks.items() for row in under(rows, attack)))

    @property
    def clusters(self) -> Mapping[tuple[str, str], str]:
        """(language, item) -> the group of prompts with one text that it belongs to."""
        return self.before.clusters

    def to_json(self) -> dict[str, Any]:
        """The comparison in values that JSON can hold."""
        return {
            "method": self.method,
            "before": {"name": self.before.name, "folder": str(self.before.folder)},
            "after": {"name": self.after.name, "folder": str(self.after.folder)},
            "notes": list(self.notes),
            "rows": [asdict(row) for row in self.rows],
            "categories": {name: [asdict(row) for row in rows] for name, rows in self.categories.items()},
            "truncation": [asdict(row) for row in self.truncation],
            "corrected": [asdict(pair) for pair in self.corrected],
            "numbers": [asdict(change) for change in self.numbers],
            "attacks": {name: [asdict(row) for row in rows] for name, rows in self.attacks.items()},
        }

    def save(self, folder: Path, beside: Sequence[Comparison] = ()) -> Path:
        """Writes `results.json` into a folder and returns its path.

        Args:
            folder: The folder.
            beside: Comparisons whose rows follow.

        Raises:
            OutputError: It cannot be written.
        """
        path = folder / RESULTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_rows(path, [row for each in (self, *beside) for row in each.all_rows])
        except OSError as error:
            raise output_error(path, error) from error
        return path


def compare_runs(before: ModelRun | Path | str, after: ModelRun | Path | str, method: str = "edit") -> Comparison:
    """Compares two runs item by item.

    Args:
        before: Run of the model that the edit starts from, or its folder.
        after: Run of the edited model, or its folder.
        method: Name of the method, as rows carry it.

    Raises:
        DataError: The runs did not ask the same: prompts, tokens, sampling or judge differ, or the protocol or the
            items of an ability; or the prompts of an attack that both were asked. The message names what.
    """
    old, new = (run if isinstance(run, ModelRun) else ModelRun.load(run) for run in (before, after))
    _require_same_questions(old, new)
    refusals = metrics.tells_refusals((*old.records, *new.records))
    rows = compared(method, old.outcomes_where(refusals=refusals), new.outcomes_where(refusals=refusals))
    return Comparison(
        method=method,
        before=old,
        after=new,
        rows=tuple(rows),
        categories=_categories(method, old, new, refusals),
        truncation=(*old.truncation(), *new.truncation()),
        notes=tuple(_notes(old, new)),
        corrected=_corrected(old, new),
        numbers=changed_numbers(method, old.numbers, new.numbers, old.repeated),
        attacks={name: compare_runs(old.attacks[name], new.attacks[name], method).rows for name in _shared(old, new)},
    )


def _shared(before: ModelRun, after: ModelRun) -> list[str]:
    """Attacks that both were asked."""
    return [name for name in before.attacks if name in after.attacks]


def _corrected(before: ModelRun, after: ModelRun) -> tuple[CorrectedPair, ...]:
    if not same_calibration(before.calibration, after.calibration):
        return ()
    return corrected_pairs(before.corrected, after.corrected)


def _categories(method: str, before: ModelRun, after: ModelRun, refusals: bool) -> dict[str, tuple[Row, ...]]:
    old, new = (metrics.outcomes_by_category(run.records, refusals=refusals) for run in (before, after))
    return {name: tuple(compared(method, cells, new[name])) for name, cells in old.items()}


def _require_same_questions(before: ModelRun, after: ModelRun) -> None:
    differences = [*_differences(before, after), *_ability_differences(before.abilities, after.abilities)]
    if differences:
        raise DataError(
            f"differ in {'; '.join(differences)}",
            where=f"{before.folder} and {after.folder}",
            remedy="evaluate both models with the same sets, sampling, judge and tasks, so that only the edit differs",
        )


def _differences(before: ModelRun, after: ModelRun) -> Iterator[str]:
    old, new = before.about, after.about
    if old["prompts_sha256"] != new["prompts_sha256"]:
        yield f"their prompts ({_named_sets(old)} and {_named_sets(new)})"
    elif (
        None not in (tokens := (old.get("prompt_tokens_sha256"), new.get("prompt_tokens_sha256")))
        and len(set(tokens)) > 1
    ):
        yield "the token ids that the models read (another tokenizer or chat template)"
    if names := differing(old["generator"]["sampling"], new["generator"]["sampling"]):
        yield f"sampling ({', '.join(names)})"
    if content_hash(old["judge"]) != content_hash(new["judge"]):
        names = differing(old["judge"]["identity"], new["judge"]["identity"])
        yield f"their judge ({old['judge']['name']} and {new['judge']['name']}: {', '.join(names) or 'name'})"


def _ability_differences(before: Sequence[Ability], after: Sequence[Ability]) -> Iterator[str]:
    old, new = ({ability.task: ability for ability in abilities} for abilities in (before, after))
    for task in dict.fromkeys((*old, *new)):
        if task not in old or task not in new:
            yield f"the ability {task}, which only one of them was asked for"
        elif names := differing(old[task].protocol, new[task].protocol):
            yield f"how the ability {task} was measured ({', '.join(names)})"


def _named_sets(about: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['name']}: {one['prompts']} in {len(one['languages'])} languages" for one in about["sets"])


def _notes(before: ModelRun, after: ModelRun) -> Iterator[str]:
    old, new = before.about["generator"], after.about["generator"]
    for name in _TOLD:
        if content_hash(old.get(name)) != content_hash(new.get(name)):
            yield f"the two models were asked with another {name}"
    if None in (before.about.get("prompt_tokens_sha256"), after.about.get("prompt_tokens_sha256")):
        yield "which tokens the models read is not known; a server does not tell"
    if not same_calibration(before.calibration, after.calibration):
        yield "the two runs do not hold the same calibration of their judge; no corrected rates are compared"
    if lonely := sorted(set(before.attacks) ^ set(after.attacks)):
        yield f"attacks that only one of the two was asked are not compared: {', '.join(lonely)}"
    told = list(run_notes(before))
    yield from told
    yield from _without_verdict(after)
    yield from (f"after: {note}" for note in _ability_notes(after) if note not in told)


def run_notes(run: ModelRun) -> Iterator[str]:
    """What a reader of a run should know: its judge, duplicates, sets that share prompts, what an ability lacks."""
    yield from run.about.get("judge_notes", ())
    for language, count in metrics.duplicates(run.records).items():
        yield f"{language}: {count} prompts have the text of another one; they are no independent observations"
    for name, codes in lacking_languages(run):
        yield f"{name} has no prompts in {', '.join(codes)}; not measured there"
    names = {one["name"] for one in run.about["sets"]}
    for one in run.about["sets"]:
        shared = sorted(names & set(one["overlaps"]))
        if shared:
            yield f"{one['name']} holds prompts of {', '.join(shared)} too; they count twice"
    yield from _without_verdict(run)
    yield from run.uncorrected
    yield from (note for each in run.numbers for note in each.notes)
    yield from _ability_notes(run)


def _without_verdict(run: ModelRun) -> Iterator[str]:
    if run.unread.count:
        withheld = f"; rates are withheld in {', '.join(run.unread.withheld)}" if run.unread.withheld else ""
        yield f"{run.name}: {run.unread.told}, which may be safe or unsafe{withheld}"


def lacking_languages(run: ModelRun) -> Iterator[tuple[str, list[str]]]:
    """Name of a set, and the languages of the run that it has no prompts in; sets that have all are left out."""
    for one in run.about["sets"]:
        codes = [code for code in run.languages if code not in one["languages"]]
        if codes:
            yield one["name"], codes


def _ability_notes(run: ModelRun) -> Iterator[str]:
    for ability in run.abilities:
        yield from (f"{ability.task}: {note}" for note in ability.notes)
