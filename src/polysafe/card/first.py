"""The first model card of an output: what it is and where it comes from, before anything was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from polysafe._version import __version__
from polysafe.card.card import card_files
from polysafe.card.data import CARD_DATA, Card, CardMethod, CardSource
from polysafe.checkpoint.hub import hub_ids
from polysafe.checkpoint.imported import FILE, Imported, imported_bytes, read_imported
from polysafe.checkpoint.layout import Layout
from polysafe.checkpoint.licence import licence_of
from polysafe.checkpoint.sidecar import SideFile
from polysafe.checkpoint.source import Checkpoint, file_inside
from polysafe.data.organism import is_member
from polysafe.edits.edit import Edit
from polysafe.edits.explain import operations
from polysafe.edits.operations import Blend, Copy
from polysafe.errors import DataError
from polysafe.files.plain import read_plain
from polysafe.recipe.places import portable
from polysafe.recipe.recipe import Recipe


def first_card(
    edit: Edit, checkpoints: Mapping[str, Checkpoint], layout: Layout, donor: str, recipe: Recipe | None = None
) -> tuple[SideFile, ...]:
    """The card of an output and its data, as files of the output, with what imported weights bring along.

    A card that a source brings is not copied: it describes another model. Only its licence is read. Of weights that
    were imported, the record of that and the terms of use go on into the output.

    Args:
        edit: The edit, with the digests of its inputs.
        checkpoints: The inputs by source name.
        layout: The files that hold tensors.
        donor: Source of tokenizer and chat template.
        recipe: The recipe, if there is one.
    """
    names = dict.fromkeys((*edit.sources, donor))
    card = Card(
        polysafe=__version__,
        edit=edit.sha256,
        start=edit.start,
        tokenizer_from=donor,
        sources=tuple(_source(name, edit, checkpoints[name]) for name in names),
        methods=tuple(
            CardMethod(part.method, part.label, part.options, part.notes, part.warnings) for part in edit.provenance
        ),
        operations=operations(edit, layout),
        merged=any(
            isinstance(operation, Copy | Blend) and set(operation.sources) - {edit.start}
            for _, operation in edit.operations()
        ),
        recipe=None if recipe is None else portable(recipe),
        asked={} if recipe is None else _asked(recipe),
        toy=any(_is_toy(checkpoint) for checkpoint in checkpoints.values()),
        licence=None if recipe is None else recipe.output.license,
        licence_name=None if recipe is None else recipe.output.license_name,
    )
    files = {**card_files(card), **_imported_files({name: checkpoints[name] for name in edit.sources})}
    return tuple(SideFile(name, content) for name, content in files.items())


def _source(name: str, edit: Edit, checkpoint: Checkpoint) -> CardSource:
    record = edit.sources.get(name)
    return CardSource(
        name=name,
        origin=checkpoint.origin if record is None else record.origin,
        hubs=hub_ids(checkpoint),
        files={} if record is None else record.files,
        licences=tuple(licence_of(folder) for folder in checkpoint.folders),
        imported=tuple(record.sentence for folder in checkpoint.folders for record in read_imported(folder)),
    )


def _imported_files(checkpoints: Mapping[str, Checkpoint]) -> dict[str, bytes]:
    """Where weights were imported from, and their terms; two texts of one name get the names of their sources."""
    files: dict[str, bytes] = {}
    records: list[Imported] = []
    for source, checkpoint in checkpoints.items():
        for folder in checkpoint.folders:
            for record in read_imported(folder):
                terms = {name: file_inside(folder, name).read_bytes() for name in record.terms}
                named = {
                    name if files.get(name, text) == text else f"NOTICE-{source}-{name}": text
                    for name, text in terms.items()
                }
                files |= named
                records.append(replace(record, terms=tuple(named)))
    distinct = [record for number, record in enumerate(records) if record not in records[:number]]
    return files | {FILE: imported_bytes(distinct)} if distinct else {}


def _asked(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    wanted = recipe.evaluate
    if wanted is None:
        return {}
    asked = {name: getattr(wanted, name) for name in ("languages", "safety", "over_refusal", "capability")}
    return {  # a table of one's own is called by its name, wherever it lies
        name: tuple(value.name if isinstance(value, Path) else value for value in values)
        for name, values in asked.items()
    }


def _is_toy(checkpoint: Checkpoint) -> bool:
    """A member of a toy family, or what polysafe made of one."""
    return any(is_member(folder) or _says_toy(folder / CARD_DATA) for folder in checkpoint.folders)


def _says_toy(path: Path) -> bool:
    try:
        return Card.from_json(read_plain(path), path).toy
    except (OSError, DataError):
        return False
