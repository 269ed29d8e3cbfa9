from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polysafe.checkpoint.gguf.quick import quick_reader
from tests.gguf_files import needs_gguf, write_gguf

pytestmark = needs_gguf()

MORE: dict[str, Any] = {"a.numbers": [1, -2, 3], "a.fractions": [0.5, 0.25], "a.truths": [True, False]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", metadata=MORE)


def test_it_finds_what_the_packages_own_reader_finds(file: Path) -> None:
    import gguf

    wanted = gguf.GGUFReader(file)
    with quick_reader():
        found = gguf.GGUFReader(str(file))
    assert type(wanted) is gguf.GGUFReader is not type(found)
    assert list(found.fields) == list(wanted.fields)
    assert set(MORE) < set(found.fields)
    for name, field in wanted.fields.items():
        other = found.fields[name]
        assert (other.offset, other.data, other.types) == (field.offset, field.data, field.types), name
        for ours, theirs in zip(other.parts, field.parts, strict=True):
            assert ours.dtype == theirs.dtype, name
            assert np.array_equal(ours, theirs), name
        assert other.contents() == field.contents()
    assert [each.name for each in found.tensors] == [each.name for each in wanted.tensors]


def test_a_file_is_understood_once_and_nobody_changes_it_for_the_next(file: Path) -> None:
    from transformers import modeling_gguf_pytorch_utils as loading

    wanted = loading.load_gguf_checkpoint(str(file), return_tensors=False)
    with quick_reader():
        first = loading.load_gguf_checkpoint(str(file), return_tensors=False)
        assert first == wanted
        first["config"].clear()
        assert loading.load_gguf_checkpoint(str(file), return_tensors=False) == wanted
    assert loading.load_gguf_checkpoint(str(file), return_tensors=False)["config"]


def test_a_string_that_is_longer_than_the_file_is_an_error(file: Path) -> None:
    import gguf

    content = file.read_bytes()
    at = content.index(b"\x05\0\0\0\0\0\0\0<unk>")
    file.write_bytes(content[:at] + b"\xff" * 7 + content[at + 7 :])
    with quick_reader(), pytest.raises(ValueError, match="after the end of the file"):
        gguf.GGUFReader(str(file))
