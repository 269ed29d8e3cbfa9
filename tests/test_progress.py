"""What work tells, to whom, and from which thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from polysafe.progress import Meter, counted, during, reporting, tell

Told = list[tuple[str, int, int]]


def test_work_tells_whoever_listens_and_nobody_where_nobody_does() -> None:
    told: Told = []

    def work() -> None:
        advance = counted("answers", 3, 1)
        advance()
        advance(5)

    work()
    with reporting(lambda *step: told.append(step)):
        work()
    work()
    assert told == [("answers", 1, 3), ("answers", 2, 3), ("answers", 3, 3)]


def test_stages_say_what_they_are_part_of() -> None:
    told: Told = []
    with reporting(lambda *step: told.append(step)):
        with during("trial 3 of 12: layer 11"), during("sw"):
            counted("answers", 1)
        tell("deciding", 1, 2)
    assert told == [("trial 3 of 12: layer 11, sw, answers", 0, 1), ("deciding", 1, 2)]


def test_who_is_named_hears_it_and_the_default_leaves_who_listens() -> None:
    outer: Told = []
    inner: Told = []
    with reporting(lambda *step: outer.append(step)):
        with reporting(tell):
            tell("a", 0, 1)
        with reporting(lambda *step: inner.append(step)):
            tell("b", 0, 1)
        tell("c", 0, 1)
    assert [stage for stage, *_ in outer] == ["a", "c"]
    assert [stage for stage, *_ in inner] == ["b"]


def test_after_a_failure_the_one_before_listens_again() -> None:
    told: Told = []
    with reporting(lambda *step: told.append(step)):
        with pytest.raises(ValueError, match="x"), reporting(lambda *_: None), during("y"):
            raise ValueError("x")
        tell("a", 0, 1)
    assert told == [("a", 0, 1)]


def test_threads_of_a_pool_tell_through_a_meter_and_lose_no_count() -> None:
    told: Told = []
    with reporting(lambda *step: told.append(step)), ThreadPoolExecutor(8) as pool:
        advance = counted("blocks", 2000)
        list(pool.map(lambda _: advance(), range(2000)))
        pool.submit(tell, "nobody listens in a thread of its own", 0, 1).result()
    assert told == [("blocks", done, 2000) for done in range(2001)]


def test_a_meter_ends_at_its_total_however_much_there_was() -> None:
    told: Told = []
    meter = Meter(lambda *step: told.append(step), "reading", 10)
    meter(4)
    meter.finish()
    assert told == [("reading", 0, 10), ("reading", 4, 10), ("reading", 10, 10)]
