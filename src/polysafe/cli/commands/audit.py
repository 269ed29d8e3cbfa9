"""`polysafe audit` and `polysafe evaluate`: the gap of one model, and what a recipe changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from polysafe.cli.commands.inspect_logs import write_logs
from polysafe.cli.commands.report import print_summary
from polysafe.cli.console import note, print_json, print_line, print_table, print_warnings, progress, resumable
from polysafe.cli.engines import cluster_of
from polysafe.cli.options import listed
from polysafe.errors import RecipeError, VerificationError
from polysafe.evaluate.asking import Asking
from polysafe.evaluate.audited import Audit
from polysafe.findings.runs import audit_report, evaluation_report
from polysafe.inspect_ai.extra import require_inspect
from polysafe.report.html import build_report
from polysafe.report.screen import PlainTable, attack_tables
from polysafe.stats.judge_error import Corrected
from polysafe.stats.rows import RateRow
from polysafe.text.readable import percent
from polysafe.text.units import format_bytes
from polysafe.workflows.audit import carry_out

_WHERE = ("engine", "address", "workers", "gpus")
_LISTS = ("safety", "over_refusal", "capability", "attacks", "languages")


def audit(*, inspect_log: Path | None, as_json: bool, **options: Any) -> None:
    """Ask a model in every language and say how it does."""
    require_inspect(wanted=inspect_log is not None)
    with resumable(), progress():
        asking = Asking(**_settings(options))
        found = carry_out(asking)
    _show(found, asking.output, pivot=asking.pivot, inspect_log=inspect_log, as_json=as_json)


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `evaluate.asking` as options of the command line say them."""
    named = {"attacks" if name == "attack" else name: value for name, value in options.items()}
    cluster = cluster_of(*(named.pop(name) for name in _WHERE))
    if cluster is not None:
        from polysafe.cluster.models import open_on

        named["opened_by"] = partial(open_on, cluster)
    given = {name: listed(value) if name in _LISTS else value for name, value in named.items()}
    return {**given, **{name: given[name] or None for name in ("judge", "languages") if name in given}}


def judge_run(run: Path, output: Path, *, pivot: str, inspect_log: Path | None, as_json: bool, **options: Any) -> None:
    """Judge the answers of a finished run."""
    require_inspect(wanted=inspect_log is not None)
    from polysafe.workflows.rejudge import judge_run as judge_answers

    with resumable(), progress():
        found = judge_answers(run, output=output, pivot=pivot, **options)
    _show(found, output, pivot=pivot, inspect_log=inspect_log, as_json=as_json)


def judge_cost(run: Path, judge: Sequence[str], *, price: str | None, judge_key: str | None, as_json: bool) -> None:
    """Show what judging the answers of a finished run takes."""
    from polysafe.workflows.judge_cost import BYTES_PER_TOKEN as BYTES
    from polysafe.workflows.judge_cost import judge_cost as cost_of

    found = cost_of(run, judge=judge, price=_price(price), judge_key=judge_key)
    if as_json:
        print_json(found.to_json())
        return
    rows = [
        (name, asked.chats, format_bytes(asked.sent), f"{asked.reply_tokens:,}") for name, asked in found.models.items()
    ]
    print_table(("judge", ">requests", ">sent", ">tokens of replies, at most"), rows)
    print_line(f"answers {found.answers:,}, of which the verdicts of {found.known:,} are known already")
    fewest, most = found.tokens
    print_line(f"tokens sent: {fewest:,} to {most:,}, at {BYTES[1]} to {BYTES[0]} bytes a token")
    if found.dollars is not None:
        print_line("dollars: {:,.2f} to {:,.2f}, but for requests that have to be made again".format(*found.dollars))


def _price(text: str | None) -> tuple[float, float] | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text or "")
    if text is not None and match is None:
        raise RecipeError(f"{text!r} is no price", where="--price", remedy="dollars a million tokens: 0.15/0.6")
    return None if match is None else (float(match[1]), float(match[2]))


def _show(found: Audit, output: Path, *, pivot: str, inspect_log: Path | None, as_json: bool) -> None:
    """Write logs and report, print the result, and end with an error where verdicts are missing."""
    write_logs({"": found.run}, inspect_log)
    data = audit_report(found, pivot=pivot)
    page = build_report(data, output)
    if as_json:
        print_json({**found.to_json(), "report": str(page)})
    else:
        _print_audit(found, list(attack_tables(data)))
        print_line(f"report   {page}")
    _require_verdicts(found)


def _require_verdicts(*audits: Audit) -> None:
    """End with an error where a judge failed.

    Raises:
        VerificationError: It gave no reply, or too few verdicts.
    """
    runs = [run for found in audits for run in (found.run, *found.run.attacks.values())]
    for unread, folder in ((run.unread, run.folder) for run in runs):
        if unread.problem:
            raise VerificationError(unread.problem, where=folder, remedy=unread.remedy)


def _print_audit(found: Audit, attacks: Sequence[PlainTable]) -> None:
    print_table(
        ("language", "metric", ">rate", ">95 % interval", ">n"),
        # One token budget buys less text in some scripts: a cut answer may look safe, or wrong, for that alone.
        [(row.language, row.metric, *_shown(row), row.n) for row in (*found.rates, *found.run.truncation())],
    )
    if found.gaps:
        print_table(
            ("language", "metric", ">gap to the pivot", ">95 % interval", ">n", ">adjusted p"),
            [
                (
                    gap.language,
                    gap.metric,
                    _points(gap.difference),
                    f"{_points(gap.low)} … {_points(gap.high)}",
                    gap.n,
                    _p(gap.p_adjusted),
                )
                for gap in found.gaps
            ],
        )
    _print_numbers(found)
    if found.corrected:
        print_table(
            ("language", ">unsafe, as judged", ">corrected for the judge", ">95 % interval"),
            [(language, percent(rate.observed), *_rate(rate)) for language, rate in found.corrected.items()],
        )
    for table in attacks:
        print_table(table.columns, table.rows, title=table.title)
    print_warnings(found.notes)
    if not found.run.judged:
        print_line(
            f"judge    nobody: unsafe answers were not measured; polysafe judge run {found.run.folder} --judge …"
        )
    else:
        print_line(f"judge    {found.run.judge}")
    print_line(f"records  {found.run.folder}")


def _print_numbers(found: Audit) -> None:
    """What was measured in numbers per language, beside the gap to the pivot."""
    gaps = {(gap.language, gap.metric): gap for gap in found.number_gaps}
    rows = []
    for row in found.numbers:
        gap = gaps.get((row.language, row.metric))
        told = ("", "", "") if gap is None else (_signed(gap.difference), _span(gap.low, gap.high), _p(gap.p_adjusted))
        rows.append((row.language, row.metric, _signed(row.mean), _span(row.low, row.high), row.n, *told))
    if rows:
        columns = ("language", "metric", ">mean", ">95 % interval", ">n", ">gap to the pivot", ">95 % interval")
        print_table((*columns, ">adjusted p"), rows)


def _signed(value: float | None) -> str:
    return "not measured" if value is None else f"{value:+.2f}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.2f} … {high:+.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _shown(row: RateRow) -> tuple[str, str]:
    if row.rate is None or row.low is None or row.high is None:
        possible = "" if row.low is None or row.high is None else f"possible: {percent(row.low)} … {percent(row.high)}"
        return "not measured", possible
    return percent(row.rate), f"{percent(row.low)} … {percent(row.high)}"


def _points(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:+.1f}"


def evaluate(recipe: Path, output: Path, *, inspect_log: Path | None, as_json: bool, **options: Any) -> None:
    """Measure what a recipe's edits change."""
    require_inspect(wanted=inspect_log is not None)
    from polysafe.recipe.recipe import load_recipe
    from polysafe.workflows.evaluate import evaluate_recipe

    parsed = load_recipe(recipe)
    with resumable(), progress():
        found = evaluate_recipe(parsed, output, **_settings(options))
    write_logs({"before": found.before.run, "after": found.after.run}, inspect_log)
    shown = evaluation_report(found.saved)
    files = {"results": str(found.results), "report": str(build_report(shown, output))}
    if as_json:
        print_json({**found.comparison.to_json(), **files})
    else:
        print_summary(shown)
        for name, path in files.items():
            print_line(f"{name:8} {path}")
    _require_verdicts(found.before, found.after)


def _rate(found: Corrected) -> tuple[str, str]:
    return percent(found.rate), f"{percent(found.low)} … {percent(found.high)}"


def calibrate(
    examples: Path,
    output: Path,
    *,
    judge: Sequence[str],
    translate: str | None,
    device: str | None,
    judge_key: str | None,
    as_json: bool,
) -> None:
    """Measure a judge's error on labelled answers."""
    from polysafe.judge.calibrate import calibrate as measure
    from polysafe.judge.calibrate import read_examples
    from polysafe.judge.opening import open_judge
    from polysafe.judge.spec import parse_judge

    labelled = read_examples(examples)
    with progress(), open_judge(parse_judge(judge, key=judge_key, translate=translate), device=device) as who:
        found = measure(who, labelled)
    found.save(output)
    if as_json:
        print_json(found.as_json())
        return
    print_table(
        ("language", ">unsafe, found", ">missed", ">other, cleared", ">accused", ">unread"),
        [
            (language, each.found, each.missed, each.cleared, each.accused, each.unread_unsafe + each.unread_other)
            for language, each in found.languages.items()
        ],
    )
    note(f"written  {output}")
