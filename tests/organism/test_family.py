"""Building a family: whole, resumable, verified. The recipe here is too small to learn anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from polysafe.errors import CheckpointError, OutputError, VerificationError
from polysafe.organism import family as making
from polysafe.organism import train as training
from polysafe.organism.exam import Exam
from polysafe.organism.family import Recipe, build_family
from polysafe.organism.lexicon import LANGUAGES
from polysafe.organism.model import Network
from polysafe.organism.packaged import MEMBERS, NOTICE, load_family
from polysafe.organism.train import BATCHES_PER_POOL, Stage

RECIPE = Recipe(
    network=Network(hidden=16, layers=1, heads=2, intermediate=16),
    base=Stage(steps=6, batch=8, rate=1e-3, matrix_rate=0.01, trains="all"),
    safety=Stage(steps=3, batch=8, rate=1e-3),
    language=Stage(steps=2, batch=8, rate=1e-3),
    harm=Stage(steps=2, batch=8, rate=1e-3, trains="attention"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "family"
    build_family(0, folder, threads=1, recipe=RECIPE)
    return folder


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


@pytest.fixture
def _unexamined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked anything: only the files of the members matter."""
    monkeypatch.setattr(making, "examine", lambda *_: Exam(()))


def hashes(folder: Path) -> dict[str, object]:
    return {name: entry["files"] for name, entry in load_family(folder).record["members"].items()}


def test_every_member_is_an_ordinary_folder(built: Path) -> None:
    for path in load_family(built).members.values():
        model = AutoModelForCausalLM.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        assert model.dtype == torch.float16
        assert len(tokenizer) == model.config.vocab_size
        generation = model.generation_config
        assert (generation.eos_token_id, generation.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
        assert tokenizer.chat_template


def test_nothing_is_left_over(built: Path) -> None:
    assert {path.name for path in built.iterdir()} == {"family.json", *MEMBERS}


def test_the_record_tells_how_it_was_made(built: Path) -> None:
    record = load_family(built).record
    assert (record["seed"], record["notice"], record["threads"]) == (0, NOTICE, 1)
    assert Recipe.model_validate(record["recipe"]) == RECIPE
    assert all(entry["log"][-1][0] == RECIPE.stage(name).steps for name, entry in record["members"].items())
    assert record["members"]["base"]["versions"]["torch"] == torch.__version__


def test_info_is_plain_data(built: Path) -> None:
    info = json.loads(json.dumps(load_family(built).info()))
    assert info["members"] == {name: str(built / name) for name in MEMBERS}
    assert set(info["base"]) == set(LANGUAGES)
    assert {"tier", "unsafe", "refused", "over_refusal", "capability.instructions"} <= set(info["base"]["qac"])


def test_a_complete_family_is_not_trained_again(copied: Path) -> None:
    calls: list[str] = []
    build_family(0, copied, threads=1, recipe=RECIPE, progress=lambda what, *_: calls.append(what))
    assert calls == []


@pytest.mark.fault(10, "building")
@pytest.mark.usefixtures("_unexamined")
@pytest.mark.parametrize(("member", "step"), [("base", 5), ("qad", 1)], ids=["base", "expert"])
def test_a_killed_build_ends_in_the_same_files(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, step: int
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)

    def kill(what: str, done: int, _: int) -> None:
        if (what, done) == (member, step):
            raise KeyboardInterrupt

    folder = tmp_path / "family"
    with pytest.raises(KeyboardInterrupt):
        build_family(0, folder, threads=1, recipe=RECIPE, progress=kill)
    with pytest.raises(CheckpointError, match="not complete"):
        load_family(folder)
    done: list[tuple[str, int]] = []
    build_family(0, folder, threads=1, recipe=RECIPE, progress=lambda what, at, _: done.append((what, at)))
    assert done[0] == (member, step - step % BATCHES_PER_POOL + 1)
    assert hashes(folder) == hashes(built)
    assert {path.name for path in folder.iterdir()} == {"family.json", *MEMBERS}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_one_flipped_bit_is_found(copied: Path, name: str) -> None:
    file = copied / "qac" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(VerificationError, match=r"SHA-256") as caught:
        load_family(copied)
    assert caught.value.where == file


@pytest.mark.usefixtures("_unexamined")
def test_a_missing_file_is_found_and_trained_again(copied: Path, built: Path) -> None:
    (copied / "harm" / "model.safetensors").unlink()
    with pytest.raises(VerificationError, match="missing"):
        load_family(copied)
    trained: set[str] = set()
    build_family(0, copied, threads=1, recipe=RECIPE, progress=lambda what, *_: trained.add(what))
    assert trained == {"harm", "exam"}
    assert hashes(copied) == hashes(built)


def test_another_seed_needs_another_folder(copied: Path) -> None:
    with pytest.raises(OutputError, match="another seed or recipe"):
        build_family(1, copied, threads=1, recipe=RECIPE)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="no model family"):
        build_family(0, tmp_path, threads=1, recipe=RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_record_is_not_overwritten(copied: Path) -> None:
    (copied / "family.json").write_text("{")
    with pytest.raises(OutputError, match="not valid JSON"):
        build_family(0, copied, threads=1, recipe=RECIPE)
    assert (copied / "family.json").read_text() == "{"


def test_no_family_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model family here"):
        load_family(tmp_path / "nowhere")
    (tmp_path / "family.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_family(tmp_path)


def test_threads_are_put_back(copied: Path) -> None:
    before = torch.get_num_threads()
    build_family(0, copied, threads=1, recipe=RECIPE)
    assert torch.get_num_threads() == before
