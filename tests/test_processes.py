"""Work in other processes: results, failures, and that nobody stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polysafe.errors import DataError, PolysafeError, ResourceError
from polysafe.processes import Workers, usable_cores
from polysafe.threads import share, threads


def square(number: int) -> int:
    return number * number


def place() -> int:
    return os.getpid()


def fail() -> None:
    raise DataError("is broken", where="here", remedy="mend it")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait() -> None:
    time.sleep(600)


def used_threads() -> int:
    import torch

    return torch.get_num_threads()


def tensor(size: int) -> object:
    import torch

    return torch.arange(size)


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_any_order_and_are_counted_once(count: int) -> None:
    told: list[int] = []
    with Workers(count, told.append) as workers:
        tasks = [workers.submit(square, number) for number in range(6)]
        assert [workers.result(task) for task in reversed(tasks)] == [25, 16, 9, 4, 1, 0]
        assert workers.result(tasks[0]) == 0
        where = workers.result(workers.submit(place))
    assert (where == os.getpid()) == (count == 1)
    assert told == sorted(set(told))
    assert told[-1] == 7
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("count", [1, 2])
def test_each_process_uses_the_threads_that_it_was_given(count: int) -> None:
    with Workers(2, threads=count) as workers:
        assert workers.result(workers.submit(used_threads)) == min(count, os.cpu_count() or 1)


def test_processes_that_compute_at_once_share_the_threads() -> None:
    with threads(5):
        assert [share(processes) for processes in (1, 2, 3, 6)] == [5, 2, 1, 1]


def test_a_tensor_comes_back_whole() -> None:
    with Workers(2) as workers:
        found = workers.result(workers.submit(tensor, 5))
    assert getattr(found, "tolist")() == [0, 1, 2, 3, 4]  # noqa: B009 (its type is not known here)


@pytest.mark.parametrize("count", [1, 2])
def test_a_failure_keeps_its_words(count: int) -> None:
    with pytest.raises(DataError) as failure, Workers(count) as workers:
        workers.result(workers.submit(fail))
    assert (failure.value.problem, failure.value.where, failure.value.remedy) == ("is broken", "here", "mend it")


def test_a_failure_ends_the_others() -> None:
    def work() -> None:
        with Workers(2) as workers:
            slow = workers.submit(wait)
            workers.submit(fail)
            workers.result(slow)

    with pytest.raises(DataError):
        work()
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(ResourceError, match="ended before it was done"), Workers(2) as workers:
        workers.result(workers.submit(die))
    assert issubclass(ResourceError, PolysafeError)
    assert multiprocessing.active_children() == []


PROGRAM = """
import os, sys, time
from polysafe.processes import Workers
from tests.test_processes import place, wait
if __name__ == "__main__":
    with Workers(2) as workers:
        print(workers.result(workers.submit(place)), flush=True)
        workers.result(workers.submit(wait))
"""


@pytest.mark.fault(16, "nobody stays behind")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nobody_stays_behind(tmp_path: Path, sent: signal.Signals) -> None:
    """Interrupted from the keyboard, when every process of the group is signalled, or killed."""
    file = tmp_path / "program.py"
    file.write_text("import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + PROGRAM)
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) != process.pid
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, err = process.communicate(timeout=120)  # ends when nobody holds its pipes any more
    assert err.count("Traceback") == (1 if sent is signal.SIGINT else 0)


def test_at_least_one_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
