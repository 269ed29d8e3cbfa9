from __future__ import annotations

import pytest

from polysafe.cli.engines import cluster_of
from polysafe.errors import RecipeError


def test_this_process_unless_a_cluster_is_named() -> None:
    assert cluster_of("local", None) is None
    found = cluster_of("ray", "host:6379", 3, 0.25)
    assert found is not None
    assert (found.address, found.workers, found.gpus) == ("host:6379", 3, 0.25)


@pytest.mark.parametrize(
    ("given", "where"),
    [(("host:1",), "--address"), ((None, 2), "--workers"), ((None, None, 0.5), "--gpus")],
)
def test_what_belongs_to_a_cluster_is_refused_without_one(given: tuple[object, ...], where: str) -> None:
    with pytest.raises(RecipeError, match="the engine is local") as caught:
        cluster_of("local", *given)  # type: ignore[arg-type]
    assert caught.value.where == where
    assert "--engine ray" in str(caught.value.remedy)


def test_an_engine_that_is_none_is_named() -> None:
    with pytest.raises(RecipeError, match="no engine 'spark'") as caught:
        cluster_of("spark", None)
    assert "local, ray" in str(caught.value.remedy)


def test_a_process_takes_something() -> None:
    with pytest.raises(RecipeError, match="one processor at least"):
        cluster_of("ray", None, 0)
