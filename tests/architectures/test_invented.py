"""A new family needs no code, or one row of a table."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from polysafe.checkpoint import roles
from polysafe.errors import ArchitectureError
from tests.architectures.cells import COLUMNS, Bench
from tests.architectures.families import Family
from tests.architectures.invented import BORROWED, COINED
from tests.architectures.made import make

# PEFT's own use of a name that transformers renames
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def carried_out(family: Family, folder: Path) -> None:
    with ExitStack() as stack:
        bench = Bench(make(family.config, folder), folder, stack, family)
        for column in COLUMNS.values():
            assert column(bench) == ()


def test_a_family_with_known_names_needs_no_code(tmp_path: Path) -> None:
    carried_out(BORROWED, tmp_path)


def test_a_family_with_names_of_its_own_is_refused_until_a_row_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        bench = Bench(make(COINED.config, tmp_path / "unknown"), tmp_path, stack, COINED)
        with pytest.raises(ArchitectureError, match=r"nothing can be scored in layers\.0\.mlp"):
            COLUMNS["module swap"](bench)
        with pytest.raises(ArchitectureError, match="has no MLP that is recognised"):
            COLUMNS["sparse edit"](bench)
    for row, name in (("up", "rise"), ("down", "fall")):
        known = roles._PROJECTIONS[roles.Module.MLP][row]
        monkeypatch.setitem(roles._PROJECTIONS[roles.Module.MLP], row, known | {name})
    carried_out(COINED, tmp_path / "known")
