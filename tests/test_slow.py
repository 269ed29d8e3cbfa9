"""What `make slow` makes of what processes noted."""

from __future__ import annotations

from typing import Any

import pytest

from tools.slow_tests import SLOW, costs_of, listed


def test_a_test_costs_its_share_of_what_it_sets_up() -> None:
    noted: list[dict[str, Any]] = [
        {"fixture": "tests/test_a.py::model", "cost": 6.0},
        {"fixture": "::cache", "cost": 3.0},
        {"test": "tests/test_a.py::test_one", "cost": 1.0, "used": ["::cache", "tests/test_a.py::model"]},
        *(
            {"test": f"tests/test_a.py::test_two[{n}]", "cost": float(n), "used": ["::model", "::cache"]}
            for n in range(9)
        ),
        {"test": "tests/test_b.py::test_one", "cost": 0.5, "used": ["tests/test_b.py::model"]},
    ]
    found = costs_of(noted)
    assert found["tests/test_b.py::test_one"] == 0.5
    # Of nine cases four are run by `make test-fast`: with the other function five share the fixture.
    assert found["tests/test_a.py::test_one"] == pytest.approx(1 + 6 + 3 / 5)
    assert found["tests/test_a.py::test_two"] == pytest.approx(4 + 3 / 5)


def test_what_is_listed_is_there() -> None:
    """A test that was renamed is not quick for that."""
    names = [name.split("::") for name in listed()]
    assert names
    for file, *_, name in names:
        assert f"def {name}(" in (SLOW.parents[1] / file).read_text(encoding="utf-8")
