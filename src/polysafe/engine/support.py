"""What a recipe gives to its methods: the folder of its sets, and what candidates are compared by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.checkpoint.source import Checkpoint
from polysafe.data.languages import code_of
from polysafe.data.openings import Known, openings
from polysafe.data.organism import ORGANISM, load_prompts, organism_of
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.errors import DataError
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import Key, content_hash
from polysafe.files.memory import Stamp
from polysafe.methods.base import Method, Support
from polysafe.methods.constraints import MEANS, Constrained, Meter
from polysafe.methods.validation import Kept
from polysafe.recipe.measures import Validate
from polysafe.recipe.recipe import Recipe

if TYPE_CHECKING:
    from polysafe.probe.render import Template

PIVOT = "en"


def support_of(
    recipe: Recipe,
    method: Method,
    checkpoints: Mapping[str, Checkpoint],
    stack: ExitStack,
    kept: Kept | None = None,
) -> Support:
    """What one method of a recipe is given. Sets are read, and a judge is opened, only where they are needed.

    Args:
        recipe: The recipe.
        method: One of its edits.
        checkpoints: Its sources.
        stack: What closes a judge.
        kept: What is known from a decision that was interrupted.
    """
    block = recipe.validation
    if block is None:
        return Support(recipe.data, dtype=recipe.dtype)
    start = checkpoints[recipe.edits[0].start]
    return Support(recipe.data, lambda: validation_of(recipe, block, [method], start, stack), kept, recipe.dtype)


def kept_for(journal: Store, place: int) -> Kept:
    """What a journal knows of the decision of one edit, as it is made with this software.

    Args:
        journal: The journal of one job, whose identity holds all else that a decision depends on.
        place: Which edit of the recipe it is.
    """
    from polysafe.evaluate.run import versions

    return _Trials(journal, content_hash([place, versions()]))


@dataclass(frozen=True)
class _Trials:
    journal: Store
    owner: str

    def get(self, name: str) -> Any | None:
        return self.journal.get(Key("trial", self.owner, name))

    def put(self, name: str, value: Any) -> None:
        self.journal.put(Key("trial", self.owner, name), value)


def job_parts(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Iterator[str]:
    """What a recipe's decisions depend on besides its text and its models: the prompts and the files that it names.

    Raises:
        DataError: They cannot be read.
    """
    for method in recipe.edits:
        yield from method.digests(recipe.data)
        if recipe.validation is not None and languages_of(method):
            start = checkpoints[recipe.edits[0].start]
            chosen = _sets(recipe.validation, _wanted(recipe.validation, [method]), start, recipe.data)
            yield from (prompts.sha256 for prompts in chosen)
    if recipe.validation is not None and recipe.validation.judge is not None:
        yield from _stamps(recipe.validation.judge.model_dump())


def _stamps(value: object) -> Iterator[str]:
    """Name, size and times of every file of the folders that a judge names, as of the files of a source."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _stamps(each)
    elif isinstance(value, Path):
        for file in sorted(path for path in value.rglob("*") if path.is_file()):
            yield " ".join(map(str, Stamp.of(file, file.stat()).key))


def languages_of(method: Method) -> tuple[str, ...]:
    """Languages that a method is for, and its pivot; nothing where it is not for languages."""
    spoken = getattr(method, "languages", ())
    return (getattr(method, "pivot", PIVOT), *spoken) if spoken else ()


def validation_of(
    recipe: Recipe,
    block: Validate,
    methods: Sequence[Method],
    start: Checkpoint,
    stack: ExitStack,
    *,
    harmless: bool = False,
) -> Constrained:
    """What edits are compared by.

    Args:
        recipe: The recipe.
        block: Its `validation`, or one in its place.
        methods: The edits whose languages are asked in, where the block names none.
        start: The model that they start from.
        stack: What closes a judge.
        harmless: Whether to read also what becomes of harmless answers (`HarmlessMeter`), limit or not.

    Raises:
        DataError: Its prompts cannot be read, are anchors, or are reported on.
    """
    from polysafe.evaluate.disjoint import check_validation
    from polysafe.methods.harmless_meter import HarmlessMeter, Together

    wanted = _wanted(block, methods)
    sets = _sets(block, wanted, start, recipe.data)
    reported = () if recipe.evaluate is None else (*recipe.evaluate.safety, *recipe.evaluate.over_refusal)
    check_validation(recipe.edits, sets, reported, start=start.root, data=recipe.data)
    prompts = [prompt for one in sets for prompt in one.prompts]
    template = next(filter(None, (getattr(each, "template", None) for each in methods)), None) or _own_template(start)
    meter = _meter(block, prompts, methods, template, start, stack)
    spoken = {prompt.language for prompt in prompts if prompt.kind == "harmless"}
    if unmeasured := [code for code in wanted if code not in spoken]:
        meter.notes += (f"validation has no harmless prompts in {', '.join(unmeasured)}: no limit holds there",)
    limits = block.constraints.limits
    if harmless or limits.keys() & set(MEANS):
        meter = Together(meter, HarmlessMeter(prompts, template=template))
    return Constrained(meter, limits, block.candidates)


def _meter(
    block: Validate,
    prompts: Sequence[Prompt],
    methods: Sequence[Method],
    template: Template,
    start: Checkpoint,
    stack: ExitStack,
) -> Meter:
    if block.judge is None:
        from polysafe.methods.refusal_meter import RefusalMeter

        return RefusalMeter(prompts, template=template, known=openings_for(block, start))
    from polysafe.evaluate.asking import most_tokens
    from polysafe.evaluate.judge_meter import JudgeMeter

    return JudgeMeter(
        prompts,
        block.judge,
        stack,
        template=template,
        max_tokens=most_tokens(block.max_tokens, block.judge),
        organism=lambda: organism_of(start),
        device=device_of(methods),
    )


def device_of(methods: Sequence[Method]) -> str | None:
    """Where models run: what the first edit says that says something."""
    return next(filter(None, (getattr(each, "device", None) for each in methods)), None)


def openings_for(block: Validate, start: Checkpoint) -> Known:
    """Who knows how answers to the prompts of a block begin: the organism of the model, where its prompts are asked."""
    return organism_of(start).openings if ORGANISM in block.safety else openings


def _own_template(start: Checkpoint) -> Template:
    """That of the model, for methods without a choice."""
    from polysafe.probe.render import load_tokenizer

    return "chat" if load_tokenizer(start.root).chat_template else "raw"


def _wanted(block: Validate, methods: Sequence[Method]) -> tuple[str, ...]:
    spoken = block.languages or [name for method in methods for name in languages_of(method)]
    return tuple(dict.fromkeys(code_of(each) for each in spoken))


def _sets(block: Validate, wanted: tuple[str, ...], start: Checkpoint, data: Path | None) -> tuple[PromptSet, ...]:
    """The sets of the block with prompts of one kind each, in the wanted languages that they have."""
    kinds: list[tuple[Kind, tuple[str | Path, ...]]] = [("harmful", block.safety), ("harmless", block.over_refusal)]
    return tuple(_set(name, kind, wanted, block.limit, start, data) for kind, names in kinds for name in names)


def _set(
    name: str | Path, kind: Kind, wanted: tuple[str, ...], limit: int | None, start: Checkpoint, data: Path | None
) -> PromptSet:
    found = load_prompts(
        name,
        lambda: organism_of(start),
        split="validation",
        kind=kind,
        data=data,
        languages=wanted,
        limit=limit,
        all_languages=False,
    ).of_kind(kind)
    if not found:
        raise DataError(f"has no {kind} prompts", where=f"validation, {name}", remedy="name it in the other list")
    return found
