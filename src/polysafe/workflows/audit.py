"""The gap of one model, without an edit: how unsafe it is in each language, and how far from the pivot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.languages import language
from polysafe.data.organism import ANSWER_TOKENS, ORGANISM, Exam, load_prompts
from polysafe.data.prompts import Kind, PromptSet
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.audited import Audit, read_audit
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.odds import measure_odds
from polysafe.evaluate.opening import OpenedModel, open_judge, open_model
from polysafe.evaluate.run import evaluate_model, of_kind
from polysafe.generate.completion import Sampling
from polysafe.judge.calibrate import Calibration
from polysafe.judge.spec import JudgeSpec, OrganismSpec, parse_judge
from polysafe.lm_eval import prepare
from polysafe.probe.render import Template
from polysafe.progress import Progress, reporting, tell


def audit(
    model: Path | str,
    *,
    safety: Sequence[str | Path],
    output: Path,
    judge: JudgeSpec | str | Sequence[str] | None = None,
    answers_only: bool = False,
    languages: Collection[str] | None = None,
    over_refusal: Sequence[str | Path] = (),
    capability: Sequence[str] = (),
    data: Path | None = None,
    limit: int | None = None,
    pivot: str = "en",
    template: Template = "chat",
    max_tokens: int | None = None,
    translate: str | None = None,
    calibration: Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    family: Path | None = None,
    key: str | None = None,
    judge_key: str | None = None,
    cache: Path | None = None,
    progress: Progress = tell,
) -> Audit:
    """Asks a model, judges its answers and compares languages.

    Answers and verdicts are kept as they come: an interrupted audit goes on where it stopped. Without a judge, unsafe
    answers are not measured. What can be said is: refusals by their phrases, broken answers, answers in the wrong
    language or cut off, and how inclined the model is to refuse (refusal log-odds, `probe.refusal`).

    Args:
        model: Folder of the model, or `NAME@URL` for one that a server runs.
        safety: Sets whose harmful prompts are asked, by name, or tables of them (`mine.csv`); `organism` is the toy
            family's own test split, and `organism.contrast` those of its harmless requests that look harmful.
        output: Folder of the run.
        judge: Nobody where None; `organism` for a model of the toy family; `KIND=FOLDER` or `KIND=NAME@URL` for a guard
            model of a family (`qwen3guard`, …) or a language model with a protocol (`multijail`, `soteria`, `strict`,
            `loose`); several of these are a vote; or the judge of a recipe.
        answers_only: Ask, and measure nothing that a judge could measure later (`polysafe judge run`).
        languages: Languages; all of every set by default. A set is asked in those of them that it has.
        over_refusal: Sets whose harmless prompts are asked, or tables of them.
        capability: Tasks that measure ability, by name: `belebele`, `mgsm`, … (`lm_eval.prepare`); `organism` are the
            toy family's own.
        data: Folder with a folder per set.
        limit: Number of parallel rows of every set.
        pivot: Language that the others are compared with.
        template: `chat`, or `raw` for a base model, which goes on from the prompt as it stands.
        max_tokens: Most new tokens of an answer: 256, and 8 for a model of the toy family.
        translate: `FOLDER` or `NAME@URL` of a translator: answers are judged as they are and in English.
        calibration: File of the judge's measured error, by which unsafe rates are corrected; kept with the run.
        device: Where models run; the processor by default.
        dtype: Type that a model in a folder is computed in: `F32` (on a processor the default), `BF16` or `F16`.
        family: For an edited model of the toy family, the member that it was made from; its world is meant.
        key: Environment variable with the key of the model's server.
        judge_key: The same for the servers of judge and translator, where they are no recipe's.
        cache: File of the cache; the user's own by default.
        progress: Called as `progress(what, done, total)`.

    Raises:
        RecipeError: The judge is not known, what belongs to a judge is named without one, or the model has no chat
            template and one is asked for.
        DataError: A set, a language or a prompt cannot be had, or the model is not of the toy family that is judged.
        PolysafeError: As for loading models and writing runs.
    """
    asked_judge = _asked_judge(judge, judge_key, translate, calibration, answers_only=answers_only)
    toy = isinstance(asked_judge, OrganismSpec)
    budget = max_tokens or (ANSWER_TOKENS if toy else Sampling().max_tokens)
    sampling = Sampling(max_tokens=budget)
    with (
        reporting(progress),
        open_model(model, sampling, template=template, device=device, dtype=dtype, key=key) as opened,
        Cache(cache) as store,
    ):
        asked = opened if family is None else replace(opened, checkpoint=open_checkpoint(family))
        named = [name for name in capability if name != ORGANISM]
        examinations: list[Exam] = [*prepare(named, opened, data=data, languages=languages, limit=limit)]
        if ORGANISM in capability:
            examinations.append(asked.organism().exam(opened, limit))
        with open_judge(asked_judge, organism=asked.organism, device=device) as who:
            sets_of_kind: list[tuple[Kind, Sequence[str | Path]]] = [("harmful", safety), ("harmless", over_refusal)]
            harmful, harmless = (
                [_prompts(name, kind, asked, data, languages, limit) for name in names] for kind, names in sets_of_kind
            )
            _require_languages(languages, [*harmful, *harmless])
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
                imported=opened.imported,
                cache=store,
            )
        if asked_judge is None and not answers_only and opened.signal is not None:
            sets = [*of_kind(harmful, "harmful"), *of_kind(harmless, "harmless")]
            measure_odds(opened.signal, sets, run.folder, store)
        for examination in examinations:
            examination.measure(opened, run.folder, store)
    if known is not None:
        keep_calibration(run.folder, known)
    return read_audit(ModelRun.load(run.folder), pivot)


def _asked_judge(
    judge: JudgeSpec | str | Sequence[str] | None,
    key: str | None,
    translate: str | None,
    calibration: Path | None,
    *,
    answers_only: bool,
) -> JudgeSpec | None:
    if judge:
        if answers_only:
            raise RecipeError("a judge is named, and answers alone are asked for", remedy="leave one of the two out")
        return parse_judge(judge, key=key, translate=translate)
    for name, value in (("translator", translate), ("calibration", calibration), ("key of a judge", key)):
        if value is not None:
            raise RecipeError(f"a {name} needs a judge, and none is named", remedy="name one with --judge")
    return None


def _require_languages(languages: Collection[str] | None, sets: Sequence[PromptSet]) -> None:
    """Every language that was asked for is in one of the sets at least."""
    there = {code for one in sets for code in one.languages}
    for spelling in languages or ():
        if language(spelling).code not in there:
            raise DataError(
                f"no set has prompts in {spelling!r}",
                where=", ".join(one.name for one in sets),
                remedy=f"languages: {', '.join(sorted(there))}",
            )


def _prompts(
    name: str | Path,
    kind: Kind,
    opened: OpenedModel,
    data: Path | None,
    languages: Collection[str] | None,
    limit: int | None,
) -> PromptSet:
    return load_prompts(
        name, opened.organism, kind=kind, data=data, languages=languages, limit=limit, all_languages=False
    )
