from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from polysafe.checkpoint.gguf import extra
from polysafe.checkpoint.gguf.header import MAX_ITEMS, GgufArray, read_gguf_header
from polysafe.errors import CheckpointError, ResourceError
from tests.gguf_files import entry, needs_gguf, raw_header, tensor, text, vocabulary, write_gguf

pytestmark = needs_gguf()

HUGE = 1 << 62
ARCHITECTURE = entry("general.architecture", b"llama")
STRINGS, ARRAY = 8, 9


def array(kind: int, length: int, content: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + content


def test_what_a_writer_wrote_is_read(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", "llama", type="Q4_0", metadata={"general.license": "mit"})
    header = read_gguf_header(path)
    assert (header.architecture, header.size) == ("llama", path.stat().st_size)
    assert header.text("general.license") == "mit"
    assert header.text("general.name") is None
    assert header.metadata["tokenizer.ggml.tokens"] == GgufArray(len(vocabulary()))
    assert header.types == {"Q4_0": 16, "F32": 5}
    found = {tensor.name: tensor for tensor in header.tensors}
    embedding = found["token_embd.weight"]
    assert (embedding.shape, embedding.nbytes) == ((len(vocabulary()), 64), len(vocabulary()) * 64 // 32 * 18)
    assert max(each.offset + each.nbytes for each in header.tensors) <= header.size


def test_places_are_those_of_the_gguf_package(tmp_path: Path) -> None:
    import gguf

    path = write_gguf(tmp_path / "m.gguf", "gpt2", type="Q8_0")
    theirs = {each.name: (each.data_offset, each.n_bytes) for each in gguf.GGUFReader(path).tensors}
    assert {each.name: (each.offset, each.nbytes) for each in read_gguf_header(path).tensors} == theirs


HOSTILE = {
    "empty": (b"", "is empty"),
    "another format": (b"PK\x03\x04" + bytes(100), "is no GGUF file"),
    "web page": (b"<!DOCTYPE html>" + bytes(100), "is a web page"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
    "magic only": (b"GGUF", "is cut short"),
    "version 1": (raw_header(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "big-endian"),
    "tensors without end": (raw_header(counts=(HUGE, 1)), "tensors, more than"),
    "entries without end": (raw_header(counts=(1, HUGE)), "entries of metadata, more than"),
    "a text without end": (raw_header(entries=[struct.pack("<Q", HUGE)]), "announces a text of"),
    "a value without end": (
        raw_header(entries=[ARCHITECTURE, entry("x", struct.pack("<Q", HUGE), STRINGS)]),
        "announces a text of",
    ),
    "an array without end": (
        raw_header(entries=[ARCHITECTURE, entry("x", array(4, HUGE), ARRAY)]),
        "more than any tokenizer",
    ),
    "many texts": (raw_header(entries=[ARCHITECTURE, entry("x", array(8, MAX_ITEMS), ARRAY)]), "texts, more than"),
    "an array longer than the file": (
        raw_header(entries=[ARCHITECTURE, entry("x", array(10, 1 << 20), ARRAY)]),
        "header ends beyond",
    ),
    "array in an array": (
        raw_header(entries=[ARCHITECTURE, entry("x", array(9, 1, bytes(12)), ARRAY)]),
        "unknown type 9",
    ),
    "unknown kind of value": (raw_header(entries=[ARCHITECTURE, entry("x", bytes(8), 77)]), "unknown type 77"),
    "the same key twice": (raw_header(entries=[ARCHITECTURE, ARCHITECTURE]), "'general.architecture' twice"),
    "text that is no text": (raw_header(entries=[entry("general.architecture", b"\xff\xfe")]), "not UTF-8"),
    "no architecture": (raw_header(entries=[entry("a", b"b")]), "general.architecture"),
    "more layers than tensors": (
        raw_header(entries=[ARCHITECTURE, entry("llama.block_count", 1_000_000_000)]),
        "announces 1000000000 layers",
    ),
    "alignment zero": (raw_header(entries=[ARCHITECTURE, entry("general.alignment", 0)]), "no power of two"),
    "alignment three": (raw_header(entries=[ARCHITECTURE, entry("general.alignment", 3)]), "no power of two"),
    "no tensor": (raw_header(tensors=[]), "holds no tensor"),
    "too many axes": (raw_header(tensors=[tensor("t", axes=1 << 31)]), "axes"),
    "no axis": (raw_header(tensors=[tensor("t", shape=())]), "0 axes"),
    "a shape without end": (raw_header(tensors=[tensor("t", (1 << 40, 1 << 40))]), "cannot have the shape"),
    "an empty tensor": (raw_header(tensors=[tensor("t", (0, 4))]), "cannot have the shape"),
    "half a block": (raw_header(tensors=[tensor("t", (33, 4), kind=8)]), "Q8_0 cannot have the shape"),
    "beyond the file": (raw_header(tensors=[tensor("t", offset=1 << 40)]), "is cut short or damaged"),
    "larger than the file": (raw_header(tensors=[tensor("t", (1 << 20, 1 << 20))]), "is cut short or damaged"),
    "not aligned": (raw_header(tensors=[tensor("t", offset=4)]), "is cut short or damaged"),
    "one on the other": (raw_header(tensors=[tensor("a"), tensor("b", offset=32)]), "overlaps its neighbour"),
    "the same name twice": (raw_header(tensors=[tensor("a"), tensor("a", offset=128)]), "two tensors 'a'"),
    "unknown quantisation": (raw_header(tensors=[tensor("t", kind=999)]), "the unknown type 999"),
    "removed quantisation": (raw_header(tensors=[tensor("t", kind=4)]), "the unknown type 4"),
    "numbers of 64 bits": (raw_header(tensors=[tensor("t", kind=28)]), "stored as F64"),
    "part by its entry": (raw_header(entries=[ARCHITECTURE, entry("split.count", 3)]), "split into several files"),
}


@pytest.mark.hostile("gguf")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_with_advice_and_costs_nothing(case: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    content, wanted = HOSTILE[case]
    path.write_bytes(content)
    read_gguf_header(write_gguf(tmp_path / "warm.gguf"))  # so that imports do not count
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_gguf_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert wanted in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert peak < 4 << 20


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in (0, 3, 4, 23, 24, 30, 100, 1000, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_gguf_header(path)


def test_every_flipped_byte_of_a_header_is_read_or_refused(tmp_path: Path) -> None:
    whole = raw_header(
        entries=[ARCHITECTURE, entry("x", array(8, 2, text(b"a") + text(b"bc")), ARRAY), entry("y", 7)],
        tensors=[tensor("a"), tensor("b", offset=128)],
    )
    path = tmp_path / "m.gguf"
    refused = 0
    for position in range(len(whole) - 4096):
        for bit in (0x01, 0x80):
            changed = bytearray(whole)
            changed[position] ^= bit
            path.write_bytes(changed)
            try:
                read_gguf_header(path)
            except CheckpointError:
                refused += 1
    assert refused > 200


def test_a_part_of_a_split_model_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "big-00001-of-00003.gguf"
    path.write_bytes(raw_header())
    with pytest.raises(CheckpointError, match="one part of a model") as caught:
        read_gguf_header(path)
    assert "--merge" in str(caught.value.remedy)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder"):
        read_gguf_header(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_gguf_header(tmp_path / "none.gguf")


@pytest.mark.parametrize("check", [extra.gguf_package, extra.transformers_package])
def test_a_missing_library_names_the_extra(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    assert callable(check)
    check()
    monkeypatch.setattr(extra, "import_module", missing)
    with pytest.raises(ResourceError) as caught:
        check()
    assert caught.value.remedy == "pip install 'polysafe[gguf]'"
