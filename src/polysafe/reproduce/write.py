"""Writes the `reproduce/` folder beside results, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polysafe.card.data import CARD
from polysafe.checkpoint.digest import file_digest, hash_file
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.verify import read_manifest
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import Edit
from polysafe.files.atomic import publish_directory, write_bytes_atomic, write_json_atomic
from polysafe.recipe.places import portable
from polysafe.recipe.recipe import Recipe
from polysafe.reproduce.environment import environment
from polysafe.reproduce.inputs import Input, recipe_inputs
from polysafe.reproduce.readme import readme
from polysafe.reproduce.record import (
    ENVIRONMENT,
    ENVIRONMENT_FORMAT,
    FOLDER,
    FORMAT,
    PROMPTS,
    RECORD,
    REQUIREMENTS,
    RESULTS,
    SUMS,
    Judged,
    Kind,
    Reproduction,
    Step,
)
from polysafe.stats.rows import Row, save_rows

_ADDRESSES = frozenset({"url", "base_url"})
_SHORT = 16


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt, asked and judged.

    Attributes:
        id: Name of the prompt.
        prompt: Its text, of which only the hash is written; None where the protocol of an ability tells it.
        answer: The answer; only the hash is written.
        verdict: What the judge says of it.
    """

    id: str
    prompt: str | None
    answer: str
    verdict: str


@dataclass(frozen=True)
class Asked:
    """One model, asked and judged.

    Attributes:
        name: What it is called.
        exchanges: What it was asked and answered.
        records: File with all answers.
        generator: Identity of what answered.
    """

    name: str
    exchanges: Sequence[Exchange]
    records: Path
    generator: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What was done, to be written down.

    Attributes:
        kind: Which program did it.
        recipes: Name -> recipe; of `evaluate`, the only one.
        runs: Models that were asked.
        rows: The results.
        judge: Name and identity of the judge.
        settings: What the program was told beside the recipe.
        sets: Prompt sets.
        abilities: Task -> how it was measured.
        inputs: What else it was made from.
    """

    kind: Kind
    recipes: Mapping[str, Recipe]
    runs: Sequence[Asked]
    rows: Sequence[Row]
    judge: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sets: Sequence[Mapping[str, Any]] = ()
    abilities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)


def write_reproduce(result: Result, output: Path) -> Path:
    """Writes everything that is needed to make a result again into `output/reproduce`, instead of what is there.

    Prompts and answers are written as hashes: sets of harmful prompts are not to be copied around, and answers less so.

    Raises:
        OutputError: The folder cannot be written.
        PolysafeError: An input, or the output of a recipe, is not there any more.
    """
    target = output / FOLDER
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output, prefix=f".{FOLDER}.", ignore_cleanup_errors=True) as space:
            content = Path(space) / FOLDER
            content.mkdir()
            _write(result, content)
            if target.exists():
                os.rename(target, Path(space) / "replaced")
            publish_directory(content, target)
    except OSError as error:
        raise output_error(target, error) from error
    return target


def _write(result: Result, folder: Path) -> None:
    inputs = dict(result.inputs)
    steps = []
    for name, recipe in result.recipes.items():
        inputs |= recipe_inputs(recipe)
        steps.append(_step(result.kind, name, recipe, folder))
    about = Reproduction(
        kind=result.kind,
        settings=dict(result.settings),
        judge=without_addresses(result.judge),
        inputs=inputs,
        steps=tuple(steps),
        sets=tuple(dict(one) for one in result.sets),
        abilities={task: without_addresses(protocol) for task, protocol in result.abilities.items()},
        runs=tuple(_judged(run, folder) for run in result.runs),
    )
    now = environment()
    save_rows(folder / RESULTS, result.rows)
    _write_lines(folder / PROMPTS, _prompts(result.runs))
    write_json_atomic(folder / ENVIRONMENT, {**ENVIRONMENT_FORMAT.head, **now.model_dump(mode="json")})
    write_bytes_atomic(folder / REQUIREMENTS, now.requirements().encode())
    write_json_atomic(folder / RECORD, {**FORMAT.head, **about.model_dump(mode="json")})
    write_bytes_atomic(folder / "README.md", readme(about, now).encode())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_bytes_atomic(folder / SUMS, sums.encode())


def _step(kind: Kind, name: str, recipe: Recipe, folder: Path) -> Step:
    many = kind == "quickstart"
    file, place = (f"recipes/{name}.yaml", f"edits/{name}") if many else ("recipe.yaml", "edit")
    model = recipe.output.path
    edit = Edit.load(model / RECORDS)
    edit.save(folder / place)
    _made(folder / file)
    write_bytes_atomic(folder / file, portable(recipe).encode())
    return Step(name=name, recipe=file, edit=place, edit_sha256=edit.sha256, output=output_files(model))


def output_files(model: Path) -> dict[str, str]:
    """SHA-256 of every file of an output as it is now; without its card and our own records, which name places."""
    names = (str(entry["path"]) for entry in read_manifest(model)["files"])
    return {name: file_digest(model / name) for name in names if name != CARD and not name.startswith(f"{RECORDS}/")}


def _judged(run: Asked, folder: Path) -> Judged:
    name = run.name.replace(" ", ".").replace("/", ".")
    file = f"records/{name}.jsonl"
    lines = ({"id": each.id, "verdict": each.verdict, "answer": short_hash(each.answer)} for each in run.exchanges)
    _write_lines(_made(folder / file), lines)
    generator = without_addresses(run.generator)
    return Judged(name=run.name, file=file, records=hash_file(run.records), generator=generator)


def short_hash(text: str) -> str:
    """Enough of a text's SHA-256 to tell whether it is the same one."""
    return _sha256(text)[:_SHORT]


def _sha256(text: str) -> str:
    # lone surrogates, which broken decoding leaves behind, have no UTF-8 form of their own
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _prompts(runs: Iterable[Asked]) -> Iterator[dict[str, str]]:
    """Every prompt once, under its name."""
    texts = {each.id: each.prompt for run in runs for each in run.exchanges if each.prompt is not None}
    return ({"id": name, "sha256": _sha256(text)} for name, text in texts.items())


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    write_bytes_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode("ascii"))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def without_addresses(value: Any) -> Any:
    """An identity without the addresses of servers, which may name hosts of the user's."""
    if isinstance(value, Mapping):
        return {name: without_addresses(child) for name, child in value.items() if name not in _ADDRESSES}
    return [without_addresses(child) for child in value] if isinstance(value, (list, tuple)) else value
