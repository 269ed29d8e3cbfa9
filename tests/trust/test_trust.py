"""All faults are proved, there are enough hostile inputs, and the pages say what the tests are."""

from __future__ import annotations

import pytest

from tests.trust import mutants
from tests.trust.collected import Marks, marks_of
from tests.trust.faults import FAULTS
from tests.trust.kinds import KINDS
from tests.trust.pages import count, pages, peers_counts, said


@pytest.fixture(scope="module")
def marks(request: pytest.FixtureRequest) -> Marks:
    """Those of all tests."""
    return marks_of(request.session)


def test_every_part_of_every_fault_has_a_test(marks: Marks) -> None:
    proved = {int(number): set(parts) for number, parts in marks.faults.items()}
    assert list(FAULTS) == list(range(1, 27))
    assert proved == {number: set(fault.parts) for number, fault in FAULTS.items()}


def test_there_are_at_least_450_hostile_inputs_of_known_kinds(marks: Marks) -> None:
    assert set(marks.hostile) == set(KINDS)
    assert count(marks) >= 450


def test_the_pages_are_those_of_the_tests(marks: Marks) -> None:
    for path, text in pages(marks).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date: python -m tests.trust"


def test_polysafe_refuses_all_folders_and_names_the_file() -> None:
    assert "| loads it | 0 |" in peers_counts()
    assert said({"outcome": "crashed", "ran_code": True}) == "unexpected error, without the file, **runs the code**"


@pytest.mark.parametrize("part", mutants.PARTS)
def test_each_mutant_that_survives_has_its_reason(part: str) -> None:
    tried = mutants.results()[part]["tried"].values()
    assert all(each["why"] for each in tried if each["came"] == "survived")
