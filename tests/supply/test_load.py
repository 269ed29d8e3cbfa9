"""Small versions of `benchmarks.speed.load`: nothing is lost or doubled, however often the process is killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from benchmarks.speed import load, report
from benchmarks.speed.load import ask, read_rows, text_of, write_rows
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.journal import Journal
from polysafe.evaluate.keys import Key
from polysafe.evaluate.model_run import ModelRun
from polysafe.findings.runs import comparison_report
from polysafe.report.html import render
from tests.commands import begun, polysafe


class Forked:
    """What the benchmark does with `subprocess.Popen`, with a process that has imported what takes long."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        (_, *program), words = command[:3], command[3:]
        assert program == ["-m", "polysafe"]
        self._life = ExitStack()
        said = Path(stdout.name)
        self._process = self._life.enter_context(begun(polysafe, *words, said=said, environment=env))
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        with self._life:
            self._process.join()
            return self._process.exitcode


def test_prompts_of_a_server_that_fails_and_a_process_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "subprocess", SimpleNamespace(Popen=Forked))
    found = ask(tmp_path, 400)
    assert found.kills == 3
    assert found.failed == found.calls // 10
    assert (found.lost, found.doubled) == (0, 0)
    assert found.again <= found.kills * 8  # as many as are on their way


def test_many_rows_are_read_once_each_in_their_order(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "mine_en.csv", 20_000)
    assert read_rows(table) == 20_000
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines[:7], *lines[8:], lines[7]]))
    assert read_rows(table) == 0, "an order that is another has to be seen"
    assert text_of(7) != text_of(8)


def test_a_report_of_a_hundred_languages(tmp_path: Path) -> None:
    codes = report.LANGUAGES[:100]
    assert len(set(codes)) == 100
    assert report.write_runs(tmp_path, 100, 2, 3) == 2 * 100 * 2 * 3
    before, after = (ModelRun.load(tmp_path / name) for name in ("before", "after"))
    assert len(before.records) == len({record.prompt.id for record in before.records}) == 600
    assert before.languages == codes
    data = comparison_report([compare_runs(before, after, "layer_swap.module")])
    assert {row.language for row in data.rows} >= set(codes)
    page = render(data)
    assert all(f"({code})" in page or f">{code}<" in page for code in codes)


def test_a_journal_keeps_places_and_not_answers(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for number in range(50):
            journal.put(Key("completion", "o", str(number)), "x" * 10_000)
        kept = list(journal._places.items())
        assert len(kept) == 50
        assert all(len(name) == 16 and isinstance(place, int) for name, place in kept)
        assert journal.get(Key("completion", "o", "49")) == "x" * 10_000
