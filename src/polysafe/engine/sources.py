"""Where the folders of a recipe's sources are: on this machine, on the hub, or made of a GGUF file."""

from __future__ import annotations

from pathlib import Path

from polysafe.checkpoint.hub import hub_snapshot
from polysafe.progress import Progress, tell
from polysafe.recipe.recipe import SourceRef


def locate(reference: SourceRef, progress: Progress = tell) -> tuple[Path, str]:
    """The folder of a source, and how artefacts name it; it is fetched or made where it is not there yet.

    Raises:
        PolysafeError: The hub does not give it, or the GGUF file cannot be imported.
    """
    if reference.gguf is not None:
        from polysafe.engine.imports import imported_folder

        return imported_folder(reference.gguf, progress=progress), Path(reference.gguf).name
    if reference.hub is not None:
        folder = hub_snapshot(reference.hub, reference.revision or "")
        return folder, f"{reference.hub}@{reference.revision}"
    assert reference.path is not None
    return reference.path, reference.path.name
