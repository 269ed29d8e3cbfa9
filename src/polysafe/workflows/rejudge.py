"""Judges the answers of a finished run anew: answer now, judge later, or by another judge; nothing is asked twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.organism import Organism, organism_of
from polysafe.data.prompts import PromptSet
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.audited import Audit, read_audit
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import Key
from polysafe.evaluate.model_run import ATTACK, ATTACKS, ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.evaluate.saved import AFTER, BEFORE
from polysafe.evaluate.saved import FILE as EVALUATION
from polysafe.generate.completion import Ask, Completion
from polysafe.judge.block import JudgeSpec
from polysafe.judge.calibrate import Calibration
from polysafe.judge.opening import open_judge
from polysafe.judge.spec import parse_judge
from polysafe.judge.verdict import Judge
from polysafe.progress import Progress, during, reporting, tell


class Recorded:
    """Gives the answers of a finished run, under the identity of the model that gave them.

    Args:
        run: The run.
    """

    def __init__(self, run: ModelRun) -> None:
        self.identity: Mapping[str, Any] = dict(run.about["generator"])
        self._answers = {record.prompt.id: record.completion for record in run.records}

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        """The recorded answers, in order."""
        yield from (self._answers[ask.id] for ask in asks)


class _Verdicts:
    """A cache in which no answer is looked up, since those of the run are what counts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: Key) -> Any | None:
        return self._store.get(key) if key.kind == "verdict" else None

    def put(self, key: Key, value: Any) -> None:
        if key.kind == "verdict":
            self._store.put(key, value)


def judge_run(
    run: Path,
    *,
    judge: JudgeSpec | str | Sequence[str],
    output: Path,
    pivot: str = "en",
    translate: str | None = None,
    calibration: Path | None = None,
    device: str | None = None,
    family: Path | None = None,
    judge_key: str | None = None,
    cache: Path | None = None,
    progress: Progress = tell,
) -> Audit:
    """Has the answers of a finished run judged, whatever its judge was, and writes a run of its own.

    Model, prompts, attacks, answers, sampling, abilities and refusal log-odds are those of the run. Verdicts are kept
    as they come: after an interruption it goes on where it stopped.

    Args:
        run: Folder of the run.
        judge: As for `audit`.
        output: Folder to write.
        pivot: Language that the others are compared with.
        translate: `FOLDER` or `NAME@URL` of a translator: answers are judged as they are and in English.
        calibration: File of the judge's measured error, by which unsafe rates are corrected; kept with the run.
        device: Where a judge in a folder runs.
        family: For `organism`: the member of the toy family that answered, or that an edited one was made from.
        judge_key: Environment variable with the key of the servers of judge and translator.
        cache: File of the cache; the user's own by default.
        progress: Called as `progress(what, done, total)`.

    Raises:
        DataError: There is no run in the folder, or it holds no answers; the calibration is that of another judge; or
            the judge does not answer the test question as it has to.
        RecipeError: There is no such judge; or `organism` without a family.
        ResourceError: The judge cannot be reached, or does not fit.
        OutputError: The output holds something else, or cannot be written.
    """
    found = answered(run)
    asked = parse_judge(judge, key=judge_key, translate=translate)
    known = None if calibration is None else Calibration.load(calibration)
    with open_judge(asked, organism=lambda: _organism(family), device=device) as opened, Cache(cache) as store:
        if known is not None:
            known.check(opened)
        with reporting(progress):
            judged = _judged(found, opened, output, store)
            for name, attacked in found.attacks.items():
                with during(name):
                    _judged(attacked, opened, judged.folder / ATTACKS / name, store)
    for ability in found.abilities:
        ability.save(judged.folder)
    for numbers in found.numbers:
        numbers.save(judged.folder)
    if known is not None:
        keep_calibration(judged.folder, known)
    return read_audit(judged.measured_since(), pivot)


def _judged(run: ModelRun, judge: Judge, output: Path, store: Store) -> ModelRun:
    sets = _sets(run)
    return evaluate_model(
        Recorded(run),
        [one for one in sets if one.prompts[0].kind == "harmful"],
        judge,
        output=output,
        over_refusal_sets=[one for one in sets if one.prompts[0].kind == "harmless"],
        name=run.name,
        imported=run.imported,
        attack=run.about.get(ATTACK),
        cache=_Verdicts(store),
    )


def answered(folder: Path) -> ModelRun:
    """The run of a folder, which holds answers.

    Raises:
        DataError: There is no run, or it holds none; or there are the two of an evaluation.
    """
    if (folder / EVALUATION).exists():
        raise DataError(
            "holds the two runs of an evaluation",
            where=folder,
            remedy=f"judge one after the other: {folder / BEFORE} and {folder / AFTER}",
        )
    run = ModelRun.load(folder)
    if not run.records:
        raise DataError("holds no answers", where=folder, remedy="name the folder of a run that asked prompts")
    return run


def _organism(family: Path | None) -> Organism:
    if family is None:
        raise RecipeError(
            "`organism` judges models of the toy family only, and a run does not say of which world its model is",
            remedy="name the member with --family, or another judge",
        )
    return organism_of(open_checkpoint(family))


def _sets(run: ModelRun) -> list[PromptSet]:
    """The sets that were asked, with the prompts of the records, which stand in the order of the sets."""
    prompts = iter([record.prompt for record in run.records])
    sets = [
        PromptSet(
            str(one["name"]),
            tuple(islice(prompts, int(one["prompts"]))),
            licence=str(one["licence"]),
            origin=str(run.folder),
            overlaps=frozenset(one["overlaps"]),
            dropped=tuple(sorted(one["dropped"].items())),
        )
        for one in run.about["sets"]
    ]
    for one, about in zip(sets, run.about["sets"], strict=True):
        if one.sha256 != about["sha256"]:
            raise DataError(f"its records are not the prompts of the set {one.name} that it names", where=run.folder)
    return sets
