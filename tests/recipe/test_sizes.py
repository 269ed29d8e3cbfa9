"""Sizes of shards, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.recipe.recipe import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("5 GB", 5 * 10**9),
        ("5G", 5 * 10**9),
        ("5gb", 5 * 10**9),
        ("1.5KB", 1500),
        ("2GiB", 2 << 30),
        ("512MiB", 512 << 20),
        ("1TB", 10**12),
        ("7B", 7),
        ("7", 7),
        (7, 7),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.hostile("recipe")
@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5PB", "5iB", "0", "0.1B", "five", None, True, "1e9", "5GB5"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(RecipeError, match="is not a size"):
        parse_size(text)


@given(st.integers(1, 10**14))
def test_sizes_survive_writing_and_reading(size: int) -> None:
    assert parse_size(format_size(size)) == size
