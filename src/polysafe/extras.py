"""What brings a package that is not installed: the line of `pip install`, read off polysafe's own metadata."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from polysafe.errors import PolysafeError, ResourceError

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def missing_package(error: BaseException) -> PolysafeError | None:
    """What to say where a package that polysafe imports is not there, or does not work.

    Args:
        error: What importing it raised, or any other error.

    Returns:
        None where the error speaks of no package, or of a module of polysafe itself.
    """
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ImportError) or not package or package == "polysafe":
        return None
    line = install_line(package)
    if isinstance(error, ModuleNotFoundError):
        return ResourceError(f"this needs the package {package}, which is not installed", remedy=line)
    return ResourceError(
        f"the package {package} does not work: {error}", remedy=line.replace("install", "install --upgrade", 1)
    )


def install_line(package: str) -> str:
    """The line that installs a package: by the smallest extra that has it, where one has."""
    wanted = _plain(package)
    extras = _extras()
    having = [extra for extra, packages in extras.items() if wanted in packages and extra != "dev"]
    if not having:
        return f"pip install {package}"
    return f"pip install 'polysafe[{min(having, key=lambda extra: len(extras[extra]))}]'"


def requirements() -> dict[str, list[Requirement]]:
    """Extra -> what it asks for itself; under `""` what polysafe needs always. Empty where there is no metadata."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import InvalidRequirement, Requirement

    found: dict[str, list[Requirement]] = {}
    try:
        lines = requires("polysafe") or []
    except PackageNotFoundError:
        return found
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        for extra in re.findall(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker or "")) or [""]:
            found.setdefault(extra, []).append(requirement)
    return found


def _extras() -> dict[str, Counter[str]]:
    """Extra -> the packages that it asks for itself, the extras that it includes among them."""
    found: dict[str, Counter[str]] = {}
    for extra, needed in requirements().items():
        if extra:
            counts = found.setdefault(extra, Counter())
            for requirement in needed:
                counts[_plain(requirement.name)] += len(requirement.extras) or 1
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
