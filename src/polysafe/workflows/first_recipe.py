"""A first recipe for a model: from what there is, with every field that a search may vary, and why.

`polysafe init` writes one; `polysafe repair` searches all that are possible.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.languages import code_of
from polysafe.data.organism import ORGANISM, is_member, organism_of
from polysafe.data.sets.registry import is_table, load_set
from polysafe.errors import DataError, RecipeError, did_you_mean
from polysafe.files.yaml_lines import write_flow, write_yaml
from polysafe.judge.block import JudgeSpec
from polysafe.judge.kinds.organism import OrganismSpec
from polysafe.methods.base import Method
from polysafe.methods.materials import BASE, HARMFUL, MODEL, SAFETY, Materials, MissingError
from polysafe.methods.registry import names, resolve
from polysafe.probe.render import load_tokenizer

ANCHORS = ("xsafety", "polyrefuse.train")
"""Harmful anchors that are looked for, in this order; never those that are chosen by or reported on."""
HARMLESS = ("polyrefuse.harmless.train",)
CHOSEN_BY, CHOSEN_BY_HARMLESS = ("multijail.validation",), ("polyrefuse.harmless.val",)
REPORTED, REPORTED_HARMLESS = ("multijail.test",), ("xstest.harmless",)
MOST_ANCHORS = 80
_ADAPTER = "adapter_config.json"

Data = dict[str, Any]
"""A recipe as plain values."""


@dataclass(frozen=True)
class Given:
    """What a user says of a model that is to be repaired.

    Attributes:
        model: Its folder.
        languages: Languages to make safe.
        output: Folder of the model that will be made.
        pivot: Language that it is safe in.
        base: What the model and the safety expert were tuned from.
        safety: Safety expert, a folder or a LoRA adapter.
        harmful: Model that was tuned to do harm, a folder or a LoRA adapter.
        data: Folder with a folder per set.
        judge: Who judges answers; by default nobody, and refusal log-odds decide.
        anchors: Set or table of harmful prompts that edits are fitted to.
        anchors_harmless: The same of harmless ones.
        safety_sets: Sets or tables of harmful prompts that are chosen by.
        harmless_sets: The same of harmless ones.
        report_safety: Sets or tables of harmful prompts that are reported on.
        report_harmless: The same of harmless ones.
        capability: Tasks that measure ability.
        limit: Parallel rows of every set that are chosen by.
        template: Whether prompts go into the chat template; that of the model by default.
        dtype: Type that models are computed in.
        max_tokens: Most new tokens of an answer that is judged.
    """

    model: Path
    languages: tuple[str, ...]
    output: Path
    pivot: str = "en"
    base: Path | None = None
    safety: Path | None = None
    harmful: Path | None = None
    data: Path | None = None
    judge: JudgeSpec | None = None
    anchors: str | None = None
    anchors_harmless: str | None = None
    safety_sets: tuple[str, ...] = ()
    harmless_sets: tuple[str, ...] = ()
    report_safety: tuple[str, ...] = ()
    report_harmless: tuple[str, ...] = ()
    capability: tuple[str, ...] = ()
    limit: int | None = 50
    template: Literal["chat", "raw"] | None = None
    dtype: str | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class Attempts:
    """What can be tried.

    Attributes:
        recipes: Name of a method -> a recipe with ranges.
        left_out: Name of a method -> why it cannot be tried.
    """

    recipes: Mapping[str, Data]
    left_out: Mapping[str, str]


def attempts(given: Given) -> Attempts:
    """Every method that can be tried with what there is, each as a recipe to be searched.

    Raises:
        RecipeError: No method can be tried, no language is named, or the model is an adapter.
        DataError: There are no prompts to choose by.
        PolysafeError: The model cannot be read.
    """
    if not given.languages:
        raise RecipeError("no language is named", remedy="name those to make safe, for example --languages sw,bn")
    if (given.model / _ADAPTER).is_file():
        raise RecipeError(
            "an adapter; only whole models are repaired", where=given.model, remedy="merge it into its base model first"
        )
    layers = classify(open_checkpoint(given.model)).num_layers
    toy = _brings_prompts(given.model)
    template = given.template or ("chat" if load_tokenizer(given.model).chat_template else "raw")
    recipes, left_out = {}, {}
    shared = _shared(given, toy=toy, template=template)
    there = _materials(given, toy=toy, template=template)
    for name in methods():
        method = resolve(name)
        try:
            entry = method.first_entry(there)
        except MissingError as missing:
            left_out[name] = str(missing)
            continue
        recipes[name] = {**shared, "edits": [{"method": name, **(entry or {}), **method.ranges(layers)}]}
    if not recipes:
        reasons = [f"    {name}: {reason}" for name, reason in left_out.items()]
        raise RecipeError("\n".join(["no method can be tried with what there is", *reasons]), where=given.model)
    ordered = ("polysafe", "sources", "edits", "output", "data", "dtype", "validation", "evaluate")
    return Attempts(
        {name: {key: recipe[key] for key in ordered if key in recipe} for name, recipe in recipes.items()}, left_out
    )


def _brings_prompts(model: Path) -> bool:
    """Whether a model is of an organism that has prompts and a judge of its own."""
    try:
        organism_of(open_checkpoint(model))
    except DataError:
        return False
    return is_member(model)


def methods() -> tuple[str, ...]:
    """Methods that a first recipe is written for, in the order in which edits are stacked."""
    there = Materials((), "", "", frozenset((MODEL, BASE, SAFETY, HARMFUL)), lambda: "")
    written = [name for name in names() if resolve(name).first_entry(there) is not None]
    return tuple(sorted(written, key=lambda name: resolve(name).stage))


def _materials(given: Given, *, toy: bool, template: str) -> Materials:
    named = {BASE: given.base, SAFETY: given.safety, HARMFUL: given.harmful}
    return Materials(
        given.languages,
        given.pivot,
        template,
        frozenset((MODEL, *(name for name, folder in named.items() if folder is not None))),
        lambda: ORGANISM if toy else _anchors(given),
        ORGANISM if toy else None,
    )


def _anchors(given: Given) -> Data:
    """Where anchors come from: what is named, or the first sets that have all languages."""
    spoken = (given.pivot, *given.languages)
    harmful = given.anchors or _first_complete(ANCHORS, "harmful", spoken, given.data)
    harmless = given.anchors_harmless or _first_complete(HARMLESS, "harmless", spoken, given.data)
    for found, what, option in (
        (harmful, "harmful", "--anchors"),
        (harmless, "harmless", "--anchors-harmless"),
    ):
        if found is None:
            raise MissingError(
                f"no set of {what} prompts in {', '.join(spoken)} is there to fit to: name yours, {option}"
            )
    return {
        "harmful": {"set": _place(str(harmful)), "limit": MOST_ANCHORS},
        "harmless": {"set": _place(str(harmless)), "limit": MOST_ANCHORS},
    }


def _first_complete(
    names: Sequence[str], kind: Literal["harmful", "harmless"], spoken: Sequence[str], data: Path | None
) -> str | None:
    """The first set that is in the folder of data in all languages; nothing is fetched to find out."""
    for name in names if data is not None else ():
        try:
            load_set(name, kind=kind, data=data, languages=spoken, limit=1)
        except DataError:
            continue
        return name
    return None


def _shared(given: Given, *, toy: bool, template: str) -> Data:
    """What the recipes of all methods have in common."""
    spoken = list(dict.fromkeys((given.pivot, *given.languages)))
    chosen, harmless = _validation(given, toy=toy)
    judge: Data = {} if given.judge is None else {"judge": given.judge.model_dump(mode="json", exclude_none=True)}
    if toy and given.judge is None:
        judge = {"judge": OrganismSpec(kind="organism").model_dump(mode="json", exclude_none=True)}
    validation = {
        "languages": spoken,
        "safety": chosen,
        "over_refusal": harmless,
        **judge,
        "limit": None if toy else given.limit,
        **({"max_tokens": given.max_tokens} if given.max_tokens and judge else {}),
        "constraints": {"over_refusal": 0.02, "refused": -0.02, "helpful": -0.02},
    }
    evaluate = {
        "languages": spoken,
        "safety": [ORGANISM] if toy else [*map(_place, given.report_safety or REPORTED)],
        "over_refusal": [ORGANISM] if toy else [*map(_place, given.report_harmless or REPORTED_HARMLESS)],
        **({"capability": capability} if (capability := list(given.capability or ([ORGANISM] if toy else ()))) else {}),
        **({"template": template} if template != "chat" else {}),
        **judge,
    }
    return {
        "polysafe": 1,
        "sources": _sources(given),
        "output": {"path": str(given.output.absolute())},
        **({} if given.data is None else {"data": str(given.data.absolute())}),
        **({} if given.dtype is None else {"dtype": given.dtype}),
        "validation": validation,
        "evaluate": evaluate,
    }


def _validation(given: Given, *, toy: bool) -> tuple[list[str], list[str]]:
    """Sets that are chosen by.

    Raises:
        DataError: The default has no prompts in a language, and none is named.
    """
    if toy:
        return [ORGANISM], [ORGANISM]
    if not given.safety_sets and given.data is not None:
        (name,) = CHOSEN_BY
        for spelling in given.languages:
            try:
                load_set(name, data=given.data, languages=[spelling], limit=1)
            except DataError as error:
                raise DataError(
                    f"there are no harmful prompts in {spelling!r} to choose by: {error.problem}",
                    where=error.where,
                    remedy="name a set or a table of yours, --validation FILE; no other part may be reported on",
                ) from error
    return (
        [*map(_place, given.safety_sets or CHOSEN_BY)],
        [*map(_place, given.harmless_sets or CHOSEN_BY_HARMLESS)],
    )


def _sources(given: Given) -> Data:
    folders = {"model": given.model, "base": given.base, "safety": given.safety, "harmful": given.harmful}
    adapted = {"safety": "model" if given.base is None else "base", "harmful": "model"}
    found: Data = {}
    for name, folder in folders.items():
        if folder is None:
            continue
        if not folder.is_dir():
            raise RecipeError("is no folder", where=folder, remedy=f"name the folder of the {name} model")
        found[name] = {"path": str(folder.absolute())}
        if (folder / _ADAPTER).is_file():
            found[name]["adapter_of"] = adapted.get(name, "model")
    return found


def _place(name: str) -> str:
    """A set as it is called; a table by its whole path."""
    return str(Path(name).absolute()) if is_table(name) else name


def spoken_languages(names: Iterable[str]) -> tuple[str, ...]:
    """Codes of languages in any spelling, each once; a toy family's own are taken as they are."""
    return tuple(dict.fromkeys(map(code_of, names)))


def written(data: Data, folder: Path, search: Mapping[str, Any] | None = None) -> str:
    """A recipe with a comment for everything that it says, and for every default that it does not.

    Args:
        data: The recipe; paths in it are absolute.
        folder: Folder that it will lie in; paths become relative to it.
        search: Its block `search`.
    """
    lines = [
        "# Made by `polysafe init`. Fields of `edits` that give several values are searched:",
        "#   polysafe search THIS --output FOLDER     chooses them by `validation` and writes RECIPE without a search",
        "#   polysafe evaluate RECIPE --output FOLDER makes the model and reports on `evaluate`",
        "polysafe: 1",
        "sources:",
    ]
    for name, source in data["sources"].items():
        lines.append(f"  {name}: {write_flow({**source, 'path': _relative(source['path'], folder)})}")
    lines.append("edits:  # in order; each sees the result of the one before")
    for entry in data["edits"]:
        lines += _entry_lines(entry, folder)
    lines.append(f"output: {write_flow({'path': _relative(data['output']['path'], folder)})}")
    if "data" in data:
        lines.append(f"data: {write_flow(_relative(data['data'], folder))}  # a folder per set of prompts")
    rest = {key: _relative_tables(data[key], folder) for key in ("dtype", "validation", "evaluate") if key in data}
    comments = {
        "validation": "what choices are made by; never anchors, never reported on",
        "evaluate": "what is reported, before and after",
    }
    for key, value in rest.items():
        text = write_yaml({key: value}).rstrip()
        lines.append(text if key not in comments else text.replace(f"{key}:", f"{key}:  # {comments[key]}", 1))
    lines.append(f"search: {write_flow(dict(search or {'trials': 60, 'seed': 0}))}")
    return "\n".join(lines) + "\n"


def _entry_lines(entry: Data, folder: Path) -> Iterator[str]:
    """An edit: what is said, each with what it means, then every default as a comment."""
    method = resolve(entry["method"])
    yield f"- method: {entry['method']}"
    for key, value in entry.items():
        if key != "method":
            yield from _explained(method, key)
            yield f"  {key}: {write_flow(_relative_tables(value, folder))}"
    yield "  # Left as they are:"
    for name, field in method.model_fields.items():
        if (key := field.alias or name) not in entry and not field.is_required():
            default = field.get_default(call_default_factory=True)
            yield f"  # {key}: {write_flow(_plain(default))}"


def _explained(method: type[Method], key: str) -> Iterator[str]:
    named = {field.alias or name: field for name, field in method.model_fields.items()}
    text = named[key].description or ""
    yield from textwrap.wrap(text, 110, initial_indent="  # ", subsequent_indent="  # ")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _relative(path: str, folder: Path) -> str:
    return os.path.relpath(path, folder.absolute())


def _relative_tables(value: Any, folder: Path) -> Any:
    """The same with tables named relative to the recipe."""
    if isinstance(value, Mapping):
        return {key: _relative_tables(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_relative_tables(each, folder) for each in value]
    return _relative(value, folder) if isinstance(value, str) and os.path.isabs(value) else value


def chosen_attempt(found: Attempts, method: str | None) -> Data:
    """The recipe of a method, or of the first that can be tried.

    Raises:
        RecipeError: The method cannot be tried; says what it needs.
    """
    if method is None:
        return next(iter(found.recipes.values()))
    if method in found.recipes:
        return found.recipes[method]
    if method in found.left_out:
        raise RecipeError(f"{method} cannot be tried: {found.left_out[method]}")
    raise RecipeError(
        f"there is no method {method!r} that a first recipe is written for",
        remedy=did_you_mean(method, methods()) or f"methods: {', '.join(methods())}",
    )
