"""The checkpoints that a user gives for the sources of an edit: the very ones that it was made of, or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.lora import is_adapter, open_adapter, open_reader
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.reader import row_blocks
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.edits.edit import Edit
from polysafe.edits.operations import AddDelta
from polysafe.engine.job import open_named
from polysafe.errors import EditError, MismatchError, PolysafeError
from polysafe.recipe.recipe import Recipe, parse_recipe, read_recipe_file

if TYPE_CHECKING:
    import torch

_SHOWN = 3


def require_folders(edit: Edit, sources: Mapping[str, Path]) -> None:
    """Every source needs a folder.

    Raises:
        EditError: One has none.
    """
    if missing := [name for name in edit.sources if name not in sources]:
        raise EditError(
            f"no folder is given for its source {missing[0]!r}",
            remedy=f"name one folder each for: {', '.join(edit.sources)}",
        )


def open_given(
    edit: Edit, sources: Mapping[str, Path], *, force: bool = False, recorded: Path | None = None
) -> dict[str, Checkpoint]:
    """Opens the folders, those of adapters on top of their base, and checks that the edit was made for them.

    Args:
        edit: The edit.
        sources: Folder of every source that it names, and of others.
        force: Take any checkpoints.
        recorded: Output with the edit; its recipe says where the sources were, which a wrong one is compared with.

    Raises:
        EditError: A source has no folder, or an adapter no base.
        MismatchError: A checkpoint is not the one that the edit was made for.
        PolysafeError: A folder holds nothing that can be edited.
    """
    require_folders(edit, sources)
    adapters = [name for name in sources if is_adapter(Path(sources[name]))]
    opened = {
        name: open_checkpoint(folder, origin=Path(folder).name)
        for name, folder in sources.items()
        if name not in adapters
    }
    for name in adapters:
        base = _base_of(edit, name, adapters)
        if base not in opened:
            raise EditError(f"no full checkpoint is given for {base!r}, which {name!r} adapts", where=sources[name])
        opened[name] = open_adapter(sources[name], opened[base], origin=Path(sources[name]).name)
    check_given(edit, opened, force=force, recorded=recorded)
    return opened


def check_given(
    edit: Edit, opened: Mapping[str, Checkpoint], *, force: bool = False, recorded: Path | None = None
) -> None:
    """Checks that an edit can be applied to checkpoints, and was made for them.

    Args:
        edit: The edit.
        opened: Its sources, and others.
        force: Take any checkpoints.
        recorded: As for `open_given`.

    Raises:
        MismatchError: A checkpoint is not the one that the edit was made for; says which one it is most like.
        PolysafeError: One cannot be edited.
    """
    for name in edit.sources:
        check_editable(opened[name])
        classify(opened[name])  # its config has to be that of its tensors
        if not force:
            require_same(edit, name, opened[name], chain(_recorded(edit, recorded), opened.items()))


def open_recorded(edit: Edit, output: Path) -> dict[str, Checkpoint]:
    """The sources of an edit where the recipe beside it says that they are.

    Args:
        edit: The edit.
        output: The output that holds it, with its recipe.

    Raises:
        PolysafeError: There is no recipe, or a source is not there.
    """
    recipe = _recipe_of(output)
    return {name: open_named(recipe, name) for name in edit.sources if name in recipe.sources}


def _recipe_of(output: Path) -> Recipe:
    file = output / RECORDS / "recipe.yaml"
    return parse_recipe(read_recipe_file(file), str(file), output)


def _recorded(edit: Edit, output: Path | None) -> Iterator[tuple[str, Checkpoint]]:
    """Those sources of an edit that are still where they were."""
    if output is None:
        return
    with suppress(PolysafeError):
        recipe = _recipe_of(output)
        for name in edit.sources:
            with suppress(PolysafeError, KeyError):
                yield name, open_named(recipe, name)


def _base_of(edit: Edit, adapter: str, adapters: Sequence[str]) -> str:
    """The source that an adapter adapts: the full model that it is subtracted from or reduced by, else the start."""
    for _, operation in edit.operations():
        if isinstance(operation, AddDelta) and adapter in operation.sources:
            other = operation.minus if adapter == operation.of else operation.of
            if other not in adapters:
                return other
    return edit.start


def require_same(edit: Edit, name: str, checkpoint: Checkpoint, others: Iterable[tuple[str, Checkpoint]] = ()) -> None:
    """A checkpoint has to be the one that an edit was made for.

    Args:
        edit: The edit.
        name: What it calls the checkpoint.
        checkpoint: The checkpoint.
        others: Checkpoints that are there too, which a wrong one is compared with where they are sources of the edit.

    Raises:
        MismatchError: It is another one; says which one it is most like.
    """
    expected = edit.sources[name].files
    if not expected or (found := checkpoint_digests(checkpoint)) == expected:
        return
    told = _nearest(edit, name, found) or _likest(edit, checkpoint, others)
    raise MismatchError(
        f"is not the checkpoint that the edit was made for as {name!r} ({edit.sources[name].origin}): "
        f"the SHA-256 of its weight files differ; {told}",
        where=checkpoint.root,
        remedy="use the original files, or force the edit onto this checkpoint",
    )


def _nearest(edit: Edit, name: str, found: Mapping[str, str]) -> str | None:
    """Whose files a wrong checkpoint has, by what the edit knows of its sources; None where nobody's."""
    known = {other: set(record.files.values()) for other, record in edit.sources.items()}
    shared = {other: len(hashes & set(found.values())) for other, hashes in known.items()}
    other = max(shared, key=lambda each: (shared[each], each == name))
    if not shared[other]:
        return None
    if other != name and known[other] == set(found.values()):
        return f"they are those of its source {other!r} ({edit.sources[other].origin})"
    foreign = [file for file, digest in found.items() if digest not in known[other]]
    told = f"{shared[other]} of {len(found)} are those of {other!r}"
    return told + (f", not {_listed(foreign)}" if foreign else ", and others are missing")


def _likest(edit: Edit, checkpoint: Checkpoint, others: Iterable[tuple[str, Checkpoint]]) -> str:
    """The source of the edit with the most tensors in common, of those that are there."""
    differing = {
        name: _differing(checkpoint, other)
        for name, other in others
        if name in edit.sources and checkpoint_digests(other) == edit.sources[name].files
    }
    if not differing:
        return "none is one of its other sources"
    name = min(differing, key=lambda each: len(differing[each]))
    same = len(checkpoint.tensors) - len(differing[name])
    if not same:
        return "no tensor is one of its sources"
    unlike = f"; {len(differing[name])} differ: {_listed(differing[name])}" if differing[name] else ""
    return f"{same} of its {len(checkpoint.tensors)} tensors are those of {name!r}{unlike}"


def _differing(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Tensors of `one` that the other has not, or otherwise."""
    with open_reader(one) as reader, open_reader(other) as against:
        return [
            name
            for name, spec in one.tensors.items()
            if (there := other.tensors.get(name)) is None
            or (there.dtype, there.shape) != (spec.dtype, spec.shape)
            or not all(_same_bytes(reader.rows(name, *rows), against.rows(name, *rows)) for rows in row_blocks(spec))
        ]


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
