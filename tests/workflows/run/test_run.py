from __future__ import annotations

import hashlib
import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.output import lock
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.verify import verify_output
from polysafe.edits.edit import Edit
from polysafe.errors import CheckpointError, EditError, OutputError, PolysafeError
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.edits.memory import same_bits
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import FAMILIES, Trio, read_weights, tiny_llama, tiny_model, trio, write_weights
from tests.processes import interrupts
from tests.workflows.run.moments import At

MODULE_SWAP = LAYER_SWAP | {"granularity": "module"}
DARE = {"method": "dare", "base": "base", "experts": ["safety", "sw"], "drop": 0.5, "seed": 3}
TIES = {"method": "ties", "base": "base", "experts": ["safety", "sw"]}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.fault(14, "sizes and hashes")
def test_output_is_whole_and_vouched_for(llama: Trio, out: Path) -> None:
    result = run_recipe(recipe_for(llama.paths, out))
    assert result.output == out
    assert not result.resumed
    assert not result.complete_before
    report = verify_output(out)
    assert report.ok
    assert report.unlisted == ()
    assert set(snapshot(out)) == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "polysafe/card.json",
        "polysafe/edit.json",
        "polysafe/manifest.json",
        "polysafe/plan.json",
        "polysafe/recipe.yaml",
    }
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_inputs_are_named_by_their_hashes(llama: Trio, out: Path) -> None:
    result = run_recipe(recipe_for(llama.paths, out))
    for name, folder in llama.paths.items():
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert result.manifest["sources"][name] == {"origin": folder.name, "files": {"model.safetensors": digest}}
    assert Edit.load(out / "polysafe").sha256 == result.manifest["edit"]
    assert json.loads((out / "polysafe" / "plan.json").read_text())["sources"] == result.manifest["sources"]


def test_inputs_are_not_touched(llama: Trio, out: Path) -> None:
    before = {name: (snapshot(path), path.stat().st_mtime_ns) for name, path in llama.paths.items()}
    run_recipe(recipe_for(llama.paths, out))
    assert {name: (snapshot(path), path.stat().st_mtime_ns) for name, path in llama.paths.items()} == before


@pytest.mark.fault(7, "bytes that an independent computation gives")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_written_as_blended(family: str, tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models", family, layers=2)
    run_recipe(recipe_for(models.paths, out, {"method": "soup", "weights": {"safety": 0.5, "sw": 0.5}}))
    safety, language, result = (read_weights(path) for path in (models.safety, models.language, out))
    assert result.keys() == language.keys()
    for name, tensor in result.items():
        assert same_bits(tensor, (0.5 * safety[name].float() + 0.5 * language[name].float()).to(tensor.dtype)), name


@pytest.mark.fault(17, "layout of shards")
@pytest.mark.parametrize("method", [LAYER_SWAP, MODULE_SWAP, SOUP, TIES, DARE], ids=lambda m: m["method"])
def test_layout_of_inputs_and_output_does_not_change_a_bit(method: dict[str, Any], llama: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "one", method))
    whole = read_weights(tmp_path / "one")
    sharded = {name: tmp_path / f"sharded {name}" for name in llama.paths}
    for shards, (name, path) in enumerate(llama.paths.items(), start=2):
        sharded[name].mkdir()
        for file in path.iterdir():
            if file.suffix != ".safetensors":
                (sharded[name] / file.name).write_bytes(file.read_bytes())
        write_weights(sharded[name], read_weights(path), shards=shards)
    for number, shard_size in enumerate((1, 3000, 20_000)):
        paths = sharded if number else llama.paths
        target = tmp_path / f"out {number}"
        run_recipe(recipe_for(paths, target, method, shard_size=shard_size))
        assert len(list(target.glob("*.safetensors"))) > 1
        again = read_weights(target)
        assert again.keys() == whole.keys()
        assert all(same_bits(again[name], tensor) for name, tensor in whole.items())


def test_a_tensor_larger_than_a_shard_has_one_of_its_own(llama: Trio, out: Path) -> None:
    run_recipe(recipe_for(llama.paths, out, shard_size=1))
    files = [len(header.tensors) for header in open_checkpoint(out).headers]
    assert set(files) == {1}
    assert len(files) == len(read_weights(llama.language))


@pytest.mark.parametrize(("tied", "shard_size"), [(False, "5GB"), (True, "5GB"), (False, 4000)])
def test_transformers_loads_the_output_without_a_word(
    tied: bool, shard_size: int | str, tmp_path: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    models = trio(tmp_path / "models", tied=tied)
    run_recipe(recipe_for(models.paths, out, SOUP, shard_size=shard_size))
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transformers.utils.logging.disable_progress_bar()
        model, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    weights, loaded = read_weights(out), model.state_dict()
    assert all(same_bits(loaded[name], tensor) for name, tensor in weights.items())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert ("lm_head.weight" in weights) != tied
    assert tokenizer("w3 w4")["input_ids"][-2:] == [3, 4]
    assert model(torch.tensor([[3, 4]])).logits.isfinite().all()


def test_donor_gives_tokenizer_and_generation_config_byte_for_byte(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    for name, path in models.paths.items():
        for file in ("tokenizer.json", "generation_config.json"):
            (path / file).write_bytes((path / file).read_bytes() + b" " * len(name))
        (path / "chat_template.jinja").write_bytes(f"{{{{ '{name}\r\né' }}}}".encode())
        (path / "config.json").write_bytes((path / "config.json").read_bytes() + b"\n" * len(name))
    run_recipe(recipe_for(models.paths, out, tokenizer_from="base"))
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (out / file).read_bytes() == (models.base / file).read_bytes()
    assert (out / "config.json").read_bytes() == (models.language / "config.json").read_bytes()


def test_default_donor_is_the_model_that_is_changed(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    (models.language / "chat_template.jinja").write_text("{{ 1 }}")
    run_recipe(recipe_for(models.paths, out))
    assert (out / "chat_template.jinja").read_text() == "{{ 1 }}"


def test_config_is_rewritten_only_if_the_type_changes(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models", dtype=torch.float32)
    authors = LAYER_SWAP | {"arithmetic": "authors"}
    run_recipe(recipe_for(models.paths, out, authors))
    assert {tensor.dtype for tensor in read_weights(out).values()} == {torch.bfloat16}
    before, after = (json.loads((path / "config.json").read_text()) for path in (models.language, out))
    assert after == before | {"dtype": "bfloat16"}
    run_recipe(recipe_for(models.paths, tmp_path / "same"))
    assert (tmp_path / "same" / "config.json").read_bytes() == (models.language / "config.json").read_bytes()


def test_each_edit_sees_the_result_of_the_one_before(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models", dtype=torch.float32)
    halves: list[dict[str, Any]] = [
        {"method": "soup", "weights": {"safety": 0.5, "sw": 0.5}},
        {"method": "soup", "weights": {"base": 0.5, "sw": 0.5}},
    ]
    run_recipe(recipe_for(models.paths, out, *halves))
    run_recipe(recipe_for(models.paths, tmp_path / "between", halves[0]))
    paths = models.paths | {"sw": tmp_path / "between"}
    run_recipe(recipe_for(paths, tmp_path / "after", halves[1]))
    stacked, after = read_weights(out), read_weights(tmp_path / "after")
    parts = {name: read_weights(path) for name, path in models.paths.items()}
    for name, tensor in stacked.items():
        exact = 0.25 * parts["safety"][name].double() + 0.25 * parts["sw"][name].double()
        exact += 0.5 * parts["base"][name].double()
        assert torch.equal(tensor, exact.float())  # one rounding, where two runs have two
        assert torch.allclose(tensor, after[name], rtol=1e-6, atol=1e-7)
    edit = Edit.load(out / "polysafe")
    assert [part.method for part in edit.provenance] == ["soup.v1", "soup.v1"]


def test_a_method_decides_on_what_the_one_before_left(llama: Trio, tmp_path: Path) -> None:
    """Behind an edit that makes the language expert the safety expert, both moved alike."""
    copy = {"method": "soup", "weights": {"safety": 1.0}, "start_from": "sw"}
    swap = LAYER_SWAP | {"granularity": "layer"}
    run_recipe(recipe_for(llama.paths, tmp_path / "stacked", copy, swap))
    decisions = Edit.load(tmp_path / "stacked" / "polysafe").provenance[1].decisions
    scores = [decision.score for decision in decisions if decision.score is not None]
    assert scores
    assert set(scores) == {0.0}


def test_same_recipe_again_does_nothing(llama: Trio, out: Path) -> None:
    recipe = recipe_for(llama.paths, out)
    first = run_recipe(recipe)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    second = run_recipe(recipe)
    assert second.complete_before
    assert second.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_output_of_another_edit_is_not_replaced(llama: Trio, out: Path) -> None:
    run_recipe(recipe_for(llama.paths, out))
    before = snapshot(out)
    with pytest.raises(OutputError, match="already holds the output of another edit") as caught:
        run_recipe(recipe_for(llama.paths, out, SOUP))
    assert caught.value.where == out
    assert snapshot(out) == before


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: os.truncate(f, 100)])
def test_damaged_output_is_told_apart(damage: Callable[[Path], None], llama: Trio, out: Path) -> None:
    run_recipe(recipe_for(llama.paths, out))
    damage(out / "model.safetensors")
    with pytest.raises(OutputError, match="holds a damaged output"):
        run_recipe(recipe_for(llama.paths, out))


def refused(recipe: Any, error: type[PolysafeError], words: str, out: Path) -> PolysafeError:
    """Runs, is refused, and leaves nothing that looks like a result."""
    present = snapshot(out) if out.is_dir() else None
    with pytest.raises(error, match=words) as caught:
        run_recipe(recipe)
    assert (snapshot(out) if out.is_dir() else None) == present
    return caught.value


@pytest.mark.fault(12, "is an input, or inside one")
def test_output_that_is_an_input(tmp_path: Path) -> None:
    models = trio(tmp_path / "models")
    (tmp_path / "link").symlink_to(models.language)
    for target in (models.language, models.base, models.base / "out", models.base.parent, tmp_path / "link"):
        refused(recipe_for(models.paths, target), OutputError, "may not be, contain, or lie inside", target)


@pytest.mark.fault(12, "foreign files")
def test_foreign_files_stay(llama: Trio, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    refused(recipe_for(llama.paths, out), OutputError, "polysafe did not write", out)


def test_empty_folder_may_be_the_output(llama: Trio, out: Path) -> None:
    out.mkdir()
    run_recipe(recipe_for(llama.paths, out))
    assert verify_output(out).ok


@pytest.mark.fault(13, "one wins and the other is told who holds it")
def test_two_runs_at_once(llama: Trio, out: Path) -> None:
    with lock(out):
        refused(recipe_for(llama.paths, out), OutputError, f"is being written by process {os.getpid()}", out)
    run_recipe(recipe_for(llama.paths, out))


@pytest.mark.fault(11, "long and non-ASCII names")
@pytest.mark.parametrize("name", ["with space", "выход", "出力 ☂", "a'b\"c$d", "-dash", "x" * 200])
def test_names_of_outputs(name: str, llama: Trio, tmp_path: Path) -> None:
    target = tmp_path / name
    run_recipe(recipe_for(llama.paths, target))
    assert verify_output(target).ok
    assert run_recipe(recipe_for(llama.paths, target)).complete_before


def test_name_that_leaves_no_room_for_the_workspace(llama: Trio, tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250)
    refused(recipe_for(llama.paths, target), OutputError, "too long", target)


@pytest.mark.fault(14, "the umask")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_umask_decides_the_modes(umask: int, llama: Trio, out: Path) -> None:
    before = os.umask(umask)
    try:
        run_recipe(recipe_for(llama.paths, out))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o666 & ~umask}
    assert {path.stat().st_mode & 0o777 for path in (out, out / "polysafe")} == {0o777 & ~umask}


@pytest.mark.fault(15, "while it is read")
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_source_that_changes_during_the_run(share: float, tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    weights = models.safety / "model.safetensors"
    times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns + 1_000_000)
    change = At(share, lambda: os.utime(weights, ns=times))
    with pytest.raises(CheckpointError, match="changed while it was being read") as caught:
        run_recipe(recipe_for(models.paths, out), progress=change)
    assert caught.value.where == weights
    assert change.done
    assert not out.exists()
    result = run_recipe(recipe_for(models.paths, out))
    assert not result.resumed  # it is another job now: what was written is not trusted
    assert verify_output(out).ok


@pytest.mark.fault(15, "while it is read")
def test_source_that_shrinks_during_the_run(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    weights = models.language / "model.safetensors"
    with pytest.raises(CheckpointError, match="became shorter"):
        run_recipe(recipe_for(models.paths, out), progress=At(0, lambda: os.truncate(weights, 3000)))
    assert not out.exists()


@pytest.mark.fault(16, "no half files")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_interrupt_leaves_a_state_that_is_resumed(share: float, llama: Trio, tmp_path: Path, out: Path) -> None:
    run_recipe(recipe_for(llama.paths, out, shard_size=4000))
    wanted = snapshot(out)
    out.rename(tmp_path / "elsewhere")
    recipe = recipe_for(llama.paths, out, shard_size=4000)
    with pytest.raises(KeyboardInterrupt), interrupts():
        run_recipe(recipe, progress=At(share, lambda: signal.raise_signal(signal.SIGINT)))
    assert not out.exists()
    assert run_recipe(recipe).resumed == (share > 0)
    assert snapshot(out) == wanted


def test_resumed_run_does_not_decide_again(llama: Trio, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_for(llama.paths, out, shard_size=4000)
    with pytest.raises(KeyboardInterrupt), interrupts():
        run_recipe(recipe, progress=At(0.5, lambda: signal.raise_signal(signal.SIGINT)))
    monkeypatch.setattr("polysafe.engine.plan._fit", lambda *_: pytest.fail("decided again"))
    assert run_recipe(recipe).resumed


def test_another_recipe_does_not_resume_it(llama: Trio, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts():
        run_recipe(
            recipe_for(llama.paths, out, shard_size=4000),
            progress=At(0.5, lambda: signal.raise_signal(signal.SIGINT)),
        )
    assert not run_recipe(recipe_for(llama.paths, out, SOUP, shard_size=4000)).resumed
    run_recipe(recipe_for(llama.paths, out.with_name("new"), SOUP, shard_size=4000))
    files, wanted = snapshot(out), snapshot(out.with_name("new"))
    for name in ("polysafe/recipe.yaml", "polysafe/manifest.json"):  # they state the output's own name
        del files[name], wanted[name]
    assert files == wanted


@pytest.mark.fault(5, "NaN and infinity are traced to their tensor")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_are_refused_with_source_and_tensor(bad: float, tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models", layers=2)
    weights = read_weights(models.safety)
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 3] = bad
    write_weights(models.safety, weights)
    error = refused(recipe_for(models.paths, out, SOUP), EditError, "'safety' holds NaN or infinity", out)
    assert error.where == name


@pytest.mark.fault(5, "what was not finite before may be kept")
def test_nan_in_a_source_that_is_only_copied_is_kept(tmp_path: Path, out: Path) -> None:
    """What an input already was is not made worse, and not hidden either: it is copied."""
    models = trio(tmp_path / "models", layers=2)
    weights = read_weights(models.language)
    weights["lm_head.weight"][0, 0] = float("nan")
    write_weights(models.language, weights)
    run_recipe(recipe_for(models.paths, out, SOUP | {"restrict_to": "layers"}))
    assert same_bits(read_weights(out)["lm_head.weight"], weights["lm_head.weight"])


def lose_a_tensor(folder: Path) -> None:
    write_weights(folder, {n: t for n, t in read_weights(folder).items() if n != "model.layers.3.mlp.up_proj.weight"})


def quantise(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))


def cut(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 10)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "lfs": (lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com\n"), "git-lfs pointer"),
    "html": (lambda f: (f / "model.safetensors").write_text("<!DOCTYPE html>"), "web page"),
    "truncated": (cut, "cut short"),
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled weights"),
    "quantised": (quantise, "is a quantised checkpoint"),
    "missing tensor": (lose_a_tensor, "model.layers.3.mlp.up_proj.weight"),
    "layers": (lambda f: tiny_llama(f, layers=3), "layers"),
    "architecture": (lambda f: tiny_model("qwen2", layers=4).save(f), "bias"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_inputs_are_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    damage, words = BROKEN[kind]
    models = trio(tmp_path / "models")
    damage(models.safety)
    target = tmp_path / "results" / "out"
    refused(recipe_for(models.paths, target), PolysafeError, words, target)
    left = list((tmp_path / "results").iterdir()) if (tmp_path / "results").exists() else []
    assert left == []
