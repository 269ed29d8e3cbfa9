"""Snapshots of data sets on the hub: which commit is asked for, and which of their files hold what."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from polysafe.data.hub import data_files, find_data_files, hub_data
from polysafe.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def snapshot(folder: Path, *names: str, card: str = "") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a\n1\n")
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def names(folder: Path, config: str | None = None, split: str | None = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in data_files(folder, config=config, split=split)]


def test_a_data_set_is_fetched_at_its_commit_and_only_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def fetch(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return "folder"

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert hub_data("org/set", COMMIT) == Path("folder")
    assert (asked["repository"], asked["repo_type"], asked["revision"]) == ("org/set", "dataset", COMMIT)
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert "README.md" in patterns
    assert not [pattern for pattern in patterns if pattern.endswith((".py", "*"))]


@pytest.mark.parametrize(
    ("revision", "problem"), [(None, "needs a commit"), ("main", "'main' is no commit"), (COMMIT[:12], "is no commit")]
)
def test_a_branch_is_no_pin(revision: str | None, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        hub_data("org/set", revision)
    assert "Files and versions" in str(caught.value.remedy)


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("not in the cache"), OSError("no connection")])
def test_what_cannot_be_fetched_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fetch(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(DataError, match=f"cannot be fetched at {COMMIT}") as caught:
        hub_data("org/set", COMMIT)
    assert "name the folder" in str(caught.value.remedy)


def test_words_of_paths_tell_configuration_and_split(tmp_path: Path) -> None:
    folder = snapshot(
        tmp_path, "sw/train.csv", "sw/evaluation-test.csv", "th/test-00000.parquet", ".cache/sw/test.csv", "notes.txt"
    )
    assert names(folder, "sw", "test") == ["sw/evaluation-test.csv"]
    assert names(folder, "th") == ["th/test-00000.parquet"]
    assert names(folder, split="train") == ["sw/train.csv"]
    assert len(names(folder)) == 3


def test_a_word_within_a_word_names_no_split(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "evaluation.csv", "other.csv")
    assert names(folder, split="val") == ["evaluation.csv", "other.csv"]  # nothing names a split: all belong to each
    snapshot(tmp_path, "test.csv")
    with pytest.raises(DataError, match="has no table of split 'val'"):
        names(folder, split="val")


def test_the_card_decides_where_it_lists_files(tmp_path: Path) -> None:
    card = """\
---
configs:
- config_name: sw
  data_files:
  - split: test
    path: [data/a.csv, "data/b*.csv"]
  - split: train
    path: data/c.csv
- config_name: th
  data_files: data/sw.csv
- nonsense
---
Text.
"""
    folder = snapshot(tmp_path, "data/a.csv", "data/b1.csv", "data/c.csv", "data/sw.csv", card=card)
    assert names(folder, "sw", "test") == ["data/a.csv", "data/b1.csv"]
    assert names(folder, "sw") == ["data/a.csv", "data/b1.csv", "data/c.csv"]
    assert names(folder, "th") == ["data/sw.csv"]
    with pytest.raises(DataError, match="has no table of config 'th' split 'test'"):  # the hub takes it for `train`
        names(folder, "th", "test")


@pytest.mark.hostile("table")
@pytest.mark.parametrize("path", ["/etc/*.csv", "../*.csv", "data/../../*.csv", "''"])
def test_a_card_cannot_lead_out_of_its_snapshot(path: str, tmp_path: Path) -> None:
    snapshot(tmp_path, "secret.csv")
    folder = snapshot(tmp_path / "set", "inside.csv", card=f"---\nconfigs:\n- data_files: {path}\n---\n")
    assert names(folder) == ["inside.csv"]


@pytest.mark.hostile("table")
@pytest.mark.parametrize("card", ["no head", "---\n- a list\n---\n", "---\na: [\n---\n", "text\n---\na: 1\n---\n"])
def test_a_card_that_cannot_be_read_lists_nothing(card: str, tmp_path: Path) -> None:
    assert names(snapshot(tmp_path, "a.csv", card=card)) == ["a.csv"]


def test_a_card_that_lists_what_is_not_there_lists_nothing(tmp_path: Path) -> None:
    card = "---\nconfigs:\n- data_files: absent.csv\n---\n"
    assert names(snapshot(tmp_path, "a.csv", card=card)) == ["a.csv"]


def test_metadata_of_the_hub_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no table of any kind") as caught:
        names(snapshot(tmp_path, "dataset_infos.json", "state.json"))
    assert caught.value.remedy == "tables: none"


def test_what_is_missing_is_named_beside_what_is_there(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, *(f"sw-{number}.csv" for number in range(9)))
    with pytest.raises(DataError, match="has no table of config 'th' split 'test'") as caught:
        names(folder, "th", "test")
    assert str(caught.value.remedy).startswith("tables: sw-0.csv, ")
    assert str(caught.value.remedy).endswith(" …")
    assert find_data_files(folder, ["th", None], None).keys() == {None}
