"""What recipes make of configurations of mergekit, compared with what mergekit makes of them, tensor by tensor.

    python -m benchmarks.evidence.mergekit_exchange --mergekit ENVIRONMENT/bin/mergekit-multi \
        --output benchmarks/results/mergekit_exchange.json

mergekit is run as a program, in an environment of its own; nothing of it is imported. Every configuration is merged by
it, read as a recipe and carried out, and the recipe is written as a configuration again, which mergekit merges too.
What DARE drops is drawn at random in both, so that only the shares that it drops are compared, where it drops anything.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.source import open_checkpoint
from polysafe.edits.edit import Edit
from polysafe.edits.operations import Blend, Ties
from polysafe.files.yaml_lines import write_yaml
from polysafe.recipe.mergekit_read import read_mergekit
from polysafe.recipe.mergekit_write import write_mergekit
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.workflows.run import run_recipe
from tests.models import trio

Tensors = Mapping[str, torch.Tensor]
LAYERS = 6
_WIDE = {"dtype": "float32", "out_dtype": "bfloat16"}
_GRADIENT = [
    {"filter": "self_attn", "value": [0.0, 0.5, 0.3, 0.7, 1.0]},
    {"filter": "mlp", "value": [1.0, 0.5, 0.7, 0.3, 0.0]},
    {"value": [0.1, 0.9]},
]


@dataclass(frozen=True)
class Difference:
    """How far two merged models are apart.

    Attributes:
        case: Name of the configuration.
        stored: Storage type of the result.
        numbers: Numbers in the merged tensors.
        differing: Numbers that are not the same bits.
        tied: Of the differing ones, those where a task vector has exactly the magnitude that trimming ends at: polysafe
            keeps all of these, mergekit as many as its share leaves room for.
        ulps: Largest difference, in steps of the storage type at the largest number of its tensor.
        others: The same without those that are tied.
    """

    case: str
    stored: str
    numbers: int
    differing: int
    tied: int
    ulps: float
    others: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares every case and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mergekit", type=Path, required=True, help="the program mergekit-multi")
    parser.add_argument("--output", type=Path, help="file to write the numbers to")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        content = _compared(options.mergekit, Path(folder))
    for kind in ("there", "back"):
        print(f"\n{kind}: case, type, numbers, differing, tied, ulps, ulps of others")
        for row in content[kind]:
            print("  ".join(str(value) for value in row.values()))
    print("\ndropped:", *content["dropped"], sep="\n")
    if options.output:
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _compared(program: Path, folder: Path) -> dict[str, Any]:
    for name, dtype in (("BF16", torch.bfloat16), ("F32", torch.float32)):
        trio(folder / name, layers=LAYERS, dtype=dtype)
    cases = {f"{name} {case}": body for name in ("BF16", "F32") for case, body in _cases(folder / name).items()}
    theirs = _merged(program, folder / "theirs", {case: write_yaml(body) for case, body in cases.items()})
    recipes = {case: _recipe(body, folder / "ours" / _file(case)) for case, body in cases.items()}
    made = {case: run_recipe(recipe, progress=lambda *_: None).output for case, recipe in recipes.items()}
    ours = {case: _tensors(output) for case, output in made.items()}
    tied = {case: _tied(Edit.load(output / "polysafe"), recipes[case]) for case, output in made.items()}
    written = {case: write_mergekit(recipe).text for case, recipe in recipes.items()}
    back = _merged(program, folder / "back", written)
    random = [case for case, body in cases.items() if _drops(body)]
    sure = [case for case in cases if case not in random]
    return {
        "mergekit": _version(program),
        "there": [asdict(_difference(case, theirs[case], ours[case], tied[case])) for case in sure],
        "back": [asdict(_difference(case, back[case], ours[case], tied[case])) for case in sure],
        "dropped": [_dropped(case, folder, theirs[case], ours[case]) for case in random],
    }


def _cases(models: Path) -> dict[str, dict[str, Any]]:
    base, safety, sw = (str(models / name) for name in ("base", "safety", "sw"))

    def of(method: str, each: Mapping[str, tuple[float, ...]], **more: Any) -> dict[str, Any]:
        listed = [
            {"model": model, "parameters": dict(zip(("weight", "density"), values, strict=False))}
            for model, values in each.items()
        ]
        return {"merge_method": method, "models": listed, **more}

    pair, on = {safety: (0.75,), sw: (0.5,)}, {"base_model": base}
    thin = {safety: (0.75, 0.3), sw: (0.5, 0.6)}
    alike = {safety: (1.0, 0.2), sw: (1.0, 0.2)}
    arc = {"merge_method": "slerp", "base_model": safety}
    both = [{"model": safety}, {"model": sw}]
    bands = [(safety, 0, 2), (sw, 2, 3), (base, 3, 5), (safety, 5, LAYERS)]
    return {
        "linear": of("linear", pair),
        "linear of three": of("linear", {base: (1.0,), **pair}),
        "linear, slices": {
            "merge_method": "linear",
            "slices": [
                {"sources": [{**model, "layer_range": [at, at + 3]} for model in both]} for at in range(0, LAYERS, 3)
            ],
            "parameters": {"weight": 0.5},
        },
        "task_arithmetic": of("task_arithmetic", pair, **on),
        "task_arithmetic, slices": {
            "merge_method": "task_arithmetic",
            **on,
            "slices": _whole(base, safety, sw),
            "parameters": {"weight": 0.5},
        },
        "task_arithmetic, wide": of("task_arithmetic", pair, **on, **_WIDE),
        "task_arithmetic, lambda": of("task_arithmetic", pair, **on, **_WIDE, parameters={"lambda": 0.5}),
        "task_arithmetic, normalize": of("task_arithmetic", pair, **on, **_WIDE, parameters={"normalize": True}),
        "ties": of("ties", thin, **on),
        "ties, wide": of("ties", thin, **on, **_WIDE),
        "ties, alike": of("ties", alike, **on, **_WIDE),
        "ties, density 1": of("ties", pair, **on, **_WIDE),
        "ties, lambda": of("ties", thin, **on, **_WIDE, parameters={"lambda": 0.5, "int8_mask": True}),
        "ties, no normalize": of("ties", thin, **on, **_WIDE, parameters={"normalize": False}),
        "dare_ties, density 1": of("dare_ties", pair, **on, **_WIDE),
        "dare_ties, normalize, density 1": of("dare_ties", pair, **on, **_WIDE, parameters={"normalize": True}),
        "dare_linear, density 1": of("dare_linear", pair, **on, **_WIDE),
        "dare_linear": of("dare_linear", {sw: (1.0, 0.3)}, **on),
        "dare_ties": of("dare_ties", {sw: (1.0, 0.3)}, **on),
        "slerp": {**arc, "models": both, "parameters": {"t": 0.3}},
        "slerp, gradient": {**arc, "models": both, "parameters": {"t": [0.0, 0.5, 1.0]}},
        "slerp, filters": {**arc, "slices": _whole(safety, sw), "parameters": {"t": _GRADIENT}},
        "passthrough": {
            "merge_method": "passthrough",
            "slices": [{"sources": [{"model": model, "layer_range": [first, stop]}]} for model, first, stop in bands],
        },
        "passthrough, bfloat16": {
            "merge_method": "passthrough",
            "dtype": "bfloat16",
            "slices": [{"sources": [{"model": model, "layer_range": [first, stop]}]} for model, first, stop in bands],
        },
    }


def _whole(*models: str) -> list[dict[str, Any]]:
    """One slice of all layers."""
    return [{"sources": [{"model": model, "layer_range": [0, LAYERS]} for model in models]}]


def _drops(body: Mapping[str, Any]) -> bool:
    return body["merge_method"].startswith("dare") and any(
        model["parameters"].get("density", 1.0) < 1 for model in body.get("models", ())
    )


def _recipe(body: Mapping[str, Any], output: Path) -> Recipe:
    return make_recipe(read_mergekit(write_yaml(dict(body)), output=str(output)).data)


def _file(case: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in case)


def _merged(program: Path, folder: Path, texts: Mapping[str, str]) -> dict[str, Tensors]:
    """What mergekit makes of configurations: all in one run of the program."""
    folder.mkdir()
    documents = folder / "all.yml"
    documents.write_text("---\n".join(f"name: {_file(case)}\n{text}" for case, text in texts.items()), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [str(program), str(documents), "-I", str(folder), "--quiet", "--no-lazy", "--random-seed", "0"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"mergekit failed: {done.stderr[-2000:]}")
    return {case: _tensors(folder / _file(case)) for case in texts}


def _version(program: Path) -> str:
    """The version that lies in the environment of the program."""
    found = next(program.parent.parent.glob("lib/python3*/site-packages/mergekit-*.dist-info"))
    return found.name.removeprefix("mergekit-").removesuffix(".dist-info")


def _tensors(folder: Path) -> Tensors:
    with CheckpointReader(open_checkpoint(folder)) as reader:
        return {name: reader.whole(name).clone() for name in reader.names()}


def _difference(case: str, theirs: Tensors, ours: Tensors, tied: Tensors) -> Difference:
    if theirs.keys() != ours.keys():
        raise SystemExit(f"{case}: other tensors: {sorted(theirs.keys() ^ ours.keys())}")
    differing, at_threshold, ulps, others = 0, 0, 0.0, 0.0
    for name, tensor in theirs.items():
        if tensor.dtype != ours[name].dtype:
            raise SystemExit(f"{case}: {name} is {tensor.dtype} and {ours[name].dtype}")
        largest = float(torch.maximum(tensor.abs(), ours[name].abs()).max())
        step = torch.finfo(tensor.dtype).eps * 2.0 ** math.floor(math.log2(largest))
        apart = (tensor.double() - ours[name].double()).abs() / step
        ties = tied.get(name, torch.zeros_like(tensor, dtype=torch.bool))
        differing += int((apart > 0).sum())
        at_threshold += int((apart > 0)[ties].sum())
        ulps = max(ulps, float(apart.max()))
        others = max(others, float(apart.masked_fill(ties, 0.0).max()))
    stored = str(next(iter(ours.values())).dtype).removeprefix("torch.")
    numbers = sum(tensor.numel() for tensor in ours.values())
    return Difference(case, stored, numbers, differing, at_threshold, ulps, others)


def _tied(edit: Edit, recipe: Recipe) -> Tensors:
    """Where an expert's task vector is as large as its threshold."""
    models = {name: _tensors(source.path) for name, source in recipe.sources.items() if source.path is not None}
    found: dict[str, torch.Tensor] = {}
    for name, (step, *_) in edit.steps.items():
        rule = step.rule if isinstance(step, Blend) else None
        if not isinstance(rule, Ties):
            continue
        found[name] = torch.zeros(models[rule.base][name].shape, dtype=torch.bool)
        for expert, threshold in rule.thresholds.items():
            moved = models[expert][name].double() - models[rule.base][name].double()
            found[name] |= (threshold > 0) & (moved.float().abs() == np.float32(threshold))
    return found


def _dropped(case: str, folder: Path, theirs: Tensors, ours: Tensors) -> dict[str, Any]:
    """Shares of the entries of the one expert's task vector that are dropped."""
    models = folder / case.partition(" ")[0]
    base, expert = _tensors(models / "base"), _tensors(models / "sw")
    total, gone = 0, {"theirs": 0, "ours": 0}
    for name, origin in base.items():
        moved = expert[name] != origin
        total += int(moved.sum())
        for side, merged in (("theirs", theirs), ("ours", ours)):
            gone[side] += int((merged[name] == origin)[moved].sum())
    return {"case": case, "entries": total, "asked": 0.7, **{side: count / total for side, count in gone.items()}}


if __name__ == "__main__":
    main()
