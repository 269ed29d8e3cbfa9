"""The recipe: which checkpoints, which edits, where to.

A `Recipe` is the same value whether it was read from YAML or built in Python. Paths in it are absolute; a
relative path is taken from the folder of the recipe (in Python: from the working directory).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    JsonValue,
    PlainSerializer,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_serializer,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import WithJsonSchema, models_json_schema

from polysafe.checkpoint.hub import COMMIT
from polysafe.checkpoint.licence import chosen_licence
from polysafe.errors import PolysafeError, RecipeError, did_you_mean
from polysafe.files.paths import PACKAGE, AbsolutePath, FilePlace
from polysafe.files.recipe_errors import explain, problem
from polysafe.files.yaml_lines import MAX_BYTES, Document, Place, read_yaml, write_yaml
from polysafe.judge.spec import keys_of, place_keys
from polysafe.methods.base import Method
from polysafe.methods.registry import names, resolve
from polysafe.recipe.measures import Block, Constraints, Evaluate, Name, NotEmpty, Validate

SCHEMA_VERSION = 1

_FACTORS: dict[str, int] = {"": 1} | {
    f"{prefix}{binary}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for binary, base in (("", 1000), ("i", 1024))
}
_OTHERS = {
    "search": ("fields of this recipe are to be searched", "`polysafe search` ends in one whose fields are settled"),
    "each": ("this file has several recipes", "`polysafe plan` and `polysafe run` take it; or write one recipe"),
}
"""Blocks of files that are no recipe yet -> what that means."""
_SIZE = r"^\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMGTkmgt]?i?)[Bb]?\s*$"


def parse_size(value: object) -> int:
    """Read a number of bytes: `5GB` (decimal), `512MiB` (binary) or a plain integer.

    Raises:
        RecipeError: Anything else, or less than one byte.
    """
    match = re.match(_SIZE, str(value))
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None or (size := round(Decimal(match[1]) * factor)) < 1:
        raise RecipeError(f"{value!r} is not a size", remedy="write it like 5GB (decimal) or 512MiB")
    return size


def format_size(size: int) -> str:
    """The shortest exact form of a number of bytes that `parse_size` reads."""
    unit, factor = max((item for item in _FACTORS.items() if size % item[1] == 0), key=lambda item: item[1])
    return f"{size // factor}{unit.upper().replace('I', 'i')}B"


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except RecipeError as error:
        raise problem(error.problem, error.remedy) from error


Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SIZE}, {"type": "integer", "minimum": 1}]}),
]


def _method(value: object, info: ValidationInfo) -> Method:
    if isinstance(value, Method):
        return value
    entry = dict(value) if isinstance(value, Mapping) else {}
    name = entry.pop("method", None)
    if not isinstance(name, str):
        raise problem("every edit names its `method`", f"methods: {', '.join(names())}")
    try:
        method = resolve(name)
    except RecipeError as error:
        raise problem(error.problem, error.remedy, at=("method",)) from error
    try:
        return method.model_validate(entry, context=info.context)
    except PolysafeError as error:
        raise problem(error.problem, error.remedy) from error


class SourceRef(Block):
    """Where a checkpoint is: a local folder, a hub id at one commit, or a GGUF file."""

    path: AbsolutePath | None = None
    """Folder of the checkpoint."""

    hub: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*/\w[\w.-]*$")] | None = None
    """Hub id, `organisation/name`."""

    revision: str | None = None
    """Full commit hash: a branch or tag can move, and then the recipe would mean another model."""

    gguf: FilePlace | None = None
    """A GGUF file, or `package:NAME` for one in an installed package; it is dequantised once, into the cache."""

    adapter_of: str | None = None
    """For a LoRA adapter: name of the source that it was trained on. It is read as the merged model."""

    @model_validator(mode="after")
    def _one_place(self) -> SourceRef:
        if sum(place is not None for place in (self.path, self.hub, self.gguf)) != 1:
            raise problem("a source is either `path`, `hub` with `revision`, or `gguf`", "give one of them")
        if self.hub is None and self.revision is not None:
            raise problem("`revision` belongs to `hub`, not to a folder or file", "remove it", at=("revision",))
        if self.gguf is not None and self.adapter_of is not None:
            raise problem("an adapter in a GGUF file cannot be read", "name its PEFT folder as `path`", at=("gguf",))
        if self.hub is not None and not COMMIT.match(self.revision or ""):
            raise problem(
                "a hub source needs the full commit hash, 40 hexadecimal digits, as `revision`",
                "the model's page lists it under 'Files and versions'; or run: python -c "
                f"\"import huggingface_hub as h; print(h.model_info('{self.hub}').sha)\"",
                at=("revision",),
            )
        return self


class Output(Block):
    """Where the result goes."""

    path: AbsolutePath
    """Folder to write; it appears only when everything in it is complete."""

    shard_size: Size = 5_000_000_000
    """Largest size of one weight file: `5GB` (decimal), `512MiB` (binary) or a number of bytes."""

    dtype: Literal["F32", "BF16", "F16"] | None = None
    """Type that floating-point tensors are stored in; without it that of the model that the edits start from."""

    tokenizer_from: str | None = None
    """Source whose tokenizer, chat template and generation config are copied; without it the method says."""

    license: Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)] | None = None
    """The hub's identifier of the result's licence, for its model card; needed where the sources do not settle it."""

    license_name: str | None = None
    """Name of a licence that is `other` on the hub."""

    @model_validator(mode="after")
    def _known_licence(self) -> Output:
        if self.license is None and self.license_name is None:
            return self
        try:
            chosen_licence(self.license or "", self.license_name)
        except RecipeError as error:
            key = "license" if self.license is not None else "license_name"
            raise problem(error.problem, error.remedy, at=(key,)) from error
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_chosen(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        chosen = {"dtype", "license", "license_name"}
        data: dict[str, Any] = dump(self)
        return {key: value for key, value in data.items() if key not in chosen or value is not None}


class Recipe(Block):
    """What to do, completely."""

    polysafe: Literal[1]
    """Version of the recipe's schema."""

    sources: Annotated[dict[Name, SourceRef], *NotEmpty]
    """The checkpoints, by the names that the edits use."""

    edits: Annotated[tuple[Annotated[SerializeAsAny[Method], BeforeValidator(_method)], ...], *NotEmpty]
    """The edits in order; each sees the result of the one before."""

    output: Output
    """Where the result goes."""

    data: AbsolutePath | None = None
    """Folder with a folder per set of prompts, for all sets that the recipe names; `--data` overrides it."""

    dtype: Literal["F32", "BF16", "F16"] | None = None
    """Type that models are computed in while edits are decided; F32 on a processor and the stored one elsewhere."""

    validation: Validate | None = None
    """What methods choose by, where they have something to choose."""

    evaluate: Evaluate | None = None
    """What is measured before and after, if anything."""

    @model_validator(mode="before")
    @classmethod
    def _known_version(cls, data: object) -> object:
        version = data.get("polysafe", SCHEMA_VERSION) if isinstance(data, Mapping) else SCHEMA_VERSION
        # `True == 1` and `1.0 == 1`, and neither is a version.
        if type(version) is not int or version != SCHEMA_VERSION:
            raise problem(
                f"schema version {version!r} is unknown: this polysafe reads version {SCHEMA_VERSION}",
                "write `polysafe: 1`, or install the polysafe that wrote the recipe",
                at=("polysafe",),
            )
        for key, (text, remedy) in _OTHERS.items():
            if isinstance(data, Mapping) and key in data:
                raise problem(text, remedy, at=(key,))
        return data

    @model_validator(mode="after")
    def _sources_exist(self) -> Recipe:
        for name, at in self._named_sources():
            if name not in self.sources:
                remedy = did_you_mean(name, self.sources) or f"sources: {', '.join(self.sources)}"
                raise problem(f"no source is called {name!r}", remedy, at=at)
        for name, source in self.sources.items():
            if source.adapter_of is not None and self.sources[source.adapter_of].adapter_of is not None:
                at = ("sources", name, "adapter_of")
                raise problem(
                    f"{source.adapter_of!r} is an adapter itself", "name the full model that both adapt", at=at
                )
        return self

    @model_validator(mode="after")
    def _one_model_changes(self) -> Recipe:
        start = self.edits[0].start
        for index, method in enumerate(self.edits):
            if method.start != start:
                at = _mention(method.model_dump(mode="json", by_alias=True), method.start)
                raise problem(
                    f"this edit changes {method.start!r}, but the first one changes {start!r}",
                    "let every edit of a recipe change the same model; each sees the result of the one before",
                    at=("edits", index, *at),
                )
        return self

    def _named_sources(self) -> Iterator[tuple[str, Place]]:
        """Every source that is named somewhere, with the path to the place."""
        for name, source in self.sources.items():
            if source.adapter_of is not None:
                yield source.adapter_of, ("sources", name, "adapter_of")
        for index, method in enumerate(self.edits):
            entry = method.model_dump(mode="json", by_alias=True)
            for name in method.uses:
                yield name, ("edits", index, *_mention(entry, name))
        if self.output.tokenizer_from is not None:
            yield self.output.tokenizer_from, ("output", "tokenizer_from")

    @model_serializer(mode="wrap")
    def _without_absent(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a recipe does not name is not written; that there is no `evaluate` always was."""
        written: dict[str, Any] = rest(self)
        return {key: value for key, value in written.items() if value is not None or key not in {"data", "validation"}}

    @field_serializer("sources")
    def _serialise_sources(self, sources: dict[str, SourceRef]) -> dict[str, JsonValue]:
        return {name: source.model_dump(mode="json", exclude_none=True) for name, source in sources.items()}

    @field_serializer("edits")
    def _serialise_edits(self, edits: tuple[Method, ...]) -> list[dict[str, JsonValue]]:
        # The version goes in: a later polysafe may give the bare name a newer meaning.
        return [
            {"method": f"{edit.name}.v{edit.version}", **edit.model_dump(mode="json", by_alias=True)} for edit in edits
        ]

    def with_data(self, data: Path | None) -> Recipe:
        """The same with another folder of sets; as it is where None is given."""
        return self if data is None else self.model_copy(update={"data": data.absolute()})

    def to_yaml(self, relative_to: Path | None = None) -> str:
        """The recipe with every default written out; `parse_recipe` reads the same value back.

        Args:
            relative_to: Folder that paths are written relative to; by default they are absolute.
        """
        data = self.model_dump(mode="json")
        if relative_to is not None:
            sources = [(each, key) for each in data["sources"].values() for key in ("path", "gguf")]
            for block, key in [*sources, (data["output"], "path"), (data, "data")]:
                if key in block and not block[key].startswith(PACKAGE):
                    block[key] = os.path.relpath(block[key], relative_to)
        return write_yaml(data)


def _mention(value: object, name: str) -> Place:
    """Path of the first text, or key, in `value` that is `name`; empty if there is none."""
    children: Mapping[str, object] | dict[int, object]
    if isinstance(value, Mapping):
        children = value
    elif isinstance(value, (list, tuple)):
        children = dict(enumerate(value))
    else:
        return ()
    for key, child in children.items():
        if name in (key, child):
            return (key,)
        if path := _mention(child, name):
            return (key, *path)
    return ()


def build_recipe(data: object, folder: str | os.PathLike[str], document: Document | None) -> Recipe:
    """A recipe from plain values that may have stood in a file.

    Raises:
        RecipeError: Naming every value that is wrong, with its line where the file is known.
    """
    try:
        return Recipe.model_validate(data, context={"folder": os.fspath(folder)})
    except ValidationError as error:
        raise explain(error, data, document, _keys_at) from None


def _keys_at(data: object, path: Place) -> tuple[str, ...]:
    """The keys that the block at `path` may have."""
    match path:
        case ():
            model: type[BaseModel] = Recipe
        case ("sources", _):
            model = SourceRef
        case ("output",):
            model = Output
        case ("evaluate",):
            model = Evaluate
        case ("validation",):
            model = Validate
        case ("validation", "constraints"):
            model = Constraints
        case ("evaluate" | "validation", "judge", *_):
            return _judge_keys_at(data, path)
        case ("edits", int(index)) if isinstance(data, Mapping):
            return ("method", *_aliases(resolve(data["edits"][index]["method"])))
        case _:
            return ()
    return _aliases(model)


def _judge_keys_at(data: object, path: Place) -> tuple[str, ...]:
    if path[-1] == "translator":
        return place_keys()
    for part in path:
        data = data[part]  # type: ignore[index]
    return keys_of(data.get("kind")) if isinstance(data, Mapping) else ()


def _aliases(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())


def make_recipe(data: Mapping[str, object], folder: str | os.PathLike[str] = "") -> Recipe:
    """Build a recipe from plain values, as they would stand in YAML.

    Args:
        data: The recipe; entries of `edits` may be mappings or `Method` values.
        folder: What relative paths are relative to; by default the working directory.

    Raises:
        RecipeError: Naming every value that is wrong.
    """
    return build_recipe(data, folder, None)


def parse_recipe(text: str, name: str = "recipe", folder: str | os.PathLike[str] = "") -> Recipe:
    """Read a recipe from YAML text.

    Args:
        text: The YAML.
        name: What error messages call the text.
        folder: What relative paths are relative to.

    Raises:
        RecipeError: With the line of every problem.
    """
    document = read_yaml(text, name)
    if not isinstance(document.value, dict):
        raise RecipeError("a recipe is a mapping that begins with `polysafe: 1`", where=f"{name}:1")
    return build_recipe(document.value, folder, document)


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file; relative paths in it are relative to its folder.

    Raises:
        RecipeError: The file cannot be read, or, with line numbers, what is wrong in it.
    """
    file = Path(path)
    return parse_recipe(read_recipe_file(file), str(file), file.parent)


def read_recipe_file(file: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: It cannot be read.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise RecipeError("a folder, not a recipe", where=file, remedy="name the YAML file in it") from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=file) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError("not UTF-8 text", where=f"{file}:{line}", remedy="save the file as UTF-8") from None


def recipe_schema() -> dict[str, Any]:
    """JSON schema of recipes with every registered method, for editors and other programs."""
    methods = [resolve(name) for name in names()]
    models: list[type[BaseModel]] = [Recipe, *methods]
    refs, definitions = models_json_schema([(model, "validation") for model in models])
    defs = definitions["$defs"]
    schema = defs.pop("Recipe")
    entries = [_entry_schema(method, refs[method, "validation"], defs) for method in methods]
    schema["properties"]["edits"]["items"] = {"oneOf": entries}
    text = json.dumps([schema, defs])
    used = {key: value for key, value in defs.items() if f'"#/$defs/{key}"' in text}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": used}


def _entry_schema(method: type[Method], ref: dict[str, str], defs: dict[str, Any]) -> dict[str, Any]:
    key = ref["$ref"].rpartition("/")[2]
    schema: dict[str, Any] = defs.pop(key)
    schema["properties"] = {
        "method": {"enum": [method.name, f"{method.name}.v{method.version}"]},
        **schema.get("properties", {}),
    }
    schema["required"] = ["method", *schema.get("required", [])]
    return schema
