"""Reads Inspect logs of our tasks, and logs that we exported, as a run that can be compared with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from polysafe.data.prompts import PromptSet
from polysafe.errors import DataError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.correction import FILE as CALIBRATION
from polysafe.evaluate.correction import load_calibration
from polysafe.evaluate.keys import differing
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.records import Record
from polysafe.evaluate.run import save_run
from polysafe.files.atomic import write_json_atomic
from polysafe.generate.completion import Sampling
from polysafe.inspect_ai.extra import require_inspect
from polysafe.inspect_ai.logs import FORMAT, OURS
from polysafe.inspect_ai.samples import judge_hash, record_of
from polysafe.judge.calibrate import Calibration

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog
    from inspect_ai.model import GenerateConfig

_SAME = ("model", "generator", "judge", "calibration", "versions")
# What says how a server is reached, not what it answers; anything else that is set counts as sampling.
_TRANSPORT = {
    "adaptive_connections",
    "attempt_timeout",
    "batch",
    "cache",
    "cache_prompt",
    "max_connections",
    "max_retries",
    "stream_idle_timeout",
    "timeout",
}


@dataclass(frozen=True)
class _Part:
    """What one log holds: a set of prompts with their records, or an ability."""

    where: Path
    about: Mapping[str, Any]
    prompts: PromptSet | None
    records: tuple[Record, ...]
    ability: Ability | None

    @property
    def order(self) -> tuple[bool, int]:
        """Place in a run: as exported; else harmful sets first, as an audit asks them."""
        kind = "" if self.prompts is None else self.prompts.prompts[0].kind
        return (kind == "harmless", int(self.about.get("part", 0)))


def import_run(logs: Sequence[Path | str], output: Path) -> ModelRun:
    """Writes a run of what Inspect logs hold: those of our tasks, or those that we exported.

    Args:
        logs: Logs of one model with one judge, one for each set, in the order of the sets.
        output: Folder of the run.

    Raises:
        ResourceError: Inspect is not installed.
        DataError: A log is not ours, or not whole, or was changed, or the logs do not belong together.
        OutputError: The folder holds something else, or cannot be written.
    """
    require_inspect()
    parts = sorted((_read(Path(log)) for log in logs), key=lambda part: part.order)
    if not any(part.records for part in parts):
        raise DataError("there is no log of a prompt set", remedy="name the logs of a run")
    first = parts[0]
    for part in parts[1:]:
        if names := differing(*({name: one.about[name] for name in _SAME} for one in (first, part))):
            raise DataError(
                f"differ in {', '.join(names)}",
                where=f"{first.where} and {part.where}",
                remedy="name the logs of one model, asked in one way and judged by one judge",
            )
    sets = [part.prompts for part in parts if part.prompts is not None]
    records = [record for part in parts for record in part.records]
    notes = dict.fromkeys(note for part in parts for note in part.about["judge_notes"])
    abilities = [part.ability for part in parts if part.ability is not None]
    about = {**first.about, "judge_notes": list(notes)}
    return save_run(output, about, sets, records, abilities, _calibration(first))


def _calibration(part: _Part) -> Calibration | None:
    """The judge's measured error, if the run held it."""
    if part.about["calibration"] is None:
        return None
    with TemporaryDirectory() as folder:
        keep_as = Path(folder) / CALIBRATION
        write_json_atomic(keep_as, part.about["calibration"])
        try:
            return load_calibration(Path(folder), part.about["judge"])
        except DataError as error:
            raise DataError(error.problem, where=f"{part.where}, calibration", remedy=error.remedy) from error


def _read(path: Path) -> _Part:
    from inspect_ai.log import read_eval_log

    if not path.is_file():
        raise DataError("there is no such file", where=path, remedy="name a log file, for example logs/….eval")
    try:
        log = read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # whatever a damaged or foreign file does to its reader
        raise DataError(f"cannot be read as a log of Inspect: {error}", where=path) from error
    about = _about(log, path)
    try:
        return _part(log, about, path)
    except DataError as error:
        raise DataError(error.problem, where=f"{path}, {error.where}", remedy=error.remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"does not hold what a log of polysafe holds: {error!r}", where=path) from error


def _about(log: EvalLog, path: Path) -> dict[str, Any]:
    """What the log says of the run, with the model described if Inspect asked it.

    Raises:
        DataError: The log is not ours, or not whole.
    """
    about = (log.eval.metadata or {}).get(OURS)
    if not isinstance(about, dict):
        raise DataError(
            f"is no log of polysafe, but of the task {log.eval.task!r}",
            where=path,
            remedy="give a log of `inspect eval polysafe/…` or of `polysafe inspect export`",
        )
    FORMAT.checked(about, path)
    problem = next(_problems(log), None)
    if problem:
        raise DataError(problem, where=path, remedy="evaluate again; `inspect eval-retry` goes on with what is missing")
    if missing := [name for name in ("judge", "judge_notes", "versions") if name not in about]:
        raise DataError(f"lacks {', '.join(missing)}", where=path)
    return about if "generator" in about else {**about, **_asked_by_inspect(log)}


def _problems(log: EvalLog) -> Iterator[str]:
    """Why a log is not a whole run of one answer for each prompt."""
    if log.status != "success":
        yield f"did not end well: its status is {log.status!r}"
    if log.invalidated:
        yield "was declared invalid"
    if (log.eval.config.epochs or 1) != 1:
        yield f"has {log.eval.config.epochs} answers for each prompt; runs are compared answer by answer"
    steps = [step.solver for step in log.plan.steps]
    if steps != ["generate"] or log.plan.finish is not None:
        yield f"was made with the solvers {', '.join(steps)}; a run asks the prompt alone"
    held = {str(sample.id) for sample in log.samples or ()}
    missing = [name for name in map(str, log.eval.dataset.sample_ids or ()) if name not in held]
    if missing or not held:
        yield f"lacks {len(missing)} prompts, first {missing[0]!r}" if missing else "holds no samples"


def _part(log: EvalLog, about: Mapping[str, Any], path: Path) -> _Part:
    if "ability" in about:
        return _Part(path, about, None, (), _ability(log, about))
    named = {str(sample.id): sample for sample in log.samples or ()}
    decided_by = judge_hash(about["judge"]["identity"])
    records = tuple(record_of(named[str(name)], decided_by) for name in log.eval.dataset.sample_ids or named)
    one = about["set"]
    prompts = PromptSet(
        str(one["name"]),
        tuple(record.prompt for record in records),
        licence=str(one["licence"]),
        origin=str(path),
        overlaps=frozenset(one["overlaps"]),
        dropped=tuple(sorted(one["dropped"].items())),
    )
    if len({prompt.kind for prompt in prompts.prompts}) != 1:
        raise DataError("holds harmful and harmless prompts", where=one["name"])
    return _Part(path, about, prompts, records, None)


def _ability(log: EvalLog, about: Mapping[str, Any]) -> Ability:
    items: dict[str, dict[str, bool]] = {}
    named = {str(sample.id): sample for sample in log.samples or ()}
    for name in log.eval.dataset.sample_ids or named:
        sample = named[str(name)]
        right = (sample.scores or {})["accuracy"].value == "C"
        items.setdefault(sample.metadata["language"], {})[sample.metadata["item"]] = right
    one = about["ability"]
    return Ability(one["task"], items, one["protocol"], one["model"], tuple(about["notes"]))


def _asked_by_inspect(log: EvalLog) -> dict[str, Any]:
    """Model and generator of a log of `inspect eval`: what it tells, and nothing about weights, which it does not."""
    from polysafe.evaluate.keys import content_hash

    return {
        "model": log.eval.model,
        "calibration": None,
        "generator": {
            "engine": "inspect_ai",
            "versions": {name: log.eval.packages[name] for name in ("inspect_ai",) if name in log.eval.packages},
            "model": log.eval.model,
            "url": log.eval.model_base_url,
            "arguments_sha256": content_hash(log.eval.model_args),
            "template": "provider",
            "sampling": _sampling(log.eval.model_generate_config.merge(log.plan.config)),
        },
    }


def _sampling(config: GenerateConfig) -> dict[str, Any]:
    """Everything that decides how an answer was drawn; None where the provider's default was taken."""
    given = config.model_dump(mode="json", exclude_none=True)
    settings: dict[str, Any] = dict.fromkeys(Sampling.model_fields)
    settings |= {name: value for name, value in given.items() if name not in _TRANSPORT}
    if settings["temperature"] == 0:  # greedy: the nucleus and the seed decide nothing
        greedy = Sampling().model_dump()
        settings |= {name: greedy[name] for name in ("top_p", "seed")}
    return settings
