"""The hub as it is without a network: what the cache holds, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from polysafe.checkpoint import hub
from polysafe.checkpoint.hub import hub_snapshot
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from tests.checkpoint.test_source import hub_layout
from tests.models import tiny_llama

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cached(cache: Path, tmp_path: Path) -> Path:
    snapshot = hub_layout(cache, tiny_llama(tmp_path / "m", shards=2))
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_a_cached_model_needs_no_network(cached: Path) -> None:
    folder = hub_snapshot("org/name", COMMIT)
    assert folder == cached
    assert open_checkpoint(folder, origin=f"org/name@{COMMIT}").origin == f"org/name@{COMMIT}"


@pytest.mark.fault(26, "a revision is a commit")
@pytest.mark.hostile("recipe")
@pytest.mark.parametrize("revision", ["main", "v1.0", "", "0" * 39, "0" * 41, "G" * 40, "0" * 40 + "\n", "refs/pr/1"])
def test_only_a_commit_pins_a_model(revision: str, cached: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a commit") as caught:
        hub_snapshot("org/name", revision)
    assert "40-digit commit" in str(caught.value.remedy)


@pytest.mark.parametrize(("name", "revision"), [("org/name", "1" * 40), ("org/other", COMMIT)])
def test_what_is_not_cached_cannot_be_had_offline(name: str, revision: str, cached: Path) -> None:
    with pytest.raises(CheckpointError, match=f"cannot be fetched at {revision}") as caught:
        hub_snapshot(name, revision)
    assert caught.value.where == name
    assert "`path:`" in str(caught.value.remedy)


@pytest.mark.parametrize("lost", ["model-00002-of-00002.safetensors", "config.json", "model.safetensors.index.json"])
def test_a_model_of_which_only_a_part_is_cached(lost: str, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a program that needed the tokenizer only: the rest is asked for, and its absence is named."""
    (cached / lost).unlink()
    with pytest.raises(CheckpointError, match=r"is missing|holds neither"):
        open_checkpoint(hub_snapshot("org/name", COMMIT))
    monkeypatch.setattr(hub, "_download", Path)
    assert hub_snapshot("org/name", COMMIT) == Path("org/name", COMMIT)


def test_a_cached_model_is_not_asked_for(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("asked"))
    assert hub_snapshot("org/name", COMMIT) == cached


@pytest.mark.hostile("recipe")
@pytest.mark.parametrize("name", ["../../etc", "org/na--me", "a/b/c", "org/name ", "-x/y"])
def test_names_that_are_none(name: str, cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        hub_snapshot(name, COMMIT)
    assert caught.value.where == name
