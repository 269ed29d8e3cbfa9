"""What a result was computed with: Python, machine, threads, torch's build, and every installed library in use.

Nothing in it tells whose machine it was: no host, user or path.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict

from polysafe._version import __version__
from polysafe.registry import packages_state

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_DETERMINISM = ("CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
_FOLDERS = re.compile(r"(?<=[=\s])/(?:[\w.+-]+/)+")  # in the build string: where the compiler lay
_TORCH = "torch"
_MOST_THREADS = 1024
_NOT_IMPORTED = frozenset({"dev"})
_PROGRAM = (".py", ".json", ".j2", ".css", ".js")
_OWN = "polysafe"


class Library(BaseModel):
    """One installed distribution.

    Attributes:
        version: Its version, with the local part that names a build (`2.13.0+cpu`).
        files: SHA-256 over the installed files as the installer recorded them, None where it did not.
        archive: SHA-256 of the archive that it was installed from, where the metadata has it.
        url: Where it was installed from, if not from an index; addresses on the machine itself are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    files: str | None = None
    archive: str | None = None
    url: str | None = None


class Environment(BaseModel):
    """What a result was computed with.

    Attributes:
        python: Version and implementation.
        platform: System, machine, processor and C library.
        accelerators: Name of every accelerator that torch sees.
        threads: Thread settings of torch and of the libraries under it, and settings that make them deterministic.
        torch: Version, commit, processor capability, CUDA version, and the build string line by line.
        program: Version of polysafe and SHA-256 over its program files, which tells a changed source tree.
        libraries: Everything installed that polysafe imports, directly or through others, by normalised name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: dict[str, str]
    platform: dict[str, str]
    accelerators: tuple[str, ...]
    threads: dict[str, int | str | None]
    torch: dict[str, str | tuple[str, ...] | None]
    program: dict[str, str]
    libraries: dict[str, Library]

    @property
    def torch_threads(self) -> int:
        """Number of threads that torch used; one where that is not on record."""
        number = self.threads.get(_TORCH)
        return number if isinstance(number, int) and 0 < number <= _MOST_THREADS else 1

    def requirements(self) -> str:
        """The libraries as a requirements file for pip.

        Hashes are requirements only where every archive has one: pip refuses a file in which some are missing.
        """
        locked = all(library.archive for library in self.libraries.values())
        lines = [_requirement(name, library, locked) for name, library in sorted(self.libraries.items())]
        own = f"{_OWN}=={self.program['version']}"
        heading = _HEADING.format(python=self.python["version"], **self.program, own=f"# {own}" if locked else own)
        return "\n".join([heading, *lines, ""])


_HEADING = """\
# Python {python}. A version with a `+` is a build that its project publishes in an index of its own.
# SHA-256 over the program files of polysafe: {sha256}
{own}"""


def environment() -> Environment:
    """The environment of this process."""
    import torch

    return Environment(
        python={"version": platform.python_version(), "implementation": platform.python_implementation()},
        platform={
            "system": platform.system(),
            "machine": platform.machine(),
            "processor": _processor(),
            "libc": " ".join(platform.libc_ver()).strip(),
        },
        accelerators=tuple(_accelerators()),
        threads={
            _TORCH: torch.get_num_threads(),
            "torch between operations": torch.get_num_interop_threads(),
            **{name: os.environ.get(name) for name in (*_THREADS, *_DETERMINISM)},
            "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
            "float32 matrix products": torch.get_float32_matmul_precision(),
        },
        torch={
            "version": torch.__version__,
            "commit": torch.version.git_version,
            "capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "build": tuple(_FOLDERS.sub("", torch.__config__.show()).strip().splitlines()),
        },
        program={"version": __version__, "sha256": program_sha256()},
        libraries=libraries(),
    )


@cache
def program_sha256() -> str:
    """SHA-256 over the program files of polysafe, without the packaged models: tells two source trees apart."""
    root = Path(str(resources.files(_OWN)))
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in _PROGRAM):
        name = path.relative_to(root)
        if name.parts[:2] != ("organism", "family"):
            digest.update(f"{name.as_posix()}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def libraries() -> dict[str, Library]:
    """Every installed distribution that polysafe requires, directly, through an extra, or through another one."""
    if _installed(_OWN):
        return dict(_required(packages_state()))
    return _reached([(name, frozenset[str]()) for name in _loaded()])


@lru_cache(maxsize=1)
def _required(_: tuple[tuple[str, int], ...]) -> dict[str, Library]:
    """What polysafe requires; many runs of one process tell it, and it takes a third of a second."""
    return _reached([(_OWN, _extras(_OWN))])


def _reached(waiting: list[tuple[str, frozenset[str]]]) -> dict[str, Library]:
    """These distributions and those that they require, with the extras that are asked of each."""
    found: dict[str, Library] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        distribution = _installed(name)
        if distribution is None or (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name != _OWN:
            found[name] = _library(distribution)
        waiting += _requirements(distribution, extras)
    return dict(sorted(found.items()))


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _extras(name: str) -> frozenset[str]:
    return frozenset(metadata.metadata(name).get_all("Provides-Extra") or ()) - _NOT_IMPORTED


def _loaded() -> Iterator[str]:
    """Without metadata of polysafe itself (a source tree on the path), what this process has imported."""
    import sys

    owners = metadata.packages_distributions()
    for module in {name.partition(".")[0] for name in sys.modules}:
        yield from (canonicalize_name(owner) for owner in owners.get(module, ()) if owner != _OWN)


def _requirements(distribution: metadata.Distribution, extras: Collection[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for text in distribution.requires or ():
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


def _library(distribution: metadata.Distribution) -> Library:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = str(origin.get("url", ""))
    return Library(
        version=distribution.version,
        files=_files_sha256(distribution.read_text("RECORD") or ""),
        archive=_archive_sha256(origin.get("archive_info", {})),
        url=url if url.startswith(("https://", "http://")) and "@" not in url else None,
    )


def _files_sha256(record: str) -> str | None:
    """Over the files of the packages: scripts and the installer's own notes differ from machine to machine."""
    rows = sorted(
        (row[0], row[1])
        for row in csv.reader(record.splitlines())
        if len(row) == 3 and row[1] and not row[0].startswith(("..", "/")) and ".dist-info/" not in row[0]
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else None


def _archive_sha256(archive: Mapping[str, Any]) -> str | None:
    legacy = str(archive.get("hash", ""))
    found = archive.get("hashes", {}).get("sha256") or legacy.removeprefix("sha256=")
    return str(found) if found and (legacy.startswith("sha256=") or "hashes" in archive) else None


def _requirement(name: str, library: Library, locked: bool) -> str:
    wanted = f"{name} @ {library.url}" if library.url else f"{name}=={library.version}"
    if locked:
        return f"{wanted} --hash=sha256:{library.archive}"
    return f"{wanted}  # sha256 of the archive: {library.archive}" if library.archive else wanted


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _accelerators() -> Iterator[str]:
    import torch

    if torch.cuda.is_available():
        yield from (torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    if torch.backends.mps.is_available():
        yield "Apple GPU"
