"""The model card of an output on disk: read, completed with results, a licence or a name, and written again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from polysafe.card.card import card_files
from polysafe.card.data import CARD, CARD_DATA, Card
from polysafe.card.results import read_results
from polysafe.checkpoint.digest import hash_file
from polysafe.checkpoint.licence import chosen_licence
from polysafe.checkpoint.output import lock
from polysafe.checkpoint.update import finish_update, replace_files
from polysafe.checkpoint.verify import read_manifest
from polysafe.errors import DataError, VerificationError
from polysafe.files.plain import read_plain

_LARGEST = 1 << 26


def load_card(folder: Path) -> Card:
    """The data of an output's model card.

    Raises:
        CheckpointError: The folder is no output of polysafe.
        DataError: It has no card that can be read, or one of another version or edit.
    """
    edit = read_manifest(folder)["edit"]
    path = folder / CARD_DATA
    try:
        card = Card.from_json(read_plain(path, _LARGEST), path)
    except FileNotFoundError:
        raise DataError(
            "is missing; there is no model card to build", where=path, remedy="make the model again"
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if card.edit != edit:
        raise DataError("belongs to another edit than the manifest", where=path, remedy="make the model again")
    return card


def update_card(
    folder: Path,
    *,
    results: Path | None = None,
    licence: str | None = None,
    licence_name: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Card:
    """Builds the card of an output again, with what is new, and writes card and manifest as one step.

    An update that was interrupted is finished first, so that running this again repairs the output.

    Args:
        folder: The output.
        results: Folder of an evaluation of this model; by default the results that the card has.
        licence: The hub's identifier of the licence that the publisher chose.
        licence_name: For the licence `other`, its name.
        name: What the model is called where it is published.
        overwrite: Write the card again even if somebody changed it by hand.

    Raises:
        DataError: The results are not of this model, or cannot be read.
        RecipeError: The licence is none that the hub has.
        VerificationError: The card was changed by hand.
        PolysafeError: The folder is no output of polysafe, is in use, or cannot be written.
    """
    with lock(folder.absolute()):
        finish_update(folder)
        if not overwrite:
            _check_untouched(folder)
        card = changed_card(
            folder, load_card(folder), results=results, licence=licence, licence_name=licence_name, name=name
        )
        files = card_files(card)
        if any(not (folder / path).is_file() or (folder / path).read_bytes() != data for path, data in files.items()):
            replace_files(folder, files)
    return card


def _check_untouched(folder: Path) -> None:
    written = {entry["path"]: entry["sha256"] for entry in read_manifest(folder)["files"]}
    path = folder / CARD
    if path.is_file() and CARD in written and hash_file(path) != written[CARD]:
        raise VerificationError(
            "was changed by hand; it would be written again without that",
            where=path,
            remedy="keep your text elsewhere, then run `polysafe card` on the output",
        )


def changed_card(
    folder: Path,
    card: Card,
    *,
    results: Path | None = None,
    licence: str | None = None,
    licence_name: str | None = None,
    name: str | None = None,
) -> Card:
    """A card with what is new, as for `update_card`; nothing is written."""
    if results is not None:
        card = replace(card, results=read_results(results, folder, card))
    if licence is not None or licence_name is not None:
        chosen = chosen_licence(licence or "", licence_name, where="--license")
        card = replace(card, licence=chosen.id, licence_name=chosen.name)
    return card if name is None else replace(card, name=name)
