"""The results of an evaluation as a model card shows them, if they are those of this model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polysafe.card.data import Card, CardResults, CardSet
from polysafe.checkpoint.digest import model_sha256
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import DataError
from polysafe.evaluate.compare import RESULTS, run_notes
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.saved import AFTER
from polysafe.findings.runs import judge_errors
from polysafe.stats.rows import Row, load_rows


def read_results(folder: Path, model: Path, card: Card) -> CardResults:
    """What `polysafe evaluate` left in a folder, checked to be about this very model.

    Args:
        folder: The folder of the evaluation.
        model: The output that the card is of.
        card: Its card.

    Raises:
        DataError: The results are missing or damaged, or another model gave them.
    """
    run = ModelRun.load(folder / AFTER)
    _check_model(run, model)
    about = run.about
    return CardResults(
        rows=tuple(_rows(folder, card)),
        sets=tuple(CardSet(one["name"], one["kind"], one["prompts"], one["sha256"]) for one in about["sets"]),
        judge=run.judge,
        judge_errors=() if run.calibration is None else tuple(judge_errors(run.calibration)),
        sampling=run.sampling,
        versions=dict(about.get("versions", {})),
        notes=(*_served(about), *run_notes(run)),
    )


def _rows(folder: Path, card: Card) -> list[Row]:
    path = folder / RESULTS
    if not path.is_file():
        raise DataError(
            "there are no results here", where=path, remedy="name the folder that `polysafe evaluate` wrote"
        )
    rows = load_rows(path)
    mine = [row for row in rows if row.method == card.label]
    if not mine:
        found = ", ".join(dict.fromkeys(row.method for row in rows)) or "no rows"
        raise DataError(f"holds no results of {card.label!r}, only {found}", where=path)
    return mine


def _check_model(run: ModelRun, model: Path) -> None:
    """A card must never show what another model did."""
    told = run.about["generator"].get("weights")
    if told is not None and told != model_sha256(open_checkpoint(model)):
        raise DataError(
            "these answers are of another model: its weights or config differ",
            where=run.folder,
            remedy=f"evaluate the model in {model}, or name the folder of its evaluation",
        )


def _served(about: Mapping[str, Any]) -> list[str]:
    if about["generator"].get("weights") is not None:
        return []
    return ["a server ran the model, so nobody can tell whether it was this one"]
