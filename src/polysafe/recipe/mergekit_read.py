"""Recipes from configurations of mergekit (Goddard et al., EMNLP 2024 industry track), where they say the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.dtypes import TORCH_NAMES
from polysafe.errors import did_you_mean
from polysafe.files.yaml_lines import Place, read_yaml
from polysafe.recipe.mergekit_file import BY_HAND, METHODS, Configuration, Input, Slice, is_number

DTYPES = {TORCH_NAMES[code]: code for code in ("F32", "BF16", "F16")}
_NORMALIZED = frozenset({"linear", "ties"})
"""Methods that divide by the sum of weights where nothing is said."""
_TOP = ("merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source")


@dataclass(frozen=True)
class Converted:
    """A recipe as plain values, as `recipe.make_recipe` takes them, and what should be known of it."""

    data: dict[str, Any]
    notes: tuple[str, ...]


def read_mergekit(
    text: str,
    name: str = "configuration",
    *,
    output: str,
    relative_to: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> Converted:
    """The recipe that a configuration of mergekit means.

    Args:
        text: The YAML.
        name: What error messages call it.
        output: The folder that the recipe writes; mergekit has it on its command line.
        relative_to: Folder of the recipe, where it has one: paths that are relative in the configuration, which are so
            to the working directory, are relative to this in the recipe.
        names: Model, as it is written there -> name of its source; otherwise from the ends of paths and hub ids.

    Raises:
        RecipeError: It is not YAML or no such configuration, or something in it has no counterpart; with the line.
    """
    return _Reader(read_yaml(text, name), relative_to, dict(names or {})).converted(output)


class _Reader(Configuration):
    def converted(self, output: str) -> Converted:
        top = self.mapping((), (*_TOP, "tokenizer", "name"))
        self.method = self.text(("merge_method",), "every configuration names its `merge_method`")
        if self.method not in METHODS:
            known = did_you_mean(self.method, METHODS) or f"read are {', '.join(METHODS)}"
            self.refuse(("merge_method",), f"the method {self.method!r} has no counterpart", known)
        if "name" in top:
            self.notes.append("`name` is left out: a recipe has the name of its file")
        base = self.source(("base_model",)) if top.get("base_model") is not None else None
        slices = self.slices()
        edits = self.edits(base, slices)
        if base is None:
            start = edits[0].get("start_from") or edits[0]["language"]
            self.notes.append(f"config and tokenizer are those of {start!r}; without a base mergekit may take any")
        written = {"path": output, **self.stored(), **self.tokenizer(base)}
        data = {"polysafe": 1, "sources": self.sources, "edits": edits, "output": written}
        return Converted(data, tuple(self.notes))

    def edits(self, base: str | None, slices: Sequence[Slice]) -> list[dict[str, Any]]:
        if self.method == "passthrough":
            return self.bands(base, slices)
        found = [self.merge(base, each, single=len(slices) == 1) for each in slices]
        for edit, each in zip(found, slices, strict=True):
            if edit != found[0]:
                self.refuse(each.place, "other models or parameters than the first slice", BY_HAND)
        layers = slices[-1].stop
        return [found[0] | ({} if layers is None else {"layers": layers})]

    def merge(self, base: str | None, part: Slice, *, single: bool) -> dict[str, Any]:
        sources = [each.source for each in part.inputs]
        for index, each in enumerate(part.inputs):
            if each.source in sources[:index]:
                self.refuse((*each.place, "model"), f"{each.source!r} is named twice", "remove one")
        if self.method == "linear":
            return self.linear(base, part)
        if base is None:
            self.refuse((), f"`{self.method}` needs a `base_model`", "name it")
        experts = [each for each in part.inputs if each.source != base]
        if self.method == "slerp":
            if len(experts) != 1:
                self.refuse(part.place, f"slerp of {len(experts) + 1} models", "name the base and one more")
            t = self.gradient(part, single=single)
            return {"method": "slerp", "first": base, "second": experts[0].source, "t": t, "start_from": base}
        if not experts:
            self.refuse(part.place, "nothing is merged with the base", "name another model")
        weights = {each.source: self.number("weight", each.levels, None, each.place) for each in experts}
        normalized = self.flag("normalize", part.levels, self.method in _NORMALIZED)
        factor = self.number("lambda", part.levels, 1.0)
        kind = self.method if self.method in {"task_arithmetic", "ties"} else "dare"
        start = {"method": kind, "base": base, "experts": list(weights), "start_from": base}
        if self.method == "task_arithmetic":
            weights = self.normalized(part, weights) if normalized else weights
            return {**start, "scale": alike({n: factor * w for n, w in weights.items()})}
        return {**start, **self.thinned(part, experts, weights, normalized), "scale": factor}

    def thinned(
        self, part: Slice, experts: Sequence[Input], weights: dict[str, float], normalized: bool
    ) -> dict[str, Any]:
        """Options of TIES and DARE."""
        density = {each.source: self.share("density", each.levels) for each in experts}
        if self.method == "dare_linear":
            elected: dict[str, Any] = {}
            weights = self.normalized(part, weights) if normalized else weights
        else:
            elected = {"average": "weight" if normalized else "sum"}
        same = alike(weights)
        if same != 1.0 and not (elected.get("average") == "weight" and isinstance(same, float) and same > 0):
            elected["weights"] = weights
        if self.method == "ties":
            return {"density": alike(density), **elected}
        if not self.flag("rescale", part.levels, default=True):
            place = self.value("rescale", part.levels)[1]
            remedy = BY_HAND if normalized else "multiply each `weight` by its `density` instead"
            self.refuse(place, "dropping always rescales here", remedy)
        self.notes.append("other entries are dropped than mergekit drops: both draw at random")
        drop = alike({name: round(1 - share, 12) for name, share in density.items()})
        then = {"then": "ties"} if self.method == "dare_ties" else {}
        return {"drop": drop, **then, **elected}

    def linear(self, base: str | None, part: Slice) -> dict[str, Any]:
        weights = {each.source: self.number("weight", each.levels, None, each.place) for each in part.inputs}
        if base is not None and base not in weights:
            self.refuse(("base_model",), "linear merges have no base but one of the models", "name it in `models` too")
        for each in part.inputs:
            if weights[each.source] < 0:
                self.refuse(each.place, "the weight of a soup is not negative", "use task_arithmetic with a base")
        if self.flag("normalize", part.levels, default=True):
            weights = self.normalized(part, weights)
        elif not math.isclose(total := math.fsum(weights.values()), 1.0, abs_tol=1e-9):
            self.refuse(part.place, f"the weights of a soup add up to 1, not to {total:g}", "remove `normalize: false`")
        return {"method": "soup", "weights": weights, "start_from": base or part.inputs[0].source}

    def normalized(self, part: Slice, weights: dict[str, float]) -> dict[str, float]:
        total = math.fsum(weights.values())
        if abs(total) < 1e-8:
            self.refuse(part.place, "the weights add up to 0 and cannot be normalized", "correct them")
        return weights if total == 1 else {name: weight / total for name, weight in weights.items()}

    def gradient(self, part: Slice, *, single: bool) -> Any:
        """`t` of slerp: a number, a gradient, or parts with a filter."""
        value, place = self.value("t", part.levels)
        if value is None:
            self.refuse(part.place, "`t` is missing", "mergekit needs it too")
        if not isinstance(value, list) or not any(isinstance(each, dict) for each in value):
            return self.steps(value, place, single=single)
        return self.filtered(value, place, single=single)

    def filtered(self, value: list[Any], place: Place, *, single: bool) -> Any:
        parts: list[dict[str, Any]] = []
        for index in range(len(value)):
            entry = self.mapping((*place, index), ("filter", "value"))
            filtered = entry.get("filter")
            steps = self.steps(entry.get("value"), (*place, index, "value"), single=single)
            if filtered in {None, "*"}:
                return [*parts, {"value": steps}] if parts else steps
            parts.append({"filter": self.text((*place, index, "filter"), "must be a text"), "value": steps})
        return self.refuse(place, "no value where no filter fits", "end the list with an entry without `filter`")

    def steps(self, value: Any, place: Place, *, single: bool) -> Any:
        values = value if isinstance(value, list) else [value]
        if not values or not all(is_number(each) and 0 <= each <= 1 for each in values):
            self.refuse(place, "must be a number from 0 to 1, or a list of them", "correct it")
        if len(set(values)) > 1 and not single:
            self.refuse(place, "a gradient within each of several slices", "give one slice, or one number for each")
        return [float(each) for each in values] if len(values) > 1 else float(values[0])

    def bands(self, base: str | None, slices: Sequence[Slice]) -> list[dict[str, Any]]:
        """Layers of one model with bands from others."""
        if slices[-1].stop is None:
            self.refuse(("models",), "a copy of one model is no merge", "give `slices`")
        for each in slices:
            if len(each.inputs) != 1:
                self.refuse(each.place, "passthrough takes every layer from one model", "name one source")
        outer, last, layers = slices[0].inputs[0].source, slices[-1].inputs[0].source, slices[-1].stop
        if last != outer:
            text = f"embedding from {outer!r}, final norm and head from {last!r}: a band lies within one model"
            self.refuse(slices[-1].place, text, "begin and end with layers of one model")
        if base not in {None, outer}:
            self.refuse(("base_model",), f"other config and tokenizer than those of {outer!r}", "remove it")
        bands = [each for each in slices if each.inputs[0].source != outer]
        if not bands:
            self.refuse(("slices",), f"all layers are those of {outer!r}: nothing is merged", "name another model")
        return [
            {
                "method": "band_swap",
                "safety": each.inputs[0].source,
                "language": outer,
                "bottom": each.start,
                "top": layers - (each.stop or 0),
                "transition_bottom": 0,
                "transition_top": 0,
                "layers": layers,
            }
            for each in bands
        ]

    # the result

    def stored(self) -> dict[str, str]:
        found = {}
        for key in ("dtype", "out_dtype"):
            if (stated := self.at((key,))) is not None:
                if stated not in DTYPES:
                    self.refuse((key,), f"{stated!r} has no counterpart", f"one of {', '.join(DTYPES)}")
                found = {"dtype": DTYPES[stated]}
        narrow = self.at(("dtype",))
        if narrow in {"bfloat16", "float16"} and self.method != "passthrough":
            self.notes.append(f"mergekit rounds to {narrow} while it merges; a recipe rounds the result once")
        return found

    def tokenizer(self, base: str | None) -> dict[str, str]:
        place: Place = ("tokenizer_source",)
        if self.at(("tokenizer",)) is not None:
            if self.at(("tokenizer_source",)) is not None:
                self.refuse(("tokenizer",), "beside `tokenizer_source`", "give one of them")
            self.mapping(("tokenizer",), ("source",))
            place = ("tokenizer", "source")
        elif self.at(("tokenizer_source",)) is None:
            return {}
        stated = self.text(place, "names no tokenizer")
        if stated == "union":
            self.refuse(place, "a union of vocabularies", "use models of one vocabulary, and remove this")
        known = list(self.sources)
        named = base if stated == "base" else self.source(place)
        if named is None or named not in known:
            self.refuse(place, f"{stated!r} is none of the merged models", "name one of them")
        self.notes.append("no rows of embeddings are moved: models whose vocabularies differ are refused or warned of")
        return {"tokenizer_from": named}


def alike(options: Mapping[str, float]) -> float | dict[str, float]:
    """One number where all are the same."""
    values = list(options.values())
    return values[0] if all(value == values[0] for value in values) else dict(options)
