"""Refusal log-odds of a run's prompts: what can be measured of a model where nobody judges its answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from polysafe.checkpoint.atomic import write_json_atomic
from polysafe.checkpoint.writer import output_error
from polysafe.data.openings import opening_languages, openings
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.errors import DataError, OutputError
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import Key, content_hash, differing
from polysafe.progress import counted
from polysafe.stats.means import Values

if TYPE_CHECKING:
    from polysafe.probe.refusal import RefusalSignal

SCHEMA = 1
FILE = "refusal_odds.json"
HARMFUL, HARMLESS = "refusal_log_odds", "harmless_refusal_log_odds"
"""Metrics: the log-odds of harmful prompts, the higher the better, and of harmless ones, the lower the better."""

_METRICS: Mapping[Kind, str] = {"harmful": HARMFUL, "harmless": HARMLESS}


@dataclass(frozen=True)
class Odds:
    """Refusal log-odds of one model.

    Attributes:
        values: (language, metric) -> item -> log-odds; items are named alike in every language.
        protocol: Everything that has to be equal before and after: signal, template, openings.
        model: Identity of the model.
        notes: What a reader should know: languages without openings, prompts that were left out.
    """

    values: Values
    protocol: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def save(self, run: Path) -> None:
        """Writes them into the folder of a run, whole or not at all.

        Raises:
            OutputError: They cannot be written.
        """
        rows = [[language, metric, dict(items)] for (language, metric), items in self.values.items()]
        content = {
            "polysafe": "refusal_odds",
            "schema": SCHEMA,
            "model": dict(self.model),
            "protocol": dict(self.protocol),
            "notes": list(self.notes),
            "values": rows,
        }
        try:
            write_json_atomic(run / FILE, content)
        except OSError as error:
            raise output_error(run / FILE, error) from error

    @classmethod
    def load(cls, run: Path) -> Self | None:
        """Reads them from the folder of a run; None where they were not measured.

        Raises:
            DataError: The file is not such a file, or of another schema.
        """
        path = run / FILE
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", where=path) from error
        if not isinstance(data, dict) or data.get("polysafe") != "refusal_odds" or data.get("schema") != SCHEMA:
            raise DataError("is not the refusal log-odds of a model of schema 1", where=path, remedy="measure again")
        try:
            values = {(str(code), str(metric)): _numbers(items) for code, metric, items in data["values"]}
            return cls(values, dict(data["protocol"]), dict(data["model"]), tuple(map(str, data["notes"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"is damaged: {error}", where=path, remedy="measure again") from error


def measure_odds(signal: RefusalSignal, sets: Sequence[PromptSet], run: Path, store: Store) -> Odds:
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
    done = _existing(run, protocol, model)
    if done is not None:
        return done
    found = _measured(signal, asked, store)
    odds = Odds(_by_cell(asked, found), protocol, model, tuple(_notes(spoken, asked, found)))
    odds.save(run)
    return odds


def _existing(run: Path, protocol: Mapping[str, Any], model: Mapping[str, Any]) -> Odds | None:
    found = Odds.load(run)
    if found is not None and (names := [*differing(found.protocol, protocol), *differing(found.model, model)]):
        raise OutputError(
            f"holds log-odds that were measured otherwise: {', '.join(names)} differ",
            where=run / FILE,
            remedy="choose another output folder, or delete the file",
        )
    return found


def _measured(signal: RefusalSignal, prompts: Sequence[Prompt], store: Store) -> dict[str, float | None]:
    """Name of a prompt -> its log-odds, None where the model gives no number."""
    owner = content_hash(dict(signal.identity))
    keys = {p.id: Key("refusal_odds", owner, content_hash([openings(p.language).sha256, p.text])) for p in prompts}
    known = {name: store.get(key) for name, key in keys.items()}
    found = {name: value["log_odds"] for name, value in known.items() if value is not None}
    open_ = [prompt for prompt in prompts if prompt.id not in found]
    advance = counted("refusal log-odds", len(prompts), len(found))
    for odds in signal.measure(open_) if open_ else ():
        found[odds.id] = odds.log_odds if math.isfinite(odds.log_odds) else None
        store.put(keys[odds.id], {"log_odds": found[odds.id]})
        advance()
    return found


def _by_cell(prompts: Sequence[Prompt], found: Mapping[str, float | None]) -> Values:
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for prompt in prompts:
        value = found.get(prompt.id)
        if value is not None:
            cell = cells.setdefault((prompt.language, _METRICS[prompt.kind]), {})
            cell[f"{prompt.set}/{prompt.parallel}"] = value
    return cells


def _notes(spoken: Sequence[str], prompts: Sequence[Prompt], found: Mapping[str, float | None]) -> list[str]:
    notes = []
    if without := [code for code in spoken if code not in opening_languages()]:
        notes.append(f"refusal log-odds: no openings are known in {', '.join(without)}; not measured there")
    if long := sum(prompt.id not in found for prompt in prompts):
        notes.append(f"refusal log-odds: {long} prompts do not fit the model's positions and were left out")
    if broken := sum(value is None for value in found.values()):
        notes.append(f"refusal log-odds: the model gave no finite number for {broken} prompts; they were left out")
    return notes


def _numbers(items: Mapping[str, Any]) -> dict[str, float]:
    found = {str(item): float(value) for item, value in items.items()}
    if not all(map(math.isfinite, found.values())):
        raise ValueError("a value is not finite")
    return found
