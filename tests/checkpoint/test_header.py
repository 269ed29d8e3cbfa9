from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from polysafe.checkpoint.dtypes import BITS
from polysafe.checkpoint.header import MAX_HEADER, TensorSpec, encode_header, read_header, tensor_bytes
from polysafe.errors import CheckpointError
from tests.checkpoint.raw import Json, entry, raw, write_raw

Seen = dict[str, tuple[str, tuple[int, ...]]]


def theirs(path: Path) -> Seen | None:
    """What the safetensors library sees in a file, None if it refuses it."""
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    except (SafetensorError, OverflowError):
        return None


def ours(path: Path) -> Seen | None:
    try:
        return {name: (spec.dtype, spec.shape) for name, spec in read_header(path).tensors.items()}
    except CheckpointError as error:
        if error.where != path:
            raise
        return None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "model.safetensors"


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, str, tuple[int, ...]]]:
    names = draw(st.lists(st.text(max_size=8).filter(lambda n: n != "__metadata__"), max_size=5, unique=True))
    dtypes = [draw(st.sampled_from(sorted(BITS))) for _ in names]
    shapes = [tuple(draw(st.lists(st.integers(0, 4), max_size=4))) for _ in names]
    whole_bytes = [(*shape, 8) if BITS[dtype] < 8 else shape for dtype, shape in zip(dtypes, shapes, strict=True)]
    return list(zip(names, dtypes, whole_bytes, strict=True))


@given(tensors())
def test_what_is_encoded_is_read_by_us_and_by_safetensors(
    scratch: Path, listed: list[tuple[str, str, tuple[int, ...]]]
) -> None:
    header = encode_header(listed)
    scratch.write_bytes(header + bytes(sum(tensor_bytes(dtype, shape) for _, dtype, shape in listed)))
    wanted = {name: (dtype, shape) for name, dtype, shape in listed}
    assert len(header) % 8 == 0
    assert ours(scratch) == wanted
    assert theirs(scratch) == wanted


WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [-1, 0, 1, 2, 3, 4, 8, 2**31, 2**62, 2**63, 2**64, 1.5, None, True, "F32", "X9", [], [1], {}]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound file with one thing wrong, perhaps."""
    header: Json = {"a": entry("F32", (2, 1)), "b": entry("BF16", (3,), 8), "c": entry("U8", (), 14)}
    data = bytes(15)
    kind = draw(st.sampled_from(["value", "element", "bytes", "cut", "tail", "length", "key"]))
    name = draw(st.sampled_from(sorted(header)))
    if kind == "value":
        header[name][draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = draw(WRONG)
    if kind == "element":
        header[name]["data_offsets"][draw(st.integers(0, 1))] = draw(WRONG)
    if kind == "key":
        header[draw(st.text(max_size=3)) or "__metadata__"] = draw(WRONG)
    content = bytearray(raw(header, data))
    if kind == "bytes":
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    if kind == "cut":
        del content[draw(st.integers(0, len(content))) :]
    if kind == "tail":
        content += draw(st.binary(min_size=1, max_size=9))
    if kind == "length":
        content[:8] = draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
    return bytes(content)


@pytest.mark.fault(1, "random headers")
@given(damaged())
def test_what_we_accept_safetensors_reads_alike(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    seen = ours(scratch)
    if seen is not None:
        assert theirs(scratch) == seen


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "has 7 bytes"),
    "header of 2^63 bytes": (raw(b"{}", length=2**63), "above the limit"),
    "header above 20 MB": (raw(b"{}", length=MAX_HEADER + 1), "above the limit"),
    "header longer than the file": (raw(b"{}", length=3), "is cut short: its header needs 11 bytes"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "not valid JSON"),
    "not JSON": (raw(b"{not}"), "not valid JSON"),
    "too deep": (raw(b"[" * 100_000), "not valid JSON"),
    "half a character": (raw(b'{"\\ud800": ' + json.dumps(entry()).encode() + b"}", bytes(4)), "not valid JSON"),
    "trailing zeros in the header": (raw(b"{}\0"), "not valid JSON"),
    "not an object": (raw([]), "not a JSON object"),
    "a name twice": (raw(b'{"a": 1, "a": 1}'), "a key stands in it twice"),
    "metadata no map": (raw({"__metadata__": []}), "__metadata__"),
    "metadata no text": (raw({"__metadata__": {"a": 1}}), "__metadata__"),
    "entry no object": (raw({"a": 1}), "does not have exactly"),
    "entry incomplete": (raw({"a": {"dtype": "F32"}}), "does not have exactly"),
    "entry with more": (raw({"a": {**entry(), "pickle": 1}}, bytes(4)), "does not have exactly"),
    "unknown type": (raw({"a": {**entry(), "dtype": "F31"}}, bytes(4)), "unknown type 'F31'"),
    "type no text": (raw({"a": {**entry(), "dtype": ["F32"]}}, bytes(4)), "unknown type"),
    "shape no list": (raw({"a": {**entry(), "shape": 1}}, bytes(4)), "malformed"),
    "shape negative": (raw({"a": {**entry(), "shape": [-1]}}, bytes(4)), "malformed"),
    "shape of truths": (raw({"a": {**entry(), "shape": [True]}}, bytes(4)), "malformed"),
    "shape of fractions": (raw({"a": {**entry(), "shape": [1.0]}}, bytes(4)), "malformed"),
    "offsets negative": (raw({"a": {**entry(), "data_offsets": [-4, 0]}}, bytes(4)), "malformed"),
    "offsets reversed": (raw({"a": {**entry(), "data_offsets": [4, 0]}}, bytes(4)), "malformed"),
    "three offsets": (raw({"a": {**entry(), "data_offsets": [0, 2, 4]}}, bytes(4)), "malformed"),
    "offset above 2^63": (raw({"a": {**entry(), "data_offsets": [0, 2**63]}}), "malformed"),
    "shape and size differ": (raw({"a": {**entry(), "shape": [2]}}, bytes(4)), "does not take 4 bytes"),
    "shape overflows": (raw({"a": {**entry(), "shape": [2**62, 2**62, 0]}}, bytes(4)), "does not take 4 bytes"),
    "part of a byte": (raw({"a": {**entry("F4", (2,)), "shape": [1]}}, bytes(1)), "does not take 1 bytes"),
    "overlap": (raw({"a": entry(), "b": entry(start=2)}, bytes(6)), "overlaps its neighbour"),
    "same place": (raw({"a": entry(), "b": entry()}, bytes(4)), "overlaps its neighbour"),
    "hole": (raw({"a": entry(), "b": entry(start=8)}, bytes(12)), "leaves a hole"),
    "hole at the start": (raw({"a": entry(start=4)}, bytes(8)), "leaves a hole"),
    "data cut short": (raw({"a": entry()}, bytes(3)), "is cut short: its header describes"),
    "trailing bytes": (raw({"a": entry()}, bytes(5)), "has 1 bytes that its header does not describe"),
}


@pytest.mark.fault(
    1, "lengths and limits", "text", "offsets, shapes and types", "bytes that nothing describes", "the file is named"
)
@pytest.mark.fault(3, "cut short", "empty")
@pytest.mark.hostile("header")
@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_file_and_remedy(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    path = tmp_path / "model-00001-of-00002.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert words in caught.value.problem
    assert caught.value.where == path
    assert "again" in str(caught.value.remedy)


@pytest.mark.fault(3, "a git-lfs pointer", "a web page")
@pytest.mark.hostile("header")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html><title>401</title></html>", "web page"),
        (b"\n\n  <html>sign in</html>", "web page"),
        (b"\xef\xbb\xbf<html>sign in</html>", "web page"),
        (b"<html>", "web page"),
    ],
)
def test_stand_ins_are_recognised(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


def test_a_header_whose_length_spells_markup_is_read(tmp_path: Path) -> None:
    text = json.dumps({"a": entry()}).encode().ljust(0x3C20)  # the length begins with the bytes of " <"
    assert read_header(write_raw(tmp_path / "f.safetensors", text, bytes(4))).tensors["a"].shape == (1,)


def test_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder"):
        read_header(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_header(tmp_path / "absent.safetensors")


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


@pytest.mark.fault(1, "nothing large is allocated")
@pytest.mark.hostile("header")
@pytest.mark.parametrize("length", [MAX_HEADER, 2**40, 2**63])
def test_an_announced_length_allocates_nothing(length: int, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "f.safetensors", b"{}", length=length)
    with peak_memory() as peak, pytest.raises(CheckpointError):
        read_header(path)
    assert peak[0] < 1 << 20


@pytest.mark.fault(1, "nothing large is allocated")
@pytest.mark.hostile("header")
def test_a_shape_of_a_hundred_thousand_huge_axes_is_refused_before_it_is_multiplied_out(tmp_path: Path) -> None:
    hostile: dict[str, Any] = {**entry(), "shape": [2**62] * 100_000}
    path = write_raw(tmp_path / "f.safetensors", {"a": hostile}, bytes(4))
    with peak_memory() as peak, pytest.raises(CheckpointError, match="does not take 4 bytes"):
        read_header(path)
    assert peak[0] < 64 << 20


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "f.safetensors", {"z": entry(start=4), "a": entry()}, bytes(8))
    header = read_header(path)
    assert list(header.tensors) == ["a", "z"]
    assert [spec.offset for spec in header.tensors.values()] == [header.size - 8, header.size - 4]


@pytest.mark.parametrize(
    ("dtype", "shape", "view"),
    [
        ("F32", (), (1, 1, 4)),
        ("F32", (5,), (5, 1, 4)),
        ("BF16", (3, 4), (3, 4, 8)),
        ("BF16", (2, 3, 4), (6, 4, 8)),
        ("F32", (0, 4), (0, 4, 0)),
        ("F32", (3, 0), (3, 0, 0)),
        ("F4", (2, 4), (4, 1, 1)),  # packed: every byte is a row
        ("F6_E2M3", (4,), (3, 1, 1)),
    ],
)
def test_two_dimensional_view(dtype: str, shape: tuple[int, ...], view: tuple[int, int, int]) -> None:
    spec = TensorSpec("w", dtype, shape, Path("f"), 0, tensor_bytes(dtype, shape))
    assert (spec.rows, spec.columns, spec.row_bytes) == view
