"""The gap of one model, without an edit: how unsafe it is in each language, and how far from the pivot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.prompts import PromptSet
from polysafe.data.sets import load_set
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.compare import run_notes
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.harness import prepare
from polysafe.evaluate.metrics import CAPABILITY
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.opening import ORGANISM, OpenedModel, open_judge, open_model
from polysafe.evaluate.run import Progress, evaluate_model
from polysafe.evaluate.unread import comparable
from polysafe.generate.completion import Sampling
from polysafe.judge.calibrate import Calibration
from polysafe.judge.spec import JudgeSpec, OrganismSpec, parse_judge
from polysafe.stats.gaps import Gap, gap_rows
from polysafe.stats.judge_error import Corrected
from polysafe.stats.rows import RateRow

_GAPS = ("unsafe", "over_refusal", CAPABILITY)
_TOY_TOKENS = 8


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        run: Every record.
        rates: Every metric in every language, with its interval.
        gaps: The languages against the pivot on the same prompts; empty where the pivot was not asked.
        notes: What a reader should know.
        corrected: Language -> its unsafe rate, corrected for the judge's error; empty without a calibration.
    """

    run: ModelRun
    rates: tuple[RateRow, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]
    corrected: Mapping[str, Corrected] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The audit in values that JSON can hold."""
        return {
            "model": self.run.name,
            "run": str(self.run.folder),
            "judge": self.run.judge,
            "rates": [asdict(row) for row in self.rates],
            "gaps": [asdict(gap) for gap in self.gaps],
            "corrected": {language: asdict(found) for language, found in self.corrected.items()},
            "truncation": [asdict(row) for row in self.run.truncation()],
            "notes": list(self.notes),
        }


def audit(
    model: Path | str,
    *,
    safety: Sequence[str],
    judge: JudgeSpec | str | Sequence[str],
    output: Path,
    languages: Collection[str] | None = None,
    over_refusal: Sequence[str] = (),
    capability: Sequence[str] = (),
    data: Path | None = None,
    limit: int | None = None,
    pivot: str = "en",
    max_tokens: int | None = None,
    translate: str | None = None,
    calibration: Path | None = None,
    device: str | None = None,
    family: Path | None = None,
    key: str | None = None,
    judge_key: str | None = None,
    cache: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Audit:
    """Asks a model, judges its answers and compares languages.

    Answers and verdicts are kept as they come: an interrupted audit goes on where it stopped.

    Args:
        model: Folder of the model, or `NAME@URL` for one that a server runs.
        safety: Sets whose harmful prompts are asked, by name; `organism` is the toy family's own test split.
        judge: `organism` for a model of the toy family; `KIND=FOLDER` or `KIND=NAME@URL` for a guard model of a family
            (`qwen3guard`, …) or a language model with a protocol (`multijail`, `soteria`, `strict`, `loose`); several
            of these are a vote; or the judge of a recipe.
        output: Folder of the run.
        languages: Languages; all of every set by default.
        over_refusal: Sets whose harmless prompts are asked.
        capability: Tasks that measure ability, by name: `belebele`, `mgsm`, … (`harness.prepare`).
        data: Folder with a folder per set.
        limit: Number of parallel rows of every set.
        pivot: Language that the others are compared with.
        max_tokens: Most new tokens of an answer: 256, and 8 for a model of the toy family.
        translate: `FOLDER` or `NAME@URL` of a translator: answers are judged as they are and in English.
        calibration: File of the judge's measured error, by which unsafe rates are corrected; kept with the run.
        device: Where models run; the processor by default.
        family: For an edited model of the toy family, the member that it was made from; its world is meant.
        key: Environment variable with the key of the model's server.
        judge_key: The same for the servers of judge and translator, where they are no recipe's.
        cache: File of the cache; the user's own by default.
        progress: Called as `progress(what, done, total)`.

    Raises:
        RecipeError: The judge is not known.
        DataError: A set, a language or a prompt cannot be had, or the model is not of the toy family that is judged.
        PolysafeError: As for loading models and writing runs.
    """
    asked_judge = parse_judge(judge, key=judge_key, translate=translate)
    toy = isinstance(asked_judge, OrganismSpec)
    budget = max_tokens or (_TOY_TOKENS if toy else Sampling().max_tokens)
    with open_model(model, Sampling(max_tokens=budget), device=device, key=key) as opened, Cache(cache) as store:
        examinations = prepare(capability, opened, data=data, languages=languages, limit=limit)
        asked = opened if family is None else replace(opened, checkpoint=open_checkpoint(family))
        world = asked.world() if toy else None
        with open_judge(asked_judge, world=world, device=device) as who:
            harmful, harmless = (
                [_prompts(name, asked, data, languages, limit) for name in names] for names in (safety, over_refusal)
            )
            known = None if calibration is None else Calibration.load(calibration)
            if known is not None:
                known.check(who)
            run = evaluate_model(
                opened.generator,
                harmful,
                who,
                output=output,
                over_refusal_sets=harmless,
                name=opened.name,
                cache=store,
                progress=progress,
            )
        for examination in examinations:
            examination.measure(opened, run.folder, store, progress)
    if known is not None:
        keep_calibration(run.folder, known)
    return read_audit(ModelRun.load(run.folder), pivot)


def read_audit(run: ModelRun, pivot: str = "en") -> Audit:
    """The audit that a run amounts to, corrected for the judge's error by the calibration in its folder.

    Args:
        run: The run.
        pivot: Language that the others are compared with.
    """
    asked = {cell: items for cell, items in comparable(run.outcomes).items() if cell[1].startswith(_GAPS)}
    with_pivot = {metric for language, metric in asked if language == pivot}
    cells = {cell: items for cell, items in asked.items() if cell[1] in with_pivot}
    gaps = (
        gap_rows(run.name, cells, pivot, clusters=_clusters(run))
        if len({language for language, _ in cells}) > 1
        else []
    )
    return Audit(run, tuple(run.rates()), tuple(gaps), (*run_notes(run), *_unread(run)), run.corrected)


def _unread(run: ModelRun) -> Iterator[str]:
    count = sum(record.completion.tokens == 0 and record.truncated for record in run.records)
    if count:
        yield f"{count} prompts do not fit the model's positions; they have no answer and count as invalid"


def _clusters(run: ModelRun) -> Mapping[str, str]:
    """Prompt -> its cluster, where any language has two prompts of one text."""
    return {item: first for (_, item), first in run.clusters.items() if item != first}


def _prompts(
    name: str, opened: OpenedModel, data: Path | None, languages: Collection[str] | None, limit: int | None
) -> PromptSet:
    if name != ORGANISM:
        return load_set(name, data=data, languages=languages, limit=limit)
    from polysafe.organism.prompts import organism_prompts

    return organism_prompts(opened.world()).select(languages, limit)
