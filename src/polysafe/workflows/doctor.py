"""What there is to work with: packages, extras, machine, caches, settings. Whatever is broken is told, not raised."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from polysafe._version import __version__
from polysafe.extras import requirements

if TYPE_CHECKING:
    from packaging.requirements import Requirement

BRINGS: Mapping[str, str] = {
    "models": "running models: audits, repairs, sparse edits, head steering, chat",
    "server": "models and judges behind an OpenAI-compatible server",
    "data": "prompt sets and tables in Parquet and Excel files",
    "lm-eval": "ability, by lm-eval's tasks",
    "inspect": "runs as Inspect logs, prompt sets as Inspect tasks",
    "gguf": "GGUF files as sources",
    "real": "two small real models, to try everything on",
    "search": "search and repair: settings chosen by Optuna",
    "attacks": "the attack `transliteration`",
    "annotate": "agreement of people who label answers",
    "ray": "several machines",
    "quantised": "audits of models quantised by bitsandbytes; imports of these and of compressed-tensors",
    "large": "models that are larger than one device",
}
"""What each extra is for; those for working on polysafe itself are left out."""

SETTINGS = (
    "POLYSAFE_CACHE", "POLYSAFE_KEYS", "POLYSAFE_DEBUG", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "RAY_ADDRESS",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip
"""Environment variables that change what polysafe does."""
_SECRET = frozenset({"HF_TOKEN"})


@dataclass(frozen=True)
class Package:
    """A package that polysafe, or one of its extras, asks for.

    Attributes:
        name: Its name.
        asked: The versions that are asked for.
        installed: The version that is installed, None where there is none.
        problem: What is wrong; empty where nothing is.
    """

    name: str
    asked: str
    installed: str | None
    problem: str


@dataclass(frozen=True)
class Extra:
    """An extra.

    Attributes:
        name: Its name.
        brings: What it is for.
        missing: Packages of it that are not installed, or not in the version asked for.
        line: What installs them.
    """

    name: str
    brings: str
    missing: tuple[Package, ...]
    line: str


@dataclass(frozen=True)
class Examination:
    """Everything that was looked at.

    Attributes:
        versions: Of polysafe, Python and the system.
        packages: What polysafe needs always.
        extras: What more there is.
        machine: Memory, disk, cores, accelerators; sizes in bytes. None where it cannot be told.
        caches: Name -> folder and size in bytes.
        settings: Environment variables that are set; of a secret only that it is.
    """

    versions: Mapping[str, str]
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    machine: Mapping[str, Any]
    caches: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, str]

    @property
    def broken(self) -> tuple[str, ...]:
        """What polysafe needs and does not have."""
        if not self.packages:
            return ("polysafe is not installed: there is no metadata of it",)
        return tuple(f"{package.name}: {package.problem}" for package in self.packages if package.problem)


def examine() -> Examination:
    """Looks at everything; imports what polysafe needs always, to see whether it works."""
    needed = requirements()
    return Examination(
        versions={"polysafe": __version__, "python": platform.python_version(), "system": platform.platform()},
        packages=tuple(_package(each, load=True) for each in needed.get("", ())),
        extras=tuple(_extra(name, needed) for name in BRINGS if name in needed),
        machine=dict(_machine()),
        caches={name: {"folder": str(folder), "bytes": _size(folder)} for name, folder in _caches()},
        settings={name: _shown(name) for name in SETTINGS if name in os.environ},
    )


def _extra(name: str, needed: Mapping[str, list[Requirement]]) -> Extra:
    packages = [_package(each, load=False) for each in _whole(name, needed)]
    missing = {package.name: package for package in packages if package.problem}
    return Extra(name, BRINGS[name], tuple(missing.values()), f"pip install 'polysafe[{name}]'")


def _whole(name: str, needed: Mapping[str, list[Requirement]]) -> Iterator[Requirement]:
    """What an extra asks for, with the extras that it includes."""
    for each in needed.get(name, ()):
        if each.name != "polysafe":
            yield each
        for inner in each.extras if each.name == "polysafe" else ():
            yield from _whole(inner, needed)


def _package(requirement: Requirement, *, load: bool) -> Package:
    name, asked = requirement.name, str(requirement.specifier)
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Package(name, asked, None, "is not installed")
    if not requirement.specifier.contains(installed, prereleases=True):
        return Package(name, asked, installed, f"version {installed} is installed, and {asked} is needed")
    return Package(name, asked, installed, _defect(name) if load else "")


def _defect(name: str) -> str:
    """Why a package cannot be imported; empty where it can."""
    for module in _modules().get(re.sub(r"[-_.]+", "-", name).lower(), ()):
        try:
            import_module(module)
        except Exception as error:  # noqa: BLE001  whatever a broken package raises is what there is to tell
            return f"cannot be imported: {type(error).__name__}: {error}"
    return ""


@cache
def _modules() -> Mapping[str, tuple[str, ...]]:
    """Distribution -> its modules that polysafe could import."""
    found: dict[str, tuple[str, ...]] = {}
    for module, names in metadata.packages_distributions().items():
        if module.isidentifier() and not module.startswith("_"):
            for name in set(names):
                plain = re.sub(r"[-_.]+", "-", name).lower()
                if plain == module.replace("_", "-").lower() or (plain, module) == ("pyyaml", "yaml"):
                    found[plain] = (*found.get(plain, ()), module)
    return found


def _machine() -> Iterator[tuple[str, Any]]:
    looks: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("cores", _cores),
        ("memory", _memory),
        ("disk", _disk),
        ("bfloat16", _bfloat16),
        ("accelerators", _accelerators),
    )
    for name, look in looks:
        try:
            yield name, look()
        except Exception:  # noqa: BLE001  a package that does not work is told as such, under its name
            yield name, None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> dict[str, int]:
    import psutil

    found = psutil.virtual_memory()
    return {"free": found.available, "total": found.total}


def _disk() -> dict[str, dict[str, int]]:
    import psutil

    from polysafe.files.memory import cache_directory

    places = {"here": Path.cwd(), "cache": cache_directory(), "temporary": Path(gettempdir())}
    existing = {name: next(each for each in (place, *place.parents) if each.exists()) for name, place in places.items()}
    return {name: {"free": psutil.disk_usage(str(place)).free} for name, place in existing.items()}


def _bfloat16() -> bool:
    from polysafe.checkpoint.dtypes import fast_type

    return fast_type() == "BF16"


def _accelerators() -> list[dict[str, Any]]:
    import torch

    found: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append({"name": torch.cuda.get_device_name(number), "free": free, "total": total})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "free": None, "total": None})
    return found


def _caches() -> Iterator[tuple[str, Path]]:
    from polysafe.files.memory import cache_directory

    yield "polysafe", cache_directory()
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except Exception:  # noqa: BLE001  told under its name
        return
    yield "models of the hub", Path(HF_HUB_CACHE)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; what cannot be read counts nothing. Links count once, where they lead."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def _shown(name: str) -> str:
    return "set" if name in _SECRET else os.environ[name]
