"""A run as Inspect logs: one for each prompt set and kind, which Inspect calls a task, and one for each ability.

A run holds no time, and a log has to: all times are the beginning of 1970. Names that Inspect draws at random are
hashes of the run, so that the same run makes the same log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from polysafe.errors import DataError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.correction import corrected_rates
from polysafe.evaluate.metrics import outcomes, tells_refusals
from polysafe.evaluate.model_run import IMPORTED, ModelRun
from polysafe.evaluate.records import Record
from polysafe.evaluate.unread import rates
from polysafe.files.json_file import Format
from polysafe.inspect_ai.samples import SCORE, judge_hash, printable, sample_of, short_id
from polysafe.stats.compare import Outcomes, rate_outcomes
from polysafe.stats.rows import RateRow

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalResults, EvalSample, EvalScore, EvalSpec
    from inspect_ai.model import GenerateConfig
    from inspect_ai.viewer import ViewerConfig

FORMAT = Format("log of polysafe")
OURS = "polysafe"
"""Key of the metadata by which a log is known as ours, and package of its tasks."""
EPOCH = "1970-01-01T00:00:00+00:00"
"""Every time in a log."""
HEADLINES = ("unsafe", "over_refusal")

_ACCURACY = "accuracy"
_COLOURS = {"unsafe": "bad", "safe": "good", "invalid": "warn", "wrong_language": "warn", "unparsed": "muted"}


def run_logs(run: ModelRun) -> Iterator[tuple[str, EvalLog]]:
    """The logs of a run, each with a name that tells what it is of.

    Raises:
        DataError: The sets that the run names are not those of its records.
    """
    rest = iter(run.records)
    refusals = tells_refusals(run.records)
    for part, about in enumerate(run.about["sets"]):
        records = tuple(islice(rest, about["prompts"]))
        if {record.prompt.kind for record in records} != {about["kind"]} or len(records) != about["prompts"]:
            raise DataError(f"the records of {about['name']!r} are not those that it names", where=run.folder)
        yield f"{about['name']}.{about['kind']}", _set_log(run, about, part, records, refusals)
    for ability in run.abilities:
        yield ability.metric, _ability_log(run, ability)


def viewer_config() -> ViewerConfig:
    """How Inspect shows our samples: as plain text, whatever a model said, with a colour for each label."""
    from inspect_ai.viewer import TaskSamplesColumn, TaskSamplesView, ViewerConfig

    shown = [TaskSamplesColumn(id=name) for name in ("sampleStatus", "sampleId", "input")]
    hidden = [TaskSamplesColumn(id=name, visible=False) for name in ("answer", "target", "tokens", "duration")]
    view = TaskSamplesView(
        name=OURS,
        columns=[*shown, TaskSamplesColumn.score(SCORE), *hidden],
        score_color_scales={SCORE: _COLOURS},
        color_scales_enabled=True,
    )
    return ViewerConfig(trust_content=False, task_samples_view=view)


def score_rows(scorer: str, rows: Sequence[RateRow], names: Mapping[str, str] | None = None) -> list[EvalScore]:
    """Rates as scores: one for each language, with each metric and both ends of its interval; not what is withheld.

    Args:
        scorer: Name of the scorer.
        rows: The rates.
        names: Metric -> what the log calls it.
    """
    from inspect_ai.log import EvalMetric, EvalScore

    found: dict[str, EvalScore] = {}
    for row in rows:
        score = found.setdefault(row.language, EvalScore(name=row.language, scorer=scorer, scored_samples=row.n))
        score.scored_samples = max(row.n, score.scored_samples or 0)
        name = (names or {}).get(row.metric, row.metric)
        for suffix, value in (("", row.rate), ("_low", row.low), ("_high", row.high)):
            if value is not None:
                label = suffix.strip("_") or name
                score.metrics[name + suffix] = EvalMetric(
                    name=label, group=name, value=value, metadata=None if suffix else {"n": row.n}
                )
    return list(found.values())


def _set_log(run: ModelRun, about: Mapping[str, Any], part: int, records: Sequence[Record], refusals: bool) -> EvalLog:
    owner = short_id(run.about, part)
    decided_by = judge_hash(run.about["judge"]["identity"])
    samples = [sample_of(record, owner, decided_by) for record in records]
    rows = rates(run.name, outcomes(records, refusals=refusals))
    note = {"set": dict(about), "part": part, "prompts_sha256": run.about["prompts_sha256"]}
    spec = _spec(run, owner, str(about["name"]), about["licence"], samples, note)
    spec.task_args = {"kind": about["kind"], "languages": list(about["languages"])}
    return _log(run, spec, samples, score_rows(SCORE, [*rows, *_corrected(run, records)]))


def _corrected(run: ModelRun, records: Sequence[Record]) -> list[RateRow]:
    """Unsafe rates corrected for the judge's error, where the run holds it."""
    found, _ = corrected_rates(records, run.calibration)
    return [
        RateRow(run.name, language, "unsafe_corrected", rate.rate, rate.n, rate.low, rate.high)
        for language, rate in found.items()
    ]


def _ability_log(run: ModelRun, ability: Ability) -> EvalLog:
    owner = short_id(run.about, ability.task, _plain(ability.outcomes))
    samples = [
        _ability_sample(ability, owner, language, item, right)
        for language, items in ability.items.items()
        for item, right in items.items()
    ]
    note = {
        "ability": {"task": ability.task, "protocol": dict(ability.protocol), "model": dict(ability.model)},
        "notes": list(ability.notes),
    }
    spec = _spec(run, owner, ability.metric, "", samples, note)
    scores = score_rows(_ACCURACY, rate_outcomes(run.name, ability.outcomes), {ability.metric: _ACCURACY})
    return _log(run, spec, samples, scores)


def _ability_sample(ability: Ability, owner: str, language: str, item: str, right: bool) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.scorer import CORRECT, INCORRECT, Score

    name = f"{ability.task}/{item}/{language}"
    return EvalSample(
        id=printable(name),
        epoch=1,
        uuid=short_id(owner, name),
        input=printable(f"{ability.task}, item {item} (a run keeps the outcome, not the text)"),
        target="",
        scores={_ACCURACY: Score(value=CORRECT if right else INCORRECT)},
        metadata={"language": language, "item": printable(item)},
    )


def _spec(
    run: ModelRun, owner: str, task: str, licence: str, samples: Sequence[EvalSample], note: Mapping[str, Any]
) -> EvalSpec:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

    origin = {
        **FORMAT.head,
        "model": run.name,
        "generator": dict(run.about["generator"]),
        "judge": dict(run.about["judge"]),
        "judge_notes": list(run.about.get("judge_notes", ())),
        "calibration": None if run.calibration is None else run.calibration.as_json(),
        "versions": dict(run.about["versions"]),
        "records_sha256": run.about["records"]["sha256"],
        "prompt_tokens_sha256": run.about.get("prompt_tokens_sha256"),
        **{name: run.about[name] for name in (IMPORTED,) if name in run.about},
    }
    versions = run.about["versions"]
    dataset = EvalDataset(name=task, samples=len(samples), sample_ids=[str(sample.id) for sample in samples])
    return EvalSpec(
        eval_id=short_id(owner, "eval"),
        run_id=short_id(run.about),
        task_id=short_id(owner, "task"),
        created=EPOCH,
        task=f"{OURS}/{task}",
        dataset=dataset,
        model=printable(run.name),
        model_generate_config=_generate_config(run),
        config=EvalConfig(epochs=1),
        packages={name: version for name, version in versions.items() if name != "python"},
        metadata=printable({"licence": licence, OURS: {**origin, **note}}),
        viewer=viewer_config(),
    )


def _log(run: ModelRun, spec: EvalSpec, samples: list[EvalSample], scores: list[EvalScore]) -> EvalLog:
    from inspect_ai.log import EvalLog, EvalPlan, EvalPlanStep, EvalStats

    plan = EvalPlan(steps=[EvalPlanStep(solver="generate")], config=_generate_config(run))
    return EvalLog(
        status="success",
        eval=spec,
        plan=plan,
        results=_results(samples, scores),
        stats=EvalStats(started_at=EPOCH, completed_at=EPOCH),
        samples=samples,
    )


def _results(samples: Sequence[EvalSample], scores: list[EvalScore]) -> EvalResults:
    """Results whose headline is the worst language: the most unsafe answers, the most refusals, the least ability."""
    from inspect_ai.log import EvalResults, HeadlineMetric

    worst = None
    for metric, sign in (*((name, 1) for name in HEADLINES), (_ACCURACY, -1)):
        with_it = [score for score in scores if metric in score.metrics]
        if with_it and worst is None:
            score = max(with_it, key=lambda each: sign * each.metrics[metric].value)
            worst = HeadlineMetric(scorer=score.scorer, score=score.name, metric=metric)
    return EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores, headline=worst)


def _generate_config(run: ModelRun) -> GenerateConfig:
    from inspect_ai.model import GenerateConfig

    known = {name: value for name, value in run.sampling.items() if name in GenerateConfig.model_fields}
    return GenerateConfig(**known)


def _plain(cells: Outcomes) -> list[Any]:
    return [[language, dict(items)] for (language, _), items in cells.items()]
