"""`polysafe annotate export` and `import`: people label answers, and no answer is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from polysafe.cli.console import note, print_json, print_line, print_table, print_warnings, progress
from polysafe.cli.options import listed
from polysafe.stats.agreement import Agreement
from polysafe.workflows.annotate import DISAGREEMENTS, Imported, export_sheets, import_sheets


def export(
    runs: Sequence[Path],
    output: Path,
    *,
    raters: str,
    languages: str,
    limit: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Write sheets for raters."""
    found = export_sheets(
        runs, output, raters=listed(raters), languages=listed(languages) or None, limit=limit, seed=seed
    )
    key = found.key
    counts = {language: len(key.of_language(language)) for language in key.languages}
    if as_json:
        print_json({"sheets": str(output / "sheets"), "raters": key.raters, "answers": counts, "notes": found.notes})
        return
    print_table(("language", ">answers"), list(counts.items()))
    print_warnings(found.notes)
    for rater in key.raters:
        print_line(f"for {rater}: {output / 'sheets' / rater}")
    note("give every rater the folder of that name and nothing else: key.json says whose answers they are")


def import_labels(
    exported: Path,
    sheets: Sequence[Path] | None,
    output: Path,
    *,
    partial: bool,
    keep_in: Sequence[Path] | None,
    as_json: bool,
) -> None:
    """Check what raters gave back, and say how far they agree."""
    with progress():
        found = import_sheets(exported, sheets or (), output, partial=partial, keep_in=keep_in or ())
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found)


def _as_json(found: Imported) -> dict[str, object]:
    return {
        "labelled": dict(found.people.labelled),
        "missing": {rater: len(items) for rater, items in found.given.missing.items()},
        "disagreements": [{"id": item.id, "said": found.given.said(item.id)} for item in found.result.disagreements],
        "agreements": [asdict(each) for each in found.people.agreements],
        "calibrations": [each.as_json() for each in found.result.calibrations],
        "files": [str(found.folder / name) for name in found.files],
    }


def _print(found: Imported) -> None:
    split = {item.language: 0 for item in found.key.items}
    for item in found.result.disagreements:
        split[item.language] += 1
    print_table(
        ("language", ">answers", ">labelled", ">raters differ"),
        [
            (code, len(found.key.of_language(code)), found.people.labelled[code], split[code])
            for code in found.key.languages
        ],
    )
    if found.people.agreements:
        columns = ("language", "agreement on", "coefficient", "raters", ">value", ">95 % interval", ">n", ">the same")
        print_table(columns, [_row(each) for each in found.people.agreements])
    for calibration in found.result.calibrations:
        print_table(
            ("language", ">unsafe, found", ">missed", ">other, cleared", ">accused", ">unread"),
            [
                (language, each.found, each.missed, each.cleared, each.accused, each.unread)
                for language, each in calibration.languages.items()
            ],
            title=f"The judge {calibration.judge} against people",
        )
    unsettled = sum(item.id not in found.result.labels for item in found.result.disagreements)
    if unsettled:
        sheet = found.folder / DISAGREEMENTS
        note(f"{unsettled} answers have no label of most raters: fill in {sheet}, and import again with it")
    for name in found.files:
        print_line(f"written  {found.folder / name}")


def _row(each: Agreement) -> tuple[object, ...]:
    value = "all alike" if each.value is None else f"{each.value:.2f}"
    span = "" if each.low is None or each.high is None else f"{each.low:.2f} … {each.high:.2f}"
    return (each.language, each.of, each.coefficient, ", ".join(each.raters), value, span, each.n, each.same)
