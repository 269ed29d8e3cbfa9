"""Every parser, on inputs that once were handled wrongly, on mutated ones, and on long and dull ones.

Without atheris and with a fixed seed; `make fuzz` goes further (README.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import FORMS, grown, mutated
from tests.fuzz.target import CORPUS, Target, bounded
from tests.fuzz.targets import TARGETS

_LONG = 3
"""Long inputs of each target: line breaks, spaces and brackets; `make fuzz` tries more."""


@pytest.fixture(autouse=True)
def _within_bounds() -> Iterator[None]:
    with bounded():
        yield


def taken(target: Target, data: bytes) -> bool:
    try:
        return target.check(data)
    except Exception as error:
        error.add_note(f"{target.name}: {data[:2000]!r}")
        raise


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_parsers_end_in_an_answer_or_in_an_error_of_polysafe(target: Target) -> None:
    sound = [seed for seed in target.seeds if taken(target, seed)]
    assert sound, "no seed gets through"
    for data in target.corpus:
        taken(target, data)
    for data in mutated(target.seeds, target.form, target.words, target.inputs, seed=15):
        taken(target, data)
    for data in islice(grown((), target.words), _LONG):
        taken(target, data)


def test_every_corpus_is_of_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= {target.name for target in TARGETS}
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 1 << 20


@given(st.integers(0, 2**32), st.sampled_from(sorted(FORMS)), st.lists(st.binary(max_size=60), min_size=1, max_size=3))
@settings(max_examples=100)
def test_the_same_seed_gives_the_same_inputs(seed: int, form: str, seeds: list[bytes]) -> None:
    first, second = (list(mutated(seeds, form, (b"x",), 20, seed)) for _ in range(2))
    assert first == second
