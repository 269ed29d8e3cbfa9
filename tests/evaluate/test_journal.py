from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from polysafe.errors import OutputError
from polysafe.evaluate.journal import Journal, Layers
from polysafe.evaluate.keys import Key

ANSWERS = ["", "\x00\n", "\udc80", "x" * 100_000, {"text": "a"}]


def key(number: int) -> Key:
    return Key("completion", "owner", str(number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "journal.jsonl"
    with Journal(made) as journal:
        for number, answer in enumerate(ANSWERS):
            journal.put(key(number), answer)
    return made


def test_results_come_back(path: Path) -> None:
    with Journal(path) as journal:
        assert [journal.get(key(number)) for number in range(len(ANSWERS))] == ANSWERS
        assert journal.get(key(99)) is None
        assert journal.get(Key("verdict", "owner", "0")) is None


def test_every_result_is_in_the_file_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for number in range(5):
            journal.put(key(number), number)
            assert (tmp_path / "j").read_bytes().count(b"\n") == number + 1
        journal.put(key(0), "again")
        assert (tmp_path / "j").read_bytes().count(b"\n") == 5


@pytest.mark.fault(19, "half-written lines")
def test_cut_at_every_byte_it_keeps_all_whole_lines(path: Path) -> None:
    content = path.read_bytes()
    lines = content.split(b"\n")[:-1]
    ends = [sum(len(line) + 1 for line in lines[: count + 1]) for count in range(len(lines))]
    for cut in [*range(200), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])]:
        path.write_bytes(content[:cut])
        with Journal(path) as journal:
            assert len(journal) == sum(end <= cut for end in ends)
            journal.put(key(99), "next")
        with Journal(path) as again:
            assert again.get(key(99)) == "next"
            assert len(again) == len(journal)


@pytest.mark.fault(19, "damaged values")
@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 40,
        b"{}",
        b'["completion", "o"]',
        b"[1, [], {}, 2]",
        b"\xff\xfe",
        b"null",
        b"7",
        b"[" * 100_000,
        b'[[], "o", "i", 1]',
    ],
)
def test_a_line_that_a_power_cut_spoilt_is_passed_over(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n" + path.read_bytes())
    with Journal(path) as journal:
        assert journal.get(key(0)) == ANSWERS[0]
        assert journal.get(key(len(ANSWERS) - 1)) == ANSWERS[-1]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        Journal(tmp_path)


def test_layers_ask_the_nearest_first_and_teach_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "near") as near, Journal(tmp_path / "far") as far:
        layers = Layers(near, far)
        far.put(key(1), "far")
        assert layers.get(key(1)) == "far"
        assert near.get(key(1)) == "far"
        layers.put(key(2), "both")
        assert near.get(key(2)) == far.get(key(2)) == "both"
        near.put(key(3), "near")
        assert layers.get(key(3)) == "near"
        assert far.get(key(3)) is None
        assert layers.get(key(4)) is None


@pytest.mark.fault(19, "damaged values")
@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    "change", [lambda line: b" " * len(line), lambda line: line.replace(b'"1"', b'"2"'), lambda _: b""]
)
def test_a_journal_that_another_program_changes_meanwhile_is_not_believed(
    path: Path, change: Callable[[bytes], bytes]
) -> None:
    with Journal(path) as journal:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[1] = change(lines[1])
        path.write_bytes(b"".join(lines[:2]))
        assert journal.get(key(0)) == ANSWERS[0]
        with pytest.raises(OutputError, match="changed by another program"):
            journal.get(key(1))
