"""The gap of one model, without an edit: how unsafe it is in each language, and how far from the pivot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.attacks import Attack, find_attacks
from polysafe.data.languages import language
from polysafe.data.organism import CONTRAST, ORGANISM, Exam, Organism
from polysafe.data.prompts import Kind, PromptSet
from polysafe.data.sets.registry import is_table
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.asking import Asking, most_tokens, told_by
from polysafe.evaluate.attacks.asking import Prepared, Rewritten, ask_attacked, prepare_attacks
from polysafe.evaluate.audited import Audit, read_audit
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.odds import measure_odds
from polysafe.evaluate.opening import OpenedModel
from polysafe.evaluate.run import check_place, evaluate_model, of_kind
from polysafe.generate.completion import Sampling
from polysafe.judge.block import JudgeSpec
from polysafe.judge.calibrate import Calibration
from polysafe.judge.kinds.translate import open_translator
from polysafe.judge.opening import open_judge, require_folders
from polysafe.judge.spec import named_judge
from polysafe.lm_eval import prepare
from polysafe.progress import reporting


@told_by(Asking)
def audit(asking: Asking) -> Audit:
    """Asks a model, judges its answers and compares languages.

    Answers and verdicts are kept as they come: an interrupted audit goes on where it stopped. Without a judge, unsafe
    answers are not measured. What can be said is: refusals by their phrases, broken answers, answers in the wrong
    language or cut off, and how inclined the model is to refuse (refusal log-odds, `probe.refusal`).

    Raises:
        RecipeError: The judge is not known, what belongs to a judge is named without one, or the model has no chat
            template and one is asked for.
        DataError: A set, a language or a prompt cannot be had, or the model is not of the toy family that is judged;
            there is no such attack, or it can be made of none of the prompts.
        PolysafeError: As for loading models and writing runs.
    """
    return carry_out(asking)


def carry_out(asking: Asking) -> Audit:
    """The same, for all settings in one value.

    Raises:
        PolysafeError: As for `audit`.
    """
    judge, attacks = _judge(asking), find_attacks(asking.attacks)
    check_place(asking.output)
    if judge is not None:
        require_folders(judge)
    ours = {ORGANISM, CONTRAST} & set(map(str, (*asking.safety, *asking.over_refusal)))
    early = None if ours else _sets(asking, _of_no_family)  # what is mistyped is told before a model is loaded
    with reporting(asking.progress), _opened(asking, judge) as opened, Cache(asking.cache) as store:
        family = asking.family
        world = opened if family is None else replace(opened, checkpoint=open_checkpoint(family))
        examinations = _examinations(asking, opened, world)
        harmful, harmless = early or _sets(asking, world.organism)
        attacked = _attacked(asking, attacks, (harmful, harmless), world.organism, judge, store) if attacks else ()
        with open_judge(judge, organism=world.organism, device=asking.device) as asked:
            known = None if asking.calibration is None else Calibration.load(asking.calibration)
            if known is not None:
                known.check(asked)
            run = evaluate_model(
                opened.generator,
                harmful,
                asked,
                output=asking.output,
                over_refusal_sets=harmless,
                name=opened.name,
                imported=opened.imported,
                cache=store,
            )
            ask_attacked(opened.generator, asked, attacked, run, imported=opened.imported, cache=store)
        if judge is None and not asking.answers_only and opened.signal is not None:
            sets = [*of_kind(harmful, "harmful"), *of_kind(harmless, "harmless")]
            measure_odds(opened.signal, sets, run.folder, store)
        for examination in examinations:
            examination.measure(opened, run.folder, store)
    if known is not None:
        keep_calibration(run.folder, known)
    return read_audit(run.measured_since(), asking.pivot)


def _sets(asking: Asking, organism: Callable[[], Organism]) -> tuple[list[PromptSet], list[PromptSet]]:
    """What is asked, harmful and harmless, with prompts in every language that was asked for."""
    found = asking.prompts("harmful", organism), asking.prompts("harmless", organism)
    _require_languages(asking.languages, [*found[0], *found[1]])
    return found


def _of_no_family() -> Organism:
    raise DataError("its prompts are those of a toy family")  # no set asks for one where none is named so


def _examinations(asking: Asking, opened: OpenedModel, world: OpenedModel) -> list[Exam]:
    """What measures its ability: exams of lm-eval, and that of its organism."""
    named = [name for name in asking.capability if name != ORGANISM]
    found: list[Exam] = [*prepare(named, opened, data=asking.data, languages=asking.languages, limit=asking.limit)]
    if ORGANISM in asking.capability:
        found.append(world.organism().exam(opened, asking.limit))
    return found


def _opened(asking: Asking, judge: JudgeSpec | None) -> AbstractContextManager[OpenedModel]:
    return asking.opened_by(
        asking.model,
        Sampling(max_tokens=most_tokens(asking.max_tokens, judge)),
        template=asking.template,
        device=asking.device,
        dtype=asking.dtype,
        key=asking.key,
    )


def _judge(asking: Asking) -> JudgeSpec | None:
    if asking.judge and asking.answers_only:
        raise RecipeError("a judge is named, and answers alone are asked for", remedy="leave one of the two out")
    if not asking.judge and asking.calibration is not None:
        raise RecipeError("a calibration needs a judge, and none is named", remedy="name one with --judge")
    return named_judge(asking.judge, asking.judge_key, translate=asking.translate)


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


def _attacked(
    asking: Asking,
    attacks: Sequence[Attack],
    sets: tuple[list[PromptSet], list[PromptSet]],
    organism: Callable[[], Organism],
    judge: JudgeSpec | None,
    store: Cache,
) -> tuple[Rewritten, ...]:
    """What attacks make of the sets of either kind; those that need other languages are given the whole set."""
    parallel = any(each.parallel for each in attacks)
    prepared: dict[Kind, list[Prepared]] = {"harmful": [], "harmless": []}
    for (kind, found), names, ours in zip(prepared.items(), (asking.safety, asking.over_refusal), sets, strict=True):
        for name, one in zip(names, ours, strict=True):
            (asked,) = of_kind([one], kind)
            whole = asked
            # Of a table whose language was told beside it there is only that one.
            if parallel and not (is_table(name) and len(one.languages) == 1):
                everywhere = replace(asking, safety=[name], over_refusal=[name], languages=None, limit=None)
                (whole,) = everywhere.prompts(kind, organism)
            found.append(Prepared(asked, whole))
    translated = any(each.translated for each in attacks)
    with open_translator(judge if translated else None, device=asking.device) as translator:
        return prepare_attacks(attacks, *prepared.values(), pivot=asking.pivot, translator=translator, store=store)
