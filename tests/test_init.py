from __future__ import annotations

import pytest

import polysafe


@pytest.mark.parametrize("name", polysafe.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(polysafe, name) is not None


def test_public_names_are_listed_in_order() -> None:
    assert dir(polysafe) == sorted(polysafe.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = polysafe.absent
