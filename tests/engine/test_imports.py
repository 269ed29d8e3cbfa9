from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from polysafe.card.store import load_card
from polysafe.checkpoint import writer
from polysafe.checkpoint.gguf.find import GgufFile, find_gguf
from polysafe.checkpoint.gguf.quick import quick_reader
from polysafe.checkpoint.imported import FILE, imported_bytes, read_imported
from polysafe.checkpoint.licence import licence_of
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.verify import verify_output
from polysafe.engine import imports
from polysafe.engine.imports import ImportResult, import_gguf, imported_folder
from polysafe.engine.plan import make_plan
from polysafe.errors import ArchitectureError, CheckpointError, OutputError, RecipeError, ResourceError
from polysafe.files.memory import cache_directory
from polysafe.recipe.places import portable
from polysafe.recipe.recipe import Recipe, SourceRef, make_recipe
from polysafe.workflows.run import run_recipe
from tests.checkpoint.faults import KilledError, disk_full, failing
from tests.checkpoint.raw import snapshot
from tests.gguf_files import needs_gguf, write_gguf
from tests.real_models import GEMMA, SMOLLM2, imported, needs

pytestmark = needs_gguf()

SENTENCE = "the weights were quantised (Q4_1) before; dequantised from"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", type="Q4_1", metadata={"general.license": "apache-2.0"})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_imported_folder_is_an_ordinary_checkpoint(file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    result = import_gguf(file, tmp_path / "out", shard_size=60_000)
    assert verify_output(result.output).ok
    checkpoint = open_checkpoint(result.output)
    check_editable(checkpoint)
    assert classify(checkpoint).num_layers == 2
    assert len(checkpoint.files) > 1
    assert {spec.dtype for spec in checkpoint.tensors.values()} == {"BF16"}
    assert checkpoint.notes == (f"{SENTENCE} tiny.gguf",)
    assert licence_of(result.output).id == "apache-2.0"
    exact = import_gguf(file, tmp_path / "exact", dtype="F32").output
    ours = AutoModelForCausalLM.from_pretrained(exact, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ids = torch.arange(1, 60)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    assert names_in(tmp_path) == ["exact", "out", "tiny.gguf"]


def test_the_record_says_what_it_was(file: Path, tmp_path: Path) -> None:
    result = import_gguf(file, tmp_path / "out", dtype="F32")
    (record,) = read_imported(result.output)
    assert record == result.record
    assert (record.file, record.size, record.dtype) == ("tiny.gguf", file.stat().st_size, "F32")
    assert record.types == {"Q4_1": 16, "F32": 5}
    assert set(record.libraries) == {"gguf", "transformers"}
    card = (result.output / "README.md").read_text()
    assert "quantised before (Q4_1)" in card
    assert str(tmp_path) not in card + (result.output / FILE).read_text()


def test_an_import_is_the_same_to_the_byte(file: Path, tmp_path: Path) -> None:
    files = [snapshot(import_gguf(file, tmp_path / name).output) for name in ("a", "b")]
    assert files[0] == files[1]


def test_an_output_that_exists_is_refused(file: Path, tmp_path: Path) -> None:
    import_gguf(file, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(OutputError, match="already holds a finished output") as caught:
        import_gguf(file, tmp_path / "out")
    assert "another output" in str(caught.value.remedy)
    with pytest.raises(OutputError, match="polysafe did not write"):
        import_gguf(file, tmp_path)
    assert snapshot(tmp_path / "out") == before


def test_a_type_that_is_none(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no type 'INT8'"):
        import_gguf(file, tmp_path / "out", dtype="INT8")


@pytest.mark.parametrize("without", ["tokenizer", "tensor", "architecture"])
def test_a_refusal_leaves_nothing_behind(without: str, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf",
        tokenizer=without != "tokenizer",
        without=("output_norm",) if without == "tensor" else (),
    )
    if without == "architecture":
        path.write_bytes(path.read_bytes().replace(b"llama", b"lloma"))
    with pytest.raises((CheckpointError, ArchitectureError)):
        import_gguf(path, tmp_path / "out")
    assert names_in(tmp_path) == ["m.gguf"]


def test_a_disk_that_is_too_small_is_told_before(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = psutil.disk_usage(str(tmp_path))
    monkeypatch.setattr(psutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ResourceError, match="1,000 free"):
        import_gguf(file, tmp_path / "out")
    assert names_in(tmp_path) == ["tiny.gguf"]


def test_a_full_disk_is_resumed(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = snapshot(import_gguf(file, tmp_path / "wanted").output)
    monkeypatch.setattr(writer, "SYNC_BYTES", 1)
    with failing(None, KilledError) as counter:
        import_gguf(file, tmp_path / "counted")
    for point in range(3, counter.calls, max(1, counter.calls // 6)):
        for error in (disk_full, KilledError):
            target = tmp_path / f"{point}-{error.__name__}"
            with failing(point, error), pytest.raises((OutputError, KilledError)):
                import_gguf(file, target)
            assert not target.exists()
            result = import_gguf(file, target)
            assert snapshot(result.output) == wanted


def test_small_files_are_not_made_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polysafe.checkpoint.gguf.convert import Conversion

    monkeypatch.setattr(writer, "SYNC_BYTES", 1)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "writing" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_gguf(file, tmp_path / "out", progress=stop)
    monkeypatch.setattr(Conversion, "side_files", lambda _: pytest.fail("made again"))
    first = []
    result = import_gguf(
        file, tmp_path / "out", progress=lambda stage, done, _: first.append(done) if stage == "writing" else None
    )
    assert result.resumed
    assert first[1] > 0
    assert verify_output(result.output).ok


def test_a_file_that_changes_meanwhile_is_refused(file: Path, tmp_path: Path) -> None:
    def touch(stage: str, done: int, total: int) -> None:
        if stage == "writing" and done == total:
            os.utime(file)

    with pytest.raises(CheckpointError, match="changed while it was being read"):
        import_gguf(file, tmp_path / "out", progress=touch)
    assert not (tmp_path / "out").exists()


def test_pieces_are_joined_and_terms_copied(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    for number in range(3):
        (tmp_path / f"p{number}").write_bytes(content[number * len(content) // 3 : (number + 1) * len(content) // 3])
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "LICENSE").write_text(text)
    found = GgufFile(
        "tiny.gguf",
        tuple(tmp_path / f"p{number}" for number in range(3)),
        "pack",
        "1.2",
        terms=(tmp_path / "a" / "LICENSE", tmp_path / "b" / "LICENSE"),
    )
    monkeypatch.setattr(imports, "find_gguf", lambda _: found)
    result = import_gguf("package:pack", tmp_path / "out")
    assert result.record.terms == ("LICENSE", "NOTICE-b-LICENSE")
    assert (result.output / "NOTICE-b-LICENSE").read_text() == "two"
    assert result.record.origin == "tiny.gguf of the package pack 1.2"
    monkeypatch.undo()
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    alone = import_gguf(file, tmp_path / "alone")
    assert load_file(result.output / "model.safetensors").keys() == load_file(alone.output / "model.safetensors").keys()
    assert (result.output / "model.safetensors").read_bytes() == (alone.output / "model.safetensors").read_bytes()
    assert result.record.sha256 == alone.record.sha256


def recipe(tmp_path: Path, file: Path) -> Recipe:
    other = write_gguf(tmp_path / "other.gguf", seed=1)
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {"base": {"gguf": str(file)}, "sw": {"gguf": "./other.gguf"}},
            "edits": [{"method": "soup", "weights": {"base": 0.5, "sw": 0.5}}],
            "output": {"path": "./out"},
        },
        folder=other.parent,
    )


def test_a_recipe_names_a_file_and_it_is_imported_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = []
    plan = make_plan(recipe(tmp_path, file), lambda stage, *_: stages.append(stage))
    assert {"tokenizer", "writing"} <= set(stages)
    assert f"base: {SENTENCE} tiny.gguf" in plan.notes
    assert "sw: the weights were converted from other.gguf (F32)" in plan.notes
    monkeypatch.setattr(imports, "import_gguf", lambda *_, **__: pytest.fail("imported again"))
    assert make_plan(recipe(tmp_path, file)).notes == plan.notes
    assert imported_folder(file).parent == cache_directory() / "gguf"


def test_two_processes_that_need_the_same_file_import_it_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, begun = [], Event()

    def slowly(*given: Any, **options: Any) -> ImportResult:
        begun.set()
        made.append(given)
        time.sleep(0.2)  # the other comes meanwhile; whoever comes later finds it done
        return import_gguf(*given, **options)

    monkeypatch.setattr(imports, "import_gguf", slowly)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(imported_folder, file)
        begun.wait()
        assert imported_folder(file) == first.result()
    assert len(made) == 1


def test_a_damaged_copy_in_the_cache_is_told(file: Path) -> None:
    folder = imported_folder(file)
    (folder / "config.json").unlink()
    with pytest.raises(OutputError, match="damaged copy") as caught:
        imported_folder(file)
    assert caught.value.where == folder


def test_what_is_made_of_it_says_so_and_brings_the_terms(file: Path, tmp_path: Path) -> None:
    folder = import_gguf(file, tmp_path / "base").output
    (folder / "LICENSE").write_text("terms")
    (record,) = read_imported(folder)
    (folder / FILE).write_bytes(imported_bytes([replace(record, terms=("LICENSE",))]))
    wanted = recipe(tmp_path, file)
    base = SourceRef(path=folder)
    output = run_recipe(wanted.model_copy(update={"sources": {**wanted.sources, "base": base}})).output
    assert verify_output(output).ok
    assert (output / "LICENSE").read_text() == "terms"
    assert [each.file for each in read_imported(output)] == ["tiny.gguf", "other.gguf"]
    assert open_checkpoint(output).notes[0] == f"{SENTENCE} tiny.gguf"
    card = (output / "README.md").read_text()
    assert f"`{SENTENCE} tiny.gguf`" in card
    assert "imported from a file of another format, `other.gguf`" in card
    assert load_card(output).sources[0].imported == (f"{SENTENCE} tiny.gguf",)


def test_a_portable_recipe_names_no_place(file: Path, tmp_path: Path) -> None:
    text = portable(recipe(tmp_path, file))
    assert "path: ./sources/base" in text
    assert str(tmp_path) not in text
    written = recipe(tmp_path, file).to_yaml(relative_to=tmp_path)
    assert "gguf: tiny.gguf" in written


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"gguf": "./m.gguf", "path": "./m"}, "give one of them"),
        ({"gguf": "./m.gguf", "revision": "0" * 40}, "belongs to `hub`"),
        ({"gguf": "./m.gguf", "adapter_of": "b"}, "cannot be read"),
        ({"gguf": 7}, "a path is wanted"),
    ],
)
def test_a_source_that_says_two_things(source: dict[str, object], wanted: str) -> None:
    with pytest.raises(RecipeError, match=wanted):
        make_recipe(
            {
                "polysafe": 1,
                "sources": {"a": source, "b": {"path": "./b"}},
                "edits": [{"method": "soup", "weights": {"a": 0.5, "b": 0.5}}],
                "output": {"path": "./out"},
            }
        )


@contextmanager
def read_once() -> Iterator[None]:
    """transformers makes the table of names anew for every module."""
    import gguf

    with quick_reader(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map))
        yield


@needs(SMOLLM2)
def test_smollm2(tmp_path_factory: pytest.TempPathFactory) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = imported(SMOLLM2, tmp_path_factory)
    (record,) = read_imported(folder)
    assert (record.licence, record.terms) == ("apache-2.0", ("LICENSE",))
    assert record.quantised == ("Q4_1", "Q8_0")
    (piece,) = find_gguf(f"package:{SMOLLM2}").pieces
    ours = load_file(folder / "model.safetensors")
    with read_once():
        model = AutoModelForCausalLM.from_pretrained(piece.parent, gguf_file=piece.name, dtype=torch.float32)
    theirs = model.state_dict()
    assert set(theirs) - set(ours) == {"lm_head.weight"}
    assert all(torch.equal(values, theirs[name].bfloat16()) for name, values in ours.items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("Hello 12")["input_ids"] == [19556, 216, 33, 34]
    assert "<|im_start|>user\nHello" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False
    )


@needs(GEMMA)
def test_gemma(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = imported(GEMMA, tmp_path_factory)
    (record,) = read_imported(folder)
    assert record.sha256.startswith("a5fd3b62230aa5ec")
    assert (record.licence, record.terms) == ("gemma", ("GEMMA_TERMS.html", "NOTICE.md"))
    (tmp_path / "in").mkdir()
    with open(tmp_path / "in" / "m.gguf", "wb") as joined:
        joined.writelines(find_gguf(f"package:{GEMMA}").blocks())
    ours = load_file(folder / "model.safetensors")
    with read_once():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "in", gguf_file="m.gguf", dtype=torch.float32)
    theirs = model.state_dict()
    assert set(theirs) - set(ours) == {"lm_head.weight"}
    assert all(torch.equal(values, theirs[name].bfloat16()) for name, values in ours.items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("Hello 12")["input_ids"] == [2, 9259, 236743, 236770, 236778]
    assert tokenizer.chat_template is None
