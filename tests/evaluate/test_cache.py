from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polysafe.errors import DataError, OutputError, ResourceError
from polysafe.evaluate import cache as module
from polysafe.evaluate.cache import FILE, SCHEMA, Cache
from polysafe.evaluate.keys import Key, completion_key, content_hash
from polysafe.generate.completion import Ask, Sampling
from tests.evaluate.fakes import IDENTITY

HOSTILE = ["", "\x00", "\udfff x \ud800", "a\nb\u2028c\r", "\x1b[31m", "x" * 1_000_000, "'; DROP TABLE entries; --"]


def key(number: int, owner: str = "model") -> Key:
    return Key("completion", owner, f"{number:04d}")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "folder" / "cache.sqlite") as made:
        yield made


def test_what_was_put_is_there_when_opened_again(cache: Cache) -> None:
    assert cache.get(key(1)) is None
    for number, text in enumerate(HOSTILE):
        cache.put(key(number), {"text": text, "tokens": None})
    cache.close()
    with Cache(cache.path) as again:
        assert [again.get(key(number))["text"] for number in range(len(HOSTILE))] == HOSTILE  # type: ignore[index]
        assert len(again) == len(HOSTILE)


def test_the_first_value_stays(cache: Cache) -> None:
    cache.put(key(1), "first")
    cache.put(key(1), "second")
    assert cache.get(key(1)) == "first"


def test_kind_owner_and_item_are_all_part_of_the_key(cache: Cache) -> None:
    cache.put(Key("completion", "a", "b"), 1)
    for other in (Key("verdict", "a", "b"), Key("completion", "b", "b"), Key("completion", "a", "a")):
        assert cache.get(other) is None


CHANGES: dict[str, Any] = {
    "weights": "a" * 63 + "b",
    "tokenizer": "c" * 64,
    "template": "raw",
    "engine": "server",
    "dtype": "bfloat16",
} | {
    f"sampling.{name}": Sampling().model_dump() | {name: value}
    for name, value in {"max_tokens": 255, "temperature": 0.1, "top_p": 0.5, "seed": 1}.items()
}


@pytest.mark.fault(19, "every field of the identity")
@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_the_identity_misses_when_it_changes(cache: Cache, field: str) -> None:
    ask = Ask("trial/0/en", "text")
    cache.put(completion_key(content_hash(IDENTITY), ask), "answer")
    changed = IDENTITY | {field.split(".", maxsplit=1)[0]: CHANGES[field]}
    assert cache.get(completion_key(content_hash(changed), ask)) is None
    assert cache.get(completion_key(content_hash(dict(IDENTITY)), ask)) == "answer"


def test_default_place_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path))
    with Cache() as made:
        made.put(key(1), 1)
    assert (tmp_path / FILE).is_file()


def _write(path: Path, worker: int, count: int) -> None:
    with Cache(path) as own:
        for number in range(count):
            own.put(key(number, f"worker {worker}"), number)
            own.put(key(number, "shared"), "the same")


@pytest.mark.fault(13, "processes that share")
@pytest.mark.fault(19, "concurrent writers")
def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, worker, 60)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    with Cache(path) as made:
        assert len(made) == 5 * 60
        assert all(made.get(key(n, f"worker {w}")) == n for w in range(4) for n in range(60))


@pytest.mark.fault(19, "concurrent writers")
def test_threads_write_at_the_same_time(cache: Cache) -> None:
    def write(worker: int) -> None:
        for number in range(100):
            cache.put(key(number, str(worker)), number)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 400


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_opens_it_anew(cache: Cache) -> None:
    cache.put(key(1), "parent")
    child = os.fork()
    if child == 0:
        try:
            cache.put(key(2), "child")
            os._exit(0 if cache.get(key(1)) == "parent" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get(key(2)) == "child"


@pytest.mark.fault(19, "an older schema")
@pytest.mark.hostile("record")
@pytest.mark.parametrize("version", [SCHEMA - 1, SCHEMA + 1])
def test_another_schema_is_refused_with_the_remedy(cache: Cache, version: int) -> None:
    cache.put(key(1), 1)
    cache.close()
    connection = sqlite3.connect(cache.path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(DataError, match=rf"has schema {version}, this polysafe reads schema {SCHEMA}") as caught:
        cache.get(key(1))
    assert "delete it" in str(caught.value)
    assert ("update polysafe" in str(caught.value)) == (version > SCHEMA)


@pytest.mark.hostile("record")
def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match="another program"):
        Cache(path).put(key(1), 1)
    assert path.read_bytes() == before


@pytest.mark.hostile("record")
@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + bytes(5000)])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged") as caught:
        Cache(path).get(key(1))
    assert str(path) in str(caught.value)
    assert "delete it" in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.hostile("record")
def test_a_damaged_database_is_refused(cache: Cache) -> None:
    for number in range(200):
        cache.put(key(number), "x" * 500)
    cache.close()
    content = bytearray(cache.path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    cache.path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        [cache.get(key(number)) for number in range(200)]


@pytest.mark.hostile("record")
def test_a_value_that_is_no_json_is_refused(cache: Cache) -> None:
    cache.put(key(1), 1)
    with cache._use() as connection:
        connection.execute("UPDATE entries SET value = '{'")
    with pytest.raises(DataError, match="damaged"):
        cache.get(key(1))


def test_a_busy_file_is_told_from_a_damaged_one(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    cache.put(key(1), 1)
    cache.close()
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ResourceError, match="busy"):
        cache.put(key(2), 2)
    assert cache.get(key(1)) == 1  # readers do not wait for writers
    other.execute("ROLLBACK")
    other.close()
    cache.put(key(2), 2)


def test_a_full_disk_is_said(cache: Cache) -> None:
    cache.put(key(1), 1)
    with cache._use() as connection:
        connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(ResourceError, match="disk is full"):
        cache.put(key(2), "x" * 100_000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError):
        Cache(tmp_path / "cache.sqlite").get(key(1))


def test_a_place_that_is_a_folder_or_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "cache.sqlite"):
        with pytest.raises(OutputError):
            Cache(path).get(key(1))


@pytest.mark.fault(19, "damaged values")
@pytest.mark.hostile("record")
@pytest.mark.parametrize("text", ["", "{", "NaN x", "[" * 100_000, b"\xff\x00"])
def test_a_damaged_value_is_told_with_what_to_do(cache: Cache, text: str | bytes) -> None:
    cache.put(key(1), "fine")
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE entries SET value = ?", (text,))
    connection.close()
    with pytest.raises(DataError, match="the cache is damaged") as caught:
        cache.get(key(1))
    assert "delete it" in str(caught.value)
