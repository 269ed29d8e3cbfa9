"""Refusal log-odds of a run's prompts: what can be measured of a model where nobody judges its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.data.openings import opening_languages, openings
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.errors import DataError
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import DAMAGED, Key, content_hash
from polysafe.evaluate.numbers import Numbers
from polysafe.progress import counted
from polysafe.stats.means import Values

if TYPE_CHECKING:
    from polysafe.probe.refusal import RefusalSignal

HARMFUL, HARMLESS = "refusal_log_odds", "harmless_refusal_log_odds"
"""Metrics: the log-odds of harmful prompts, the higher the better, and of harmless ones, the lower the better."""

_METRICS: Mapping[Kind, str] = {"harmful": HARMFUL, "harmless": HARMLESS}


def measure_odds(signal: RefusalSignal, sets: Sequence[PromptSet], run: Path, store: Store) -> Numbers:
    """Measures the prompts of a run and writes the result into its folder; only what is not known yet is asked.

    Args:
        signal: Reads log-odds off the model.
        sets: What was asked. Languages without openings are left out and noted.
        run: Folder of the run.
        store: What was measured before.

    Raises:
        DataError: A prompt is empty.
        OutputError: The folder holds log-odds that were measured otherwise; or it cannot be written.
        ResourceError: A prompt does not fit the device.
    """
    prompts = [prompt for one in sets for prompt in one.prompts]
    spoken = tuple(dict.fromkeys(prompt.language for prompt in prompts))
    known = tuple(code for code in spoken if code in opening_languages())
    asked = [prompt for prompt in prompts if prompt.language in known]
    model = dict(signal.identity)
    protocol = {
        "signal": model.pop("signal"),
        "version": model.pop("version"),
        "template": model["template"],
        "openings": {code: openings(code).sha256 for code in known},
        "prompts_sha256": content_hash([[prompt.id, prompt.text] for prompt in asked]),
    }
    done = Numbers.measured(run, "refusal_odds", protocol, model)
    if done is not None:
        return done
    found = _measured(signal, asked, store)
    odds = Numbers("refusal_odds", _by_cell(asked, found), protocol, model, tuple(_notes(spoken, asked, found)))
    odds.save(run)
    return odds


def _measured(signal: RefusalSignal, prompts: Sequence[Prompt], store: Store) -> dict[str, float | None]:
    """Name of a prompt -> its log-odds, None where the model gives no number."""
    owner = content_hash(dict(signal.identity))
    keys = {p.id: Key("refusal_odds", owner, content_hash([openings(p.language).sha256, p.text])) for p in prompts}
    known = {name: store.get(key) for name, key in keys.items()}
    odds_by_id = {name: _log_odds(name, value) for name, value in known.items() if value is not None}
    open_ = [prompt for prompt in prompts if prompt.id not in odds_by_id]
    advance = counted("refusal log-odds", len(prompts), len(odds_by_id))
    for odds in signal.measure(open_) if open_ else ():
        odds_by_id[odds.id] = odds.log_odds if math.isfinite(odds.log_odds) else None
        store.put(keys[odds.id], {"log_odds": odds_by_id[odds.id]})
        advance()
    return odds_by_id


def _log_odds(name: str, value: Any) -> float | None:
    """Reads a stored value.

    Raises:
        DataError: It is none.
    """
    found = value.get("log_odds", "") if isinstance(value, dict) else ""
    if found is not None and (not isinstance(found, float) or not math.isfinite(found)):
        raise DataError("is no stored log-odds", where=name, remedy=DAMAGED)
    return found


def _by_cell(prompts: Sequence[Prompt], log_odds: Mapping[str, float | None]) -> Values:
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for prompt in prompts:
        value = log_odds.get(prompt.id)
        if value is not None:
            cell = cells.setdefault((prompt.language, _METRICS[prompt.kind]), {})
            cell[f"{prompt.set}/{prompt.parallel}"] = value
    return cells


def _notes(spoken: Sequence[str], prompts: Sequence[Prompt], log_odds: Mapping[str, float | None]) -> list[str]:
    notes = []
    if without := [code for code in spoken if code not in opening_languages()]:
        notes.append(f"refusal log-odds: no openings are known in {', '.join(without)}; not measured there")
    if long := sum(prompt.id not in log_odds for prompt in prompts):
        notes.append(f"refusal log-odds: {long} prompts do not fit the model's positions and were left out")
    if broken := sum(value is None for value in log_odds.values()):
        notes.append(f"refusal log-odds: the model gave no finite number for {broken} prompts; they were left out")
    return notes
