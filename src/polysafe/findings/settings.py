"""What stands beside the numbers: settings, hashes, versions, language groups, and what readers have to know.

Nothing in it tells where something lies on a machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath, PureWindowsPath

from polysafe.data.groupings import Grouping, grouping, grouping_names
from polysafe.data.languages import language
from polysafe.data.organism import ORGANISM, packaged_weights
from polysafe.edits.edit import Edit
from polysafe.errors import PolysafeError
from polysafe.evaluate.keys import content_hash
from polysafe.evaluate.model_run import ATTACK, ModelRun
from polysafe.findings.data import IMPORTED_WEIGHTS
from polysafe.text.cells import Scalar

"""The toy family's set of prompts, judge and grouping."""

_LEVELS = ("high", "mid", "low")
_MAX_VALUE = 80
_PLACE = re.compile(r"^(~|\.{0,2}/|[A-Za-z]:[\\/]|\\\\)")
_HASHES = {"weights": "weights", "tokenizer": "tokenizer"}
_MODEL = ("engine", "model", "dtype", "quantised", "device", "template", "system", "unreadable", "revision")


def language_tiers(
    languages: Sequence[str], pivot: str, groups: Grouping | None = None
) -> tuple[Grouping | None, dict[str, str]]:
    """Resource levels of languages, which mean other languages in every paper, and whose levels they are.

    Args:
        languages: Language codes.
        pivot: Language that the others are compared with; it is in no level.
        groups: Whose levels; by default those of the first source that knows most of the languages.

    Returns:
        The grouping, None where no source knows any of the languages; and language -> level, the pivot first.
    """
    others = [code for code in languages if code != pivot]
    chosen = groups or max(_levels(), key=lambda each: sum(each.group_of(code) is not None for code in others))
    found = {code: level for level, codes in chosen.groups.items() for code in codes if code in others}
    tiers = {pivot: "pivot"} if pivot in languages else {}
    return (chosen if found else None), tiers | found


def _levels() -> list[Grouping]:
    """The sources that name levels, and not only languages."""
    return [each for each in map(grouping, grouping_names()) if set(each.groups) <= set(_LEVELS)]


def language_names(languages: Sequence[str], *, toy: bool) -> dict[str, str]:
    """Names of languages for readers; those of the toy world are called by their last letter."""
    names = {}
    for code in languages:
        try:
            known = language(code)
        except PolysafeError:
            continue
        names[code] = f"Conlang {code[-1].upper()}" if toy and known.private else known.name
    return names


def is_toy(runs: Sequence[ModelRun], edit: Edit | None = None) -> bool:
    """Whether the toy family took part: its judge, its prompts or its models."""
    weights = {str(run.about["generator"].get("weights")) for run in runs}
    named = {run.judge for run in runs} | {one["name"].split(".")[0] for run in runs for one in run.about["sets"]}
    files = {sha for record in (edit.sources.values() if edit else ()) for sha in record.files.values()}
    return ORGANISM in named or bool((weights | files) & packaged_weights())


def about_runs(
    runs: Sequence[ModelRun], pivot: str, groups: Grouping | None, languages: Sequence[str]
) -> dict[str, dict[str, Scalar]]:
    """Sections of name and value: settings, language groups, judge, prompt sets, attacks, models, hashes, versions."""
    first = runs[0]
    attacks = {name: run.about[ATTACK] for name, run in first.attacks.items()}
    sections: dict[str, dict[str, Scalar]] = {
        "Settings": _settings(first, pivot),
        "Language groups": about_groups(groups, languages, pivot),
        "Judge": _judge(first),
        "Prompt sets": {f"{one['name']}, {one['kind']}": _set(one) for one in first.about["sets"]},
        "SHA-256 of the prompt sets": {f"{one['name']}, {one['kind']}": one["sha256"] for one in first.about["sets"]},
        "Attacks": {
            name: f"version {one['version']}: {one['title']}; {one['source']}" for name, one in attacks.items()
        },
        "SHA-256 of the rewritten prompts": {name: run.about["prompts_sha256"] for name, run in first.attacks.items()},
        "Models": _per_run(runs, _MODEL),
        IMPORTED_WEIGHTS: _imported(runs),
        "SHA-256 of the models": _per_run(runs, tuple(_HASHES)) | _imported_hashes(runs),
        "SHA-256 of the records": {name: run.about["records"]["sha256"] for name, run in _named(runs)},
        "Versions": {str(name): str(value) for name, value in first.about.get("versions", {}).items()},
    }
    return {name: section for name, section in sections.items() if section}


def caveats(runs: Sequence[ModelRun]) -> Iterator[str]:
    """What a reader has to know of the prompts that were left out, and of what was not measured."""
    for one in runs[0].about["sets"]:
        for reason, count in dict(one["dropped"]).items():
            yield f"{one['name']}: {count} prompts of the source were left out: {reason}"
    if not runs[0].abilities:
        yield "Ability was not measured; an edit that breaks it would go unnoticed."


def _named(runs: Sequence[ModelRun]) -> Iterator[tuple[str, ModelRun]]:
    """Runs with names that tell them apart."""
    names = Counter(run.name for run in runs)
    for number, run in enumerate(runs):
        yield (run.name if names[run.name] == 1 else f"{run.name} ({number + 1})"), run


def _settings(run: ModelRun, pivot: str) -> dict[str, Scalar]:
    sampling = {str(name).replace("_", " "): value for name, value in run.sampling.items()}
    return {"pivot": pivot, **{name: _portable(value) for name, value in sampling.items()}}


def about_groups(groups: Grouping | None, languages: Sequence[str], pivot: str) -> dict[str, Scalar]:
    """Whose resource levels are shown, and which languages they leave out; empty without levels."""
    if groups is None:
        return {}
    without = [code for code in languages if code != pivot and groups.group_of(code) is None]
    return {"grouping": groups.name, "source": groups.source, "in no group": ", ".join(without) or "none"}


def _judge(run: ModelRun) -> dict[str, Scalar]:
    identity = run.about["judge"]["identity"]
    told = {name: value for name, value in _flat(identity) if value is not None}
    return {"name": run.judge, **told, "SHA-256 of its settings": content_hash(identity)}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, Scalar]]:
    """Short values of an identity by the path to them; its hash covers the long ones."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name} {key}".strip())
    elif isinstance(value, str | int | float | bool) and len(str(value)) <= _MAX_VALUE:
        yield name, _portable(value)


def _set(one: Mapping[str, object]) -> str:
    count = len(one["languages"]) if isinstance(one["languages"], list) else 0
    languages = "1 language" if count == 1 else f"{count} languages"
    return f"{one['prompts']} prompts in {languages}; licence: {one['licence'] or 'not stated'}"


def _per_run(runs: Sequence[ModelRun], keys: Sequence[str]) -> dict[str, Scalar]:
    """Entries of the models' identities: once where all agree, else one by one."""
    found: dict[str, Scalar] = {}
    for key in keys:
        values = {name: run.about["generator"].get(key) for name, run in _named(runs)}
        told = {name: _portable(value) for name, value in values.items() if isinstance(value, str | int | float)}
        if len(set(told.values())) == 1 and len(told) == len(values):
            found[key] = next(iter(told.values()))
        else:
            found |= {f"{key}, {name}": value for name, value in told.items()}
    return found


def _imported(runs: Sequence[ModelRun]) -> dict[str, Scalar]:
    """What has to be said of weights that were made of a file of another format, and of which models."""
    named = list(_named(runs))
    told: dict[str, list[str]] = {}
    for name, run in named:
        for sentence in dict.fromkeys(one.sentence for one in run.imported):
            told.setdefault(sentence, []).append(name)
    every = len(named) if len(named) > 1 else None
    return {"all models" if len(names) == every else ", ".join(names): text for text, names in told.items()}


def _imported_hashes(runs: Sequence[ModelRun]) -> dict[str, Scalar]:
    return {f"{one.file}, before": one.sha256 for run in runs for one in run.imported}


def _portable(value: object) -> Scalar:
    """A value that tells nothing about the machine: of a path or an address only the last part is left."""
    if not isinstance(value, str):
        return value if isinstance(value, int | float | bool) else None
    if "://" in value:
        return None
    if _PLACE.match(value):
        return (PureWindowsPath if "\\" in value else PurePath)(value).name
    return value
