"""Configurations of mergekit from recipes: what is written is read back, and has to be the same recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polysafe.errors import RecipeError
from polysafe.files.yaml_lines import write_yaml
from polysafe.methods.band_swap import BandSwap
from polysafe.methods.base import Method
from polysafe.methods.merges import DareMerge, ElectedMerge, Merge, Soup, TaskArithmetic, TiesMerge
from polysafe.methods.slerp import Slerp
from polysafe.recipe.mergekit_read import DTYPES, alike, read_mergekit
from polysafe.recipe.recipe import Recipe, SourceRef, make_recipe

_BY_HAND = "leave it to polysafe: mergekit has nothing that does this"
_MEASURED = ("evaluate", "validation", "data", "dtype")
_ELSEWHERE = {"seed", "start_from", "preset"}


@dataclass(frozen=True)
class Written:
    """A configuration as YAML, and what should be known of it."""

    text: str
    notes: tuple[str, ...]


def write_mergekit(recipe: Recipe) -> Written:
    """The configuration of mergekit that makes what a recipe makes.

    Raises:
        RecipeError: Something in the recipe has no counterpart there.
    """
    models = {name: _model(name, recipe.sources[name]) for name in _used(recipe)}
    first, *others = recipe.edits
    if isinstance(first, BandSwap):
        body = _passthrough(recipe.edits, models)
    elif others:
        raise _refusal("edits", "several edits, one after the other, are no single merge")
    elif isinstance(first, Merge):
        body = _merge(first, models)
    else:
        raise _refusal("edits[0]", f"{first.name!r} has no counterpart")
    names = {model: name for name, model in models.items()}
    base = names[body["base_model"]]
    text = write_yaml({**body, **_result(recipe, base, models)})
    _require_same(recipe, text, names)
    return Written(text, tuple(_notes(recipe, base)))


def _used(recipe: Recipe) -> list[str]:
    used = {name for edit in recipe.edits for name in edit.uses} | {recipe.output.tokenizer_from}
    return [name for name in recipe.sources if name in used]


def _model(name: str, source: SourceRef) -> str:
    if source.hub is not None:
        return f"{source.hub}@{source.revision}"
    if source.gguf is not None:
        raise _refusal(f"sources.{name}", "a GGUF file", "make a folder of it with `polysafe import`")
    if source.adapter_of is not None:
        raise _refusal(f"sources.{name}", "an adapter", "merge it into its model first")
    if {"@", "+"} & set(str(source.path)):
        raise _refusal(
            f"sources.{name}.path", "a path with @ or +, which mergekit reads otherwise", "rename the folder"
        )
    return str(source.path)


def _merge(method: Merge, models: Mapping[str, str]) -> dict[str, Any]:
    kind, base, parameters, of_each = _parts(method)
    if method.layers is not None:  # mergekit wants the base in slices too, whatever it is merged by
        of_each = {base: {}, **of_each}
    listed = {models[name]: {"parameters": values} if values else {} for name, values in of_each.items()}
    body: dict[str, Any] = {"merge_method": kind, "base_model": models[base]}
    if method.layers is None:
        body["models"] = [{"model": model, **values} for model, values in listed.items()]
    else:
        layers = {"layer_range": [0, method.layers]}
        body["slices"] = [{"sources": [{"model": model, **layers, **values} for model, values in listed.items()]}]
    return {**body, "parameters": parameters}


def _parts(method: Merge) -> tuple[str, str, dict[str, Any], dict[str, dict[str, float]]]:
    """Merge method, base, parameters of the whole, and of every model."""
    match method:
        case Soup(weights=weights):
            base = method.start if method.start in weights else next(iter(weights))
            return "linear", base, {"normalize": False}, {name: {"weight": w} for name, w in weights.items()}
        case Slerp():
            t = method.model_dump(mode="json", exclude_none=True)["t"]
            return "slerp", method.first, {"t": t}, {method.first: {}, method.second: {}}
        case TaskArithmetic(scale=scale):
            each = method.of_each(scale)
            return "task_arithmetic", method.base, {"normalize": False}, {n: {"weight": w} for n, w in each.items()}
        case ElectedMerge():
            return _elected(method)
    raise _refusal("edits[0]", f"{method.name!r} has no counterpart")


def _elected(method: ElectedMerge) -> tuple[str, str, dict[str, Any], dict[str, dict[str, float]]]:
    summed = _is_summed(method)
    kind = "ties" if isinstance(method, TiesMerge) else "dare_linear" if summed else "dare_ties"
    if isinstance(method, DareMerge):
        density = {name: round(1 - drop, 12) for name, drop in method.of_each(method.drop).items()}
    else:
        density = method.of_each(getattr(method, "density", 1.0))
    weights = method.weight_of_each
    each = {name: {"weight": weights[name], "density": density[name]} for name in method.experts}
    normalize = not summed and method.average != "sum"
    return kind, method.base, {"normalize": normalize, "lambda": method.scale}, each


def _passthrough(edits: Sequence[Method], models: Mapping[str, str]) -> dict[str, Any]:
    owners: list[str] = []
    for index, edit in enumerate(edits):
        if not isinstance(edit, BandSwap):
            raise _refusal(f"edits[{index}]", "only bands can follow a band")
        if edit.layers is None:
            raise _refusal(
                f"edits[{index}]", "the bands of mergekit end at a layer", "say `layers`, how many there are"
            )
        owners = owners or [edit.language] * edit.layers
        last = edit.layers - edit.top
        owners[edit.bottom : last] = [edit.safety] * (last - edit.bottom)
    ends = [place for place in range(1, len(owners) + 1) if place == len(owners) or owners[place] != owners[place - 1]]
    slices = [
        {"sources": [{"model": models[owners[first]], "layer_range": [first, stop]}]}
        for first, stop in zip([0, *ends], ends, strict=False)
    ]
    return {"merge_method": "passthrough", "base_model": models[edits[0].start], "slices": slices}


def _result(recipe: Recipe, base: str, models: Mapping[str, str]) -> dict[str, str]:
    """In float32, so that task vectors are not rounded, and then in the type of the result; and whose tokenizer."""
    found = {}
    if (dtype := recipe.output.dtype) is not None:
        found = {"dtype": "float32"}
        if dtype != "F32":
            found["out_dtype"] = next(name for name, ours in DTYPES.items() if ours == dtype)
    stated = recipe.output.tokenizer_from
    donor = stated or recipe.edits[0].donor()
    return found if stated is None and donor == base else {**found, "tokenizer_source": models[donor]}


def _require_same(recipe: Recipe, text: str, names: Mapping[str, str]) -> None:
    """What was written says the same, or an option was left behind."""
    read = make_recipe(read_mergekit(text, output=str(recipe.output.path), names=names).data)
    if len(read.edits) != len(recipe.edits):
        raise _refusal("edits", "bands that touch or cover each other", "write every band once, in order")
    for index, (back, wanted) in enumerate(zip(read.edits, recipe.edits, strict=True)):
        stated, found = _canonical(wanted), _canonical(back)
        for option, value in stated.items():
            if value != found.get(option):
                text = f"{value!r} has no counterpart: mergekit would do {found.get(option)!r}"
                raise _refusal(f"edits[{index}].{option}", text)


def _canonical(method: Method) -> dict[str, Any]:
    """Options as data, each written one way; without those that mergekit has on its command line or gives otherwise."""
    data = {option: value for option, value in method.model_dump(mode="json").items() if option not in _ELSEWHERE}
    for option in ("scale", "density", "drop"):
        if isinstance(data.get(option), dict):
            data[option] = alike(data[option])
    if not isinstance(method, ElectedMerge):
        return data
    weights, average = alike(method.weight_of_each), method.average
    if _is_summed(method):
        average = "sum"
    elif average == "count" and weights == 1.0:
        average = "weight"
    elif average == "weight" and isinstance(weights, float) and weights > 0:
        weights = 1.0  # they cancel
    return data | {"weights": weights, "average": average}


def _is_summed(method: Method) -> bool:
    """Whether it is DARE without an election."""
    return isinstance(method, DareMerge) and method.then == "sum"


def _notes(recipe: Recipe, base: str) -> Iterator[str]:
    first = recipe.edits[0]
    yield from (f"`{block}` is not written: mergekit measures nothing" for block in _MEASURED if getattr(recipe, block))
    if first.start != base:
        yield f"config.json will be that of {base!r}, not of {first.start!r}"
    if recipe.output.dtype is None and not isinstance(first, BandSwap):
        yield "without `output.dtype` mergekit merges in the type of the models, and rounds on the way"
    if isinstance(first, ElectedMerge) and first.average == "count" and not _is_summed(first):
        yield "mergekit rounds the number of kept entries down, and where the sum is zero elects plus"
    if isinstance(first, DareMerge):
        yield "other entries are dropped than polysafe drops; `--random-seed` makes mergekit's draw repeatable"


def _refusal(where: str, text: str, remedy: str = _BY_HAND) -> RecipeError:
    return RecipeError(text, where=where, remedy=remedy)
