"""One side of the merge benchmark: `python -m benchmarks.speed.merge_sides SIDE OUT BASE SAFETY LANGUAGE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.frame.measure import measured
from benchmarks.frame.synthetic import SMALL, write_trio
from polysafe.checkpoint.digest import hash_file

BLOCK = 1 << 20


def copy_with_cp(out: Path, _base: Path, _safety: Path, language: Path) -> Callable[[], object]:
    """`cp` of a checkpoint of the output's size, flushed to the disk."""

    def work() -> None:
        out.mkdir()
        subprocess.run(["cp", str(language / "model.safetensors"), str(out)], check=True)
        subprocess.run(["sync", str(out / "model.safetensors")], check=True)

    return work


def copy_and_hash(out: Path, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """The same, with SHA-256 of the file computed beside it: what a copy takes at least whose manifest says its hash.

    One file is hashed on one core, whatever the program: where that is slower than `cp`, no swap is as fast as `cp`.
    """
    copy = copy_with_cp(out, base, safety, language)

    def work() -> None:
        with ThreadPoolExecutor(1) as other:
            digest = other.submit(hash_file, language / "model.safetensors")
            copy()
            digest.result()

    return work


def disk_limit(out: Path, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """Reads three checkpoints and writes one, without looking at a byte: what the disk alone would take."""

    def work() -> None:
        out.mkdir()
        buffer = bytearray(BLOCK)
        paths = [folder / "model.safetensors" for folder in (base, safety, language)]
        for path in paths[:2]:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        with paths[2].open("rb", buffering=0) as file, (out / "model.safetensors").open("wb", buffering=0) as target:
            while count := file.readinto(buffer):
                target.write(memoryview(buffer)[:count])
            os.fsync(target.fileno())

    return work


def swap(out: Path, _base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """A whole-layer swap: every second layer is copied from the safety expert."""
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.edits.operations import Copy

    names = open_checkpoint(language).tensors
    layers = {name for name in names if ".layers." in name and int(name.split(".")[2]) % 2}
    return _apply(out, {name: (Copy(source="safety"),) for name in layers}, safety, language)


def blend(out: Path, _base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """Every tensor is blended half and half."""
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.edits.operations import Blend

    mixed = Blend(weights={"safety": 0.5, "language": 0.5})
    return _apply(out, dict.fromkeys(open_checkpoint(language).tensors, (mixed,)), safety, language)


def score(out: Path, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """The decisions of the module-wise rule: three reads, norms, no write; nothing is known from before."""
    import polysafe.methods.norms  # noqa: F401 — imported where norms are computed
    from polysafe.engine.plan import make_plan
    from polysafe.recipe.recipe import make_recipe

    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {n: {"path": str(p)} for n, p in (("base", base), ("safety", safety), ("sw", language))},
            "edits": [{"method": "layer_swap", "base": "base", "safety": "safety", "language": "sw"}],
            "output": {"path": str(out)},
        }
    )
    os.environ["POLYSAFE_CACHE"] = tempfile.mkdtemp(dir=out.parent)
    return lambda: make_plan(recipe)


def ties(out: Path, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """TIES of both experts: exact thresholds of every tensor, then the merge."""
    return _merge(out, "ties", base, safety, language)


def dare(out: Path, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """DARE of both experts: half of the entries of every task vector are dropped at random."""
    return _merge(out, "dare", base, safety, language)


def published(out: Path, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """The shape of the published programs: three models in memory, norms, blend of everything, `save_pretrained`."""
    import torch
    from transformers import AutoModelForCausalLM

    def work() -> None:
        models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16) for path in (base, safety, language)]
        parameters = [dict(model.named_parameters()) for model in models]
        with torch.no_grad():
            for name, origin in parameters[0].items():
                norms = [torch.norm(expert[name] - origin).item() for expert in parameters[1:]]
                assert all(norm >= 0 for norm in norms)
            for name, parameter in parameters[2].items():
                parameter.copy_(0.5 * parameters[1][name] + 0.5 * parameter)
        models[2].save_pretrained(out)
        os.sync()

    return work


def _merge(out: Path, method: str, base: Path, safety: Path, language: Path) -> Callable[[], object]:
    """A merge from its recipe, decisions included."""
    paths = {"base": base, "safety": safety, "language": language}
    _remember_digests(out, *paths.values())
    from polysafe.recipe.recipe import make_recipe
    from polysafe.workflows.run import run_recipe

    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(path)} for name, path in paths.items()},
            "edits": [{"method": method, "base": "base", "experts": ["safety", "language"]}],
            "output": {"path": str(out)},
        }
    )
    return lambda: run_recipe(recipe)


def _remember_digests(out: Path, *folders: Path) -> None:
    """Hashing inputs belongs to planning; it is remembered, and is not measured."""
    os.environ["POLYSAFE_CACHE"] = str(out.parent / "cache")
    from polysafe.checkpoint.digest import checkpoint_digests
    from polysafe.checkpoint.source import open_checkpoint

    for folder in folders:
        checkpoint_digests(open_checkpoint(folder))


def _apply(out: Path, steps: dict[str, tuple[object, ...]], safety: Path, language: Path) -> Callable[[], object]:
    """Writing, from the edit to the finished folder with its manifest; everything has been imported before."""
    paths = {"safety": safety, "language": language}
    _remember_digests(out, *paths.values())
    with tempfile.TemporaryDirectory() as small:
        trio = write_trio(Path(small), 0.0, SMALL)
        _edited(Path(small) / "out", {}, {name: trio[name] for name in paths})()
    return _edited(out, steps, paths)


def _edited(out: Path, steps: dict[str, tuple[object, ...]], paths: Mapping[str, Path]) -> Callable[[], object]:
    from polysafe.edits.edit import Edit, SourceRecord
    from polysafe.workflows.apply import apply_edit

    sources = {name: SourceRecord(origin=name) for name in paths}
    edit = Edit.model_validate({"start": "language", "steps": steps, "sources": sources})
    return lambda: apply_edit(edit, paths, out)


WORK = {
    "cp": copy_with_cp,
    "hashed": copy_and_hash,
    "swap": swap,
    "disk": disk_limit,
    "blend": blend,
    "ties": ties,
    "dare": dare,
    "score": score,
    "published": published,
}

if __name__ == "__main__":
    side, *folders = sys.argv[1:]
    print(json.dumps(asdict(measured(WORK[side](*map(Path, folders))))))
