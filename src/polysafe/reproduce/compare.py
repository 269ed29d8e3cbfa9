"""Two `reproduce/` folders: what was recorded, and what came out when it was done again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from polysafe.edits.edit import JSON_FILE, TENSOR_FILE
from polysafe.errors import DataError
from polysafe.files.json_file import read_json
from polysafe.files.yaml_lines import read_yaml
from polysafe.recipe.places import content
from polysafe.reproduce.environment import Environment
from polysafe.reproduce.finding import Finding, Severity
from polysafe.reproduce.record import PROMPTS, SUMS, Judged, ReproduceFolder, Step
from polysafe.reproduce.rows import compare_rows

_NAMED = 3
# What an answer may differ by without anything having been asked otherwise.
_SURROUNDINGS = frozenset({"versions", "device", "engine", "harness"})


def compare_folders(recorded: ReproduceFolder, repeated: ReproduceFolder) -> Iterator[Finding]:
    """Every difference between a recorded result and its repetition, apart from their inputs."""
    yield from compare_settings(recorded, repeated)
    yield from chain.from_iterable(
        _steps(f"recipe {name}", old, new, recorded, repeated)
        for name, old, new in _pairs(recorded.about.steps, repeated.about.steps)
    )
    yield from chain.from_iterable(
        _runs(f"model {name}", old, new, recorded, repeated)
        for name, old, new in _pairs(recorded.about.runs, repeated.about.runs)
    )
    yield from compare_rows(recorded.rows, repeated.rows)
    yield from compare_environments(recorded.environment, repeated.environment)


def compare_settings(recorded: ReproduceFolder, repeated: ReproduceFolder) -> Iterator[Finding]:
    """Differences in what was asked, and by whom it was judged: then the results are not results of the same."""
    old, new = recorded.about, repeated.about
    if recorded.root.joinpath(PROMPTS).read_bytes() != repeated.root.joinpath(PROMPTS).read_bytes():
        yield Finding(Severity.FATAL, "prompts", *(_file_hash(each.root / PROMPTS) for each in (recorded, repeated)))
    yield from _entries(Severity.FATAL, "settings", old.settings, new.settings)
    yield from differences(Severity.FATAL, "judge", old.judge, new.judge)
    for task in dict.fromkeys((*old.abilities, *new.abilities)):
        protocols = (each.abilities.get(task, {}) for each in (old, new))
        yield from _entries(Severity.FATAL, f"ability {task}", *protocols)


def _entries(severity: Severity, what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    """Differences, of which those of what surrounds the work are no more than that."""
    for name in dict.fromkeys((*old, *new)):
        pair = ({name: each[name]} if name in each else {} for each in (old, new))
        yield from differences(Severity.ENVIRONMENT if name in _SURROUNDINGS else severity, what, *pair)


def differences(severity: Severity, what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    """The entries in which two mappings differ, however deep."""
    before, after = flat(old), flat(new)
    for name in dict.fromkeys((*before, *after)):
        pair = before.get(name, "missing"), after.get(name, "missing")
        if pair[0] != pair[1]:
            yield Finding(severity, f"{what}: {name}", *pair)


def flat(value: object, at: str = "") -> dict[str, str]:
    """The leaves of nested values, by their path."""
    if isinstance(value, Mapping):
        parts = [(f"{at}.{name}" if at else str(name), child) for name, child in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{at}[{number}]", child) for number, child in enumerate(value)]
    else:
        return {at: str(value)}
    return {name: leaf for part, child in parts for name, leaf in flat(child, part).items()}


def compare_environments(old: Environment, new: Environment) -> Iterator[Finding]:
    """Differences of versions, machine and threads. A library that is only here now is a note."""
    for part in ("python", "platform", "accelerators", "threads", "torch", "program"):
        yield from differences(Severity.ENVIRONMENT, part, {part: getattr(old, part)}, {part: getattr(new, part)})
    for name in dict.fromkeys((*old.libraries, *new.libraries)):
        before, after = old.libraries.get(name), new.libraries.get(name)
        if before is None or after is None:
            severity = Severity.NOTE if before is None else Severity.ENVIRONMENT
            yield Finding(
                severity, f"library {name}", *(each.version if each else "missing" for each in (before, after))
            )
        elif before.version != after.version:
            yield Finding(Severity.ENVIRONMENT, f"library {name}", before.version, after.version)
        elif before.files != after.files:
            shown = (f"{each.version}, files {(each.files or 'unknown')[:16]}" for each in (before, after))
            yield Finding(Severity.ENVIRONMENT, f"library {name}: another build", *shown)


def altered(folder: ReproduceFolder) -> Iterator[Finding]:
    """Files of a folder that are not as they were written."""
    try:
        lines = (folder.root / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        yield Finding(Severity.NOTE, SUMS, "there", "missing")
        return
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = {path.relative_to(folder.root).as_posix(): path for path in folder.root.rglob("*") if path.is_file()}
    for name, digest in sums.items():
        now = _file_hash(present[name]) if name in present else "missing"
        if now != digest:
            yield Finding(Severity.NOTE, f"reproduce/{name} was changed after it had been written", digest, now)


def _pairs(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    before, after = ({each.name: each for each in part} for part in (old, new))
    return ((name, before.get(name), after.get(name)) for name in dict.fromkeys((*before, *after)))


def _steps(
    what: str, old: Step | None, new: Step | None, recorded: ReproduceFolder, repeated: ReproduceFolder
) -> Iterator[Finding]:
    if old is None or new is None:
        yield _one_sided(what, old)
        return
    recipes = (content(_yaml(folder.root / step.recipe)) for folder, step in ((recorded, old), (repeated, new)))
    yield from differences(Severity.RESULT, what, *recipes)
    yield from _edits(f"{what}: edit", recorded.root / old.edit, repeated.root / new.edit)
    yield from differences(Severity.RESULT, f"{what}: output", old.output, new.output)


def _yaml(path: Path) -> dict[str, Any]:
    value = read_yaml(path.read_text(encoding="utf-8"), str(path)).value
    if not isinstance(value, dict) or not isinstance(value.get("sources"), dict):
        raise DataError("is no recipe", where=path)
    return value


def _edits(what: str, old: Path, new: Path) -> Iterator[Finding]:
    """Edits are the same to the byte, or but for what sources and files are called on two machines."""
    shown = tuple(_file_hash(folder / JSON_FILE) for folder in (old, new))
    factors = tuple(_file_hash(folder / TENSOR_FILE) for folder in (old, new))
    if factors[0] != factors[1]:
        yield Finding(Severity.RESULT, f"{what}: {TENSOR_FILE}", *factors)
    if shown[0] != shown[1]:
        before, after = (_nameless(_json(folder / JSON_FILE)) for folder in (old, new))
        changed = list(differences(Severity.RESULT, what, before, after))
        if factors[0] == factors[1] and not changed:
            changed = [Finding(Severity.NOTE, f"{what}: sources or files are called otherwise", *shown)]
        yield from changed[:_NAMED]
        if len(changed) > _NAMED:
            yield Finding(Severity.RESULT, f"{what}: {len(changed) - _NAMED} more entries", *shown)


def _nameless(edit: dict[str, Any]) -> dict[str, Any]:
    """Without names of places; the options of methods are those of the recipe, which is compared by itself."""
    sources = {name: {**record, "origin": ""} for name, record in edit.get("sources", {}).items()}
    provenance = [{**part, "options": {}} for part in edit.get("provenance", ())]
    return {**edit, "factors_sha256": "", "sources": sources, "provenance": provenance}


def _json(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError("is no edit", where=path)
    return value


def _runs(
    what: str, old: Judged | None, new: Judged | None, recorded: ReproduceFolder, repeated: ReproduceFolder
) -> Iterator[Finding]:
    if old is None or new is None:
        yield _one_sided(what, old)
        return
    yield from _entries(Severity.RESULT, f"{what}: how it was asked", old.generator, new.generator)
    yield from _verdicts(what, recorded.verdicts(old), repeated.verdicts(new))
    if old.records != new.records and recorded.verdicts(old) == repeated.verdicts(new):
        yield Finding(Severity.DRIFT, f"{what}: records, in more than answers and verdicts", old.records, new.records)


def _verdicts(what: str, old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    if old.keys() != new.keys():
        yield Finding(Severity.FATAL, f"{what}: prompts", str(len(old)), str(len(new)))
    both = [name for name in old if name in new]
    flips = [name for name in both if old[name][0] != new[name][0]]
    for name in flips[:_NAMED]:
        yield Finding(Severity.RESULT, f"{what}: verdict on {name}", old[name][0], new[name][0])
    if len(flips) > _NAMED:
        yield Finding(Severity.RESULT, f"{what}: {len(flips) - _NAMED} more verdicts of {len(both)}")
    reworded = [name for name in both if old[name][0] == new[name][0] and old[name][1] != new[name][1]]
    if reworded:
        text = f"{what}: {len(reworded)} of {len(both)} answers, with the same verdicts; first {reworded[0]}"
        yield Finding(Severity.DRIFT, text, old[reworded[0]][1], new[reworded[0]][1])


def _one_sided(what: str, old: object | None) -> Finding:
    return Finding(Severity.RESULT, what, *(("missing", "there") if old is None else ("there", "missing")))


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
