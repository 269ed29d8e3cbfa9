"""Every verb on a tiny model of every family: it works, checked by its results, or is refused by name with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch

from polysafe.errors import PolysafeError
from tests.architectures.cells import COLUMNS, Bench
from tests.architectures.families import FAMILIES, Family
from tests.architectures.made import make
from tests.architectures.table import PAGE, page

# PEFT's own use of a name that transformers renames, and what transformers says of tiny configs
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.title)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture(scope="module")
def bench(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(family.model_type)
    with ExitStack() as stack:
        yield Bench(make(family.config, folder), folder, stack, family)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_cell_of_the_table(column: str, family: Family, bench: Bench) -> None:
    check(column, family, bench)


def check(column: str, family: Family, bench: Bench) -> None:
    if column in family.refused:
        with pytest.raises(PolysafeError) as caught:
            COLUMNS[column](bench)
        assert family.refused[column] in caught.value.problem
        return
    said, expected = COLUMNS[column](bench), family.notes.get(column, ())
    assert len(said) == len(expected), said
    assert all(any(part in note for note in said) for part in expected), said


def test_the_page_shows_what_is_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run: python -m tests.architectures"


def test_every_reason_is_of_a_column() -> None:
    for family in FAMILIES:
        assert {*family.refused, *family.notes} <= COLUMNS.keys()
        assert not family.refused.keys() & family.notes.keys()
