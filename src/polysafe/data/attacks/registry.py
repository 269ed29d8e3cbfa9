"""Finds attacks by name: those in the files of this package, those of other packages, and templates of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from polysafe.data.attacks.base import Attack
from polysafe.data.attacks.wrappers import wrapped
from polysafe.errors import DataError
from polysafe.registry import Registry

GROUP = "polysafe.attacks"
TEMPLATE = ".txt"
"""How the name of a file with a template of one's own ends."""

_STEM = re.compile(r"\w[\w.-]{0,63}")


def _named(value: object) -> tuple[str, ...]:
    return (value.name,) if isinstance(value, Attack) else ()


_ATTACKS: Registry[Attack] = Registry(
    "attack", GROUP, ("polysafe.data.attacks",), _named, error=DataError, hint="; or a template of your own, NAME.txt"
)


def attack_names() -> tuple[str, ...]:
    """Names of all attacks."""
    return _ATTACKS.names()


def is_template(name: str | Path) -> bool:
    """Whether an attack is named by the file that holds its template."""
    return isinstance(name, Path) or name.lower().endswith(TEMPLATE)


def attack(name: str | Path) -> Attack:
    """The attack of a name, or the one that a template makes.

    Args:
        name: Its name; or the path of a text file in which `{prompt}` stands for the prompt.

    Raises:
        DataError: There is none, or the file is no template.
    """
    return _template(Path(name)) if is_template(name) else _ATTACKS.get(str(name))


def find_attacks(names: Iterable[str | Path]) -> tuple[Attack, ...]:
    """Several attacks.

    Raises:
        DataError: One is not there, two have one name, or a package that one needs is not installed.
    """
    found: dict[str, Attack] = {}
    for one in map(attack, names):
        if one.name in found:
            raise DataError(f"the attack {one.name!r} is named twice", remedy="name every attack once")
        one.require_package()
        found[one.name] = one
    return tuple(found.values())


def _template(path: Path) -> Attack:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=path, remedy="name a text file in UTF-8") from error
    if not _STEM.fullmatch(path.stem):
        raise DataError("cannot give an attack its name", where=path, remedy="use letters, digits, `_`, `.` and `-`")
    if path.stem in attack_names():
        raise DataError(f"has the name of the attack {path.stem!r}", where=path, remedy="rename the file")
    return Attack(path.stem, 1, "a template of your own", path.name, wrapped(text.strip(), where=path), english=True)
