"""Asks a model, judges its answers, keeps every record.

Answers and verdicts are written down as they come, batch by batch, so that a run that was killed goes on where it
stopped; the finished folder appears whole or not at all. What it holds depends on model, prompts and judge, not on when
or how often it was interrupted: there is no time and no path in it that would differ.
"""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache as once
from importlib import metadata
from pathlib import Path
from typing import Any

from polysafe._version import __version__
from polysafe.checkpoint.imported import Imported
from polysafe.checkpoint.output import Workspace, lock
from polysafe.checkpoint.writer import output_error
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.journal import Journal, Layers, Store
from polysafe.evaluate.keys import completion_key, content_hash, verdict_key
from polysafe.evaluate.model_run import ATTACK, FORMAT, IMPORTED, RECORDS, RUN, ModelRun
from polysafe.evaluate.records import Record, completion_to_json, save_records, verdict_to_json
from polysafe.evaluate.results import Results
from polysafe.files.atomic import write_json_atomic
from polysafe.generate.completion import Ask, Generator
from polysafe.judge.calibrate import Calibration
from polysafe.judge.documented import judge_notes
from polysafe.judge.probe import probe
from polysafe.judge.verdict import Judge, Label
from polysafe.progress import Progress, reporting, tell

_JOURNAL = "journal.jsonl"
_REPORT = "report"
# Unfinished answers of another judge or another sampling may stay beside these: they are stored by content.
_JOB = f"evaluation.v{FORMAT.version}"
_VERSIONS = ("torch", "transformers", "tokenizers", "numpy")


def evaluate_model(
    generator: Generator,
    sets: Sequence[PromptSet],
    judge: Judge,
    *,
    output: Path,
    over_refusal_sets: Sequence[PromptSet] = (),
    name: str = "model",
    imported: Sequence[Imported] = (),
    attack: Mapping[str, Any] | None = None,
    cache: Store | None = None,
    progress: Progress = tell,
) -> ModelRun:
    """Asks a model every prompt, has every answer judged, and writes the records.

    Only what is not known yet is asked: from the run that was interrupted here, and from the cache. Before anything is
    asked, model and judge are tried out with one harmless question (`judge.probe`). Verdicts that could not be had
    (`unparsed`) are not remembered. A finished run in which answers are without a verdict because the judge gave no
    reply is finished now: those verdicts are asked for, and nothing else.

    Args:
        generator: The model.
        sets: Sets whose harmful prompts are asked.
        judge: Who says what an answer is.
        output: Folder to write. If it holds this very run, the run is read from it.
        over_refusal_sets: Sets whose harmless prompts are asked. A set with both kinds may stand in both lists.
        name: What the model is called in results.
        imported: Where its weights came from; kept with the run, and no part of what it is known by.
        attack: What the run says of the attack that rewrote its prompts; None where they are asked as published.
        cache: What was answered and judged before, in other runs.
        progress: Called as `progress(what, done, total)`.

    Raises:
        RecipeError: The judge may not stand alone, as the filter of refusal phrases may not.
        DataError: There is nothing to ask; or generator or judge leave something out, add something, or do not answer
            the test question as they have to.
        OutputError: The folder holds something else, another process writes to it, or it cannot be written.
        ResourceError: As generator and judge say.
    """
    check_judge(judge)
    asked = [*of_kind(sets, "harmful"), *of_kind(over_refusal_sets, "harmless")]
    prompts = [prompt for chosen in asked for prompt in chosen.prompts]
    _check_prompts(prompts)
    if "sampling" not in generator.identity:
        raise DataError("the identity of a generator has to name its sampling", where=type(generator).__name__)
    about = _about(name, generator.identity, about_judge(judge), asked)
    about |= {} if attack is None else {ATTACK: dict(attack)}
    with lock(output), reporting(progress):
        done = _existing(output, about)
        if done is not None and not done.unread.again:
            return done
        return _carry_out(generator, judge, prompts, {**about, **_origins(imported)}, output, cache, done)


def _carry_out(
    generator: Generator,
    judge: Judge,
    prompts: Sequence[Prompt],
    about: dict[str, Any],
    output: Path,
    cache: Store | None,
    earlier: ModelRun | None,
) -> ModelRun:
    space = Workspace(output)
    space.prepare(_JOB)
    with space.kept_if_used(), Journal(space.progress / _JOURNAL) as journal:
        if earlier is not None:
            _remember(earlier, generator, judge, journal)
        results = Results(generator, judge, journal if cache is None else Layers(journal, cache))
        _ask(generator, judge, prompts, results)
        notes = list(judge_notes(judge, (prompt.language for prompt in prompts)))
        if earlier is not None:
            _keep_beside(earlier, space)
        _write(space, {**about, "judge_notes": notes}, results.records(prompts), versions())
    _show(space, replace=earlier is not None)
    del results, earlier  # what they hold is read from the records now
    return ModelRun.load(output)


def _ask(generator: Generator, judge: Judge, prompts: Sequence[Prompt], results: Results) -> None:
    """Has everything answered and judged; model and judge are tried out before the first that is missing."""

    @once
    def try_judge() -> None:
        probe(judge)

    def try_both() -> None:
        probe(generator)
        try_judge()

    results.make(prompts, try_both, try_judge)


def _remember(earlier: ModelRun, generator: Generator, judge: Judge, journal: Journal) -> None:
    """Tells the journal what a finished run knows."""
    owner, decider = (content_hash(dict(each.identity)) for each in (generator, judge))
    for record in earlier.records:
        ask = Ask(record.prompt.id, record.prompt.text)
        journal.put(completion_key(owner, ask), completion_to_json(record.completion))
        if record.verdict.label is not Label.UNPARSED:
            journal.put(verdict_key(decider, record.exchange), verdict_to_json(record.verdict))


def _keep_beside(earlier: ModelRun, space: Workspace) -> None:
    """Copies what stands beside the records of a run: abilities, attacks and the like, but not its old report."""
    top = str(earlier.folder)

    def written_anew(folder: str, _names: list[str]) -> tuple[str, ...]:
        return (RECORDS, RUN, _REPORT) if str(folder) == top else ()

    try:
        shutil.copytree(top, space.content, dirs_exist_ok=True, ignore=written_anew)
    except OSError as error:
        raise output_error(space.content, error) from error


def save_run(
    output: Path,
    about: Mapping[str, Any],
    sets: Sequence[PromptSet],
    records: Sequence[Record],
    abilities: Sequence[Ability] = (),
    calibration: Calibration | None = None,
) -> ModelRun:
    """Writes a run whose answers and verdicts are there already.

    Args:
        output: Folder to write. If it holds this very run, the run is read from it.
        about: `model`, `generator`, `judge`, `judge_notes` and `versions`, and `imported` if it is there, as `run.json`
            holds them.
        sets: What was asked, every set with prompts of one kind.
        records: The records, in the order of the sets.
        abilities: What the model can do.
        calibration: The judge's measured error.

    Raises:
        DataError: There is no record, or a prompt is there twice.
        OutputError: The folder holds something else, another process writes to it, or it cannot be written.
    """
    _check_prompts([record.prompt for record in records])
    decided = _about(about["model"], about["generator"], about["judge"], sets)
    with lock(output):
        if (done := _existing(output, decided)) is not None:
            if (done.records, done.abilities, done.calibration) != (tuple(records), tuple(abilities), calibration):
                raise OutputError(
                    "holds another run: its answers differ", where=output, remedy="choose another output folder"
                )
            return done
        space = Workspace(output)
        space.prepare(_JOB)
        for ability in abilities:
            ability.save(space.content)
        if calibration is not None:
            keep_calibration(space.content, calibration)
        told = {name: about[name] for name in (IMPORTED, "judge_notes") if name in about}
        _write(space, {**decided, **told}, records, about["versions"])
        _show(space)
        return ModelRun.load(output)


def _write(space: Workspace, about: Mapping[str, Any], records: Iterable[Record], made_with: Mapping[str, str]) -> None:
    tally = _Tally()
    try:
        save_records(space.content / RECORDS, tally.passing(records))
        findings = {**tally.findings(space.content / RECORDS), "versions": dict(made_with)}
        write_json_atomic(space.content / RUN, {**about, **findings})
    except OSError as error:
        raise output_error(space.content, error) from error


def _show(space: Workspace, *, replace: bool = False) -> None:
    if replace:
        space.republish()
    else:
        space.publish()


def _origins(imported: Sequence[Imported]) -> dict[str, Any]:
    """What a run says of weights that came from a file of another format; nothing of others."""
    return {IMPORTED: [asdict(record) for record in imported]} if imported else {}


def of_kind(sets: Sequence[PromptSet], kind: Kind) -> list[PromptSet]:
    """The sets with their harmful, or with their harmless prompts alone.

    Raises:
        DataError: A set has none.
    """
    chosen = []
    for one in sets:
        chosen.append(one.of_kind(kind))
        if not chosen[-1]:
            raise DataError(f"has no {kind} prompts", where=one.origin or one.name, remedy="name it in the other list")
    return chosen


def check_judge(judge: Judge) -> None:
    """Refuses a judge whose rates are no headline.

    Raises:
        RecipeError: The judge may not stand alone, as the filter of refusal phrases may not.
    """
    if not getattr(judge, "headline", True):
        raise RecipeError(
            f"{judge.name} cannot carry an evaluation: it decides some answers only, and errs on others",
            remedy="name a judge; refusal phrases may stand before one, as `Pipeline(judge, prefilter=…)`",
        )


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise DataError("there is nothing to ask", remedy="name at least one set of prompts")
    twice = [name for name, times in Counter(prompt.id for prompt in prompts).items() if times > 1]
    if twice:
        raise DataError(f"the prompt {twice[0]!r} is in two sets", remedy="name every set once")


def _about(
    model: str, generator: Mapping[str, Any], judge: Mapping[str, Any], sets: Sequence[PromptSet]
) -> dict[str, Any]:
    """What decides the run, in values that JSON can hold."""
    prompts = [[p.id, p.text, p.kind, *([] if p.plain is None else [p.plain])] for one in sets for p in one.prompts]
    return {
        "model": model,
        **FORMAT.head,
        "generator": dict(generator),
        "judge": dict(judge),
        "sets": [about_set(one) for one in sets],
        "prompts_sha256": content_hash(prompts),
    }


def about_judge(judge: Judge) -> dict[str, Any]:
    """What a run says of its judge."""
    return {"name": judge.name, "identity": dict(judge.identity)}


def about_set(one: PromptSet) -> dict[str, Any]:
    """What a run says of a set, all of whose prompts are of one kind."""
    return {
        "name": one.name,
        "kind": one.prompts[0].kind,
        "sha256": one.sha256,
        "prompts": len(one),
        "languages": list(one.languages),
        "licence": one.licence,
        "overlaps": sorted(one.overlaps),
        "dropped": dict(one.dropped),
    }


class _Tally:
    """What a run says of its records, counted as they pass by."""

    def __init__(self) -> None:
        self._tokens: list[str | None] = []
        self._labels: dict[str, Counter[str]] = {}

    def passing(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self._tokens.append(record.completion.prompt_sha256)
            self._labels.setdefault(record.prompt.language, Counter())[str(record.verdict.label)] += 1
            yield record

    def findings(self, records_file: Path) -> dict[str, Any]:
        return {
            "prompt_tokens_sha256": None if None in self._tokens else content_hash(self._tokens),
            "records": {"sha256": _file_hash(records_file), "lines": len(self._tokens)},
            "labels": {language: dict(sorted(labels.items())) for language, labels in self._labels.items()},
        }


def versions() -> dict[str, str]:
    """Versions of what can change an answer."""
    found = {"polysafe": __version__, "python": platform.python_version()}
    for package in _VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _file_hash(path: Path) -> str:
    from polysafe.checkpoint.digest import hash_file

    return hash_file(path)


def check_place(output: Path) -> None:
    """Refuses a place that holds something else than a run.

    Raises:
        OutputError: It does.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())) or (output / RUN).is_file():
        return
    raise OutputError(
        "holds files, but no run of an evaluation", where=output, remedy="choose a new or empty output folder"
    )


def _existing(output: Path, about: Mapping[str, Any]) -> ModelRun | None:
    """The run at the output if it is this one, None if nothing is there.

    Raises:
        OutputError: Something else is there.
    """
    check_place(output)
    if not (output / RUN).is_file():
        return None
    run = ModelRun.load(output)
    for part, value in about.items():
        if content_hash(run.about.get(part)) != content_hash(value):
            raise OutputError(
                f"holds another run: its {part} differs", where=output, remedy="choose another output folder"
            )
    return run
