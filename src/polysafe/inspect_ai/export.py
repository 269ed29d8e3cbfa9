"""Writes the Inspect logs of a run: whole or not at all, and the same bytes for the same run.

The logs are written by Inspect itself, in a folder of their own, and packed again without the time of day, which a ZIP
file holds for every member.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from polysafe.checkpoint.writer import output_error
from polysafe.errors import DataError
from polysafe.evaluate.model_run import ModelRun
from polysafe.files.atomic import write_bytes_atomic
from polysafe.inspect_ai.extra import require_inspect
from polysafe.inspect_ai.logs import run_logs

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

SUFFIX = ".eval"

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP file can say
_UNIX, _MODE = 3, 0o600 << 16


def export_run(run: ModelRun | Path | str, folder: Path) -> tuple[Path, ...]:
    """Writes a finished run as Inspect logs: one for each prompt set and kind, one for each ability.

    Nothing is asked again. A log of the same run is replaced by the same bytes.

    Args:
        run: The run, or its folder.
        folder: Folder for the logs; give it to `inspect view --log-dir`.

    Returns:
        The files, in the order of the run's sets.

    Raises:
        ResourceError: Inspect is not installed.
        DataError: The run cannot be read, or does not fit into a log.
        OutputError: The folder cannot be written.
    """
    require_inspect()
    loaded = run if isinstance(run, ModelRun) else ModelRun.load(run)
    try:
        files = {folder / _file_name(loaded, name, log): log_bytes(log) for name, log in run_logs(loaded)}
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_bytes_atomic(path, content)
    except OSError as error:
        raise output_error(folder, error) from error
    return tuple(files)


def log_bytes(log: EvalLog) -> bytes:
    """A log in Inspect's format `.eval`; the same bytes for the same log.

    Raises:
        DataError: Two samples have one name in the file.
    """
    from inspect_ai.log import write_eval_log

    with TemporaryDirectory() as folder:
        path = Path(folder) / f"log{SUFFIX}"
        write_eval_log(log, str(path))
        with ZipFile(path) as packed:
            members = {name: packed.read(name) for name in packed.namelist()}
    held = sum(name.startswith("samples/") for name in members)
    if held != len(log.samples or ()):
        raise DataError(
            f"{len(log.samples or ())} prompts have only {held} names that a ZIP file can hold", where=log.eval.task
        )
    return _packed(members)


def _packed(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=6) as packed:
        for name, content in members.items():
            info = ZipInfo(name, _NO_TIME)
            info.compress_type, info.create_system, info.external_attr = ZIP_DEFLATED, _UNIX, _MODE
            packed.writestr(info, content)
    return file.getvalue()


def _file_name(run: ModelRun, name: str, log: EvalLog) -> str:
    """Model, what was asked, and the log's own name, so that two runs never meet in one file."""
    return "_".join([*(re.sub(r"[^\w.-]+", "-", part)[:80] for part in (run.name, name)), log.eval.task_id]) + SUFFIX
