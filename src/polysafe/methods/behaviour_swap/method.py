"""Behaviour-referenced swapping: a block goes to the safety expert for what that does to the language expert's answers.

`layer_swap` asks how far either expert has moved in a block. This method asks what the block does: it is set to the
safety expert's, and refusals of harmful prompts and the expert's own answers to harmless ones are read again
(`block_effects`), exactly or to first order. Blocks that are shown to raise refusals at a cost that is allowed
are taken, up to a budget (`choice`); held-out anchors have the last word, and it may be that nothing is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from polysafe.checkpoint.opened import Source, Sources
from polysafe.data.anchors import Anchors
from polysafe.data.openings import openings
from polysafe.data.organism import organism_of
from polysafe.data.prompts import PromptSet
from polysafe.edits.edit import Decision, Edit
from polysafe.edits.operations import Copy
from polysafe.errors import RecipeError
from polysafe.files.paths import AbsolutePath
from polysafe.methods.agreement import architecture_notes, require_agreement, storage_notes
from polysafe.methods.anchor_options import AnchorSource, anchor_prompts, read_anchors, shared_with
from polysafe.methods.base import SourceName, Support, Work, distinct
from polysafe.methods.behaviour_swap.choice import Choice, Limits, Measured
from polysafe.methods.behaviour_swap.questions import Asking
from polysafe.methods.behaviour_swap.study import Found, Study
from polysafe.methods.blocks import BlockKey, Granularity, blocks_of
from polysafe.methods.materials import MODEL, SAFETY, Materials
from polysafe.methods.random_blocks import BlockMethod
from polysafe.methods.registry import register
from polysafe.methods.scores import movement
from polysafe.probe.model import load_model
from polysafe.stats.ranks import rank_agreement

Count = Annotated[int, Field(ge=1)]


@register
class BehaviourSwap(BlockMethod):
    """Take the blocks of a safety expert that make a language expert refuse, at a cost that is allowed."""

    name: ClassVar[str] = "behaviour_swap"
    version: ClassVar[int] = 1
    citation: ClassVar[str] = (
        "polysafe's own; it swaps blocks as Shin and Hwang do: Layer-wise Swapping for Generalizable Multilingual "
        "Safety. EACL 2026. https://arxiv.org/abs/2601.22620"
    )
    unmeasured: ClassVar[frozenset[str]] = frozenset(
        {"granularity", "search", "budget", "benign_loss", "over_refusal", "base", "control", "control_seed"}
    )
    titles: ClassVar[Mapping[str, str]] = {
        "behaviour_swap": "Swapping by behaviour",
        "behaviour_swap.layer": "Layer swapping by behaviour",
        "behaviour_swap.module": "Module swapping by behaviour",
        "behaviour_swap.projection": "Projection swapping by behaviour",
    }

    safety: SourceName
    """Source that was tuned for safety, usually in English."""
    language: SourceName
    """Source that was tuned for the target language; the edit starts from it."""
    base: SourceName | None = None
    """Source that both were fine-tuned from: only to say how far the movement score of `layer_swap` agrees."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    """Languages that are to refuse more."""
    guarded: tuple[str, ...] = ()
    """Further languages that are asked, in which refusals and harmless answers are not to be lost."""
    anchors: AnchorSource
    """Tables or sets of prompts, or `organism`: the training split of the toy family that the expert is of."""
    evaluation: tuple[AbsolutePath, ...] = ()
    """Files of prompts that the result will be evaluated on; anchors among them are refused."""
    allow_overlap: bool = False
    """Go on although anchors are among the prompts of an evaluation."""

    granularity: Granularity = "module"
    """Decide once per layer, once for the attention and once for the MLP of every layer, or for every projection."""
    scores: Literal["exact", "first_order"] = "exact"
    """Read every block's effect off the model with the block moved, or all of them off gradients."""
    path_points: Annotated[int, Field(ge=0)] = 0
    """For `scores: first_order`: points on the way to the safety expert to take gradients at; 0 for its start."""
    search: Literal["sum", "stepwise"] = "sum"
    """Take blocks by what each does alone, or measure the others again after every one that is taken."""
    blocks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Blocks to take, for example `layers.3.mlp`, without asking any model; by default they are chosen."""
    budget: Count | None = None
    """Most blocks to take; null for no limit."""
    prompts: Count = 48
    """Most harmful and most harmless anchors that are asked in each language."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the anchors that blocks are not chosen by: the effect of all that are taken has to show on them."""
    benign_loss: Annotated[float, Field(ge=0)] = 0.05
    """Most log-probability per token that the expert's own answers to harmless anchors may lose, in nats."""
    over_refusal: Annotated[float, Field(ge=0)] = 0.02
    """Largest rise of over-refusal of harmless anchors, read from the tail of their log-odds as in `validation`."""
    max_tokens: Count = 32
    """Most tokens of an answer to a harmless anchor."""
    template: Literal["chat", "raw"] = "chat"
    """Whether prompts are put into the chat template."""
    device: str | None = None
    """Where the models run, for example `cuda`; the processor by default."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({*self.uses}) < (2 if self.base is None else 3):
            raise ValueError("base, safety and language must be different sources")
        asked = (*self.languages, *self.guarded)
        if len(set(asked)) < len(asked):
            raise ValueError(f"{', '.join(asked)} names something twice")
        if self.search == "stepwise" and self.scores != "exact":
            raise ValueError("`search: stepwise` goes with `scores: exact`")
        if self.path_points and self.scores != "first_order":
            raise ValueError("path_points goes with `scores: first_order`")
        if self.blocks is not None and len(set(self.blocks)) < len(self.blocks):
            raise ValueError(f"{', '.join(self.blocks)} names something twice")
        return self

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:
        """How many blocks of which kind, and what their harmless answers may lose."""
        loss = {"low": 0.02, "high": 0.5, "log": True}
        return {
            "granularity": {"choices": ["layer", "module"]},
            "budget": {"low": 1, "high": layers},
            "benign_loss": loss,
        }

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, Any]:
        """From the safety expert into the model, by what that does to anchors."""
        there.require(SAFETY)
        return {"safety": SAFETY, "language": MODEL, "guarded": [there.pivot], **there.fitted()}

    @property
    def rule_label(self) -> str:
        """`behaviour_swap.layer`, `.module` or `.projection`; then `.first_order` or `.stepwise` where that chooses."""
        kind = self.scores if self.scores != "exact" else self.search
        return ".".join((self.name, self.granularity, *([] if kind == "sum" else [kind])))

    @property
    def start(self) -> str:
        """The language expert."""
        return self.language

    @property
    def uses(self) -> tuple[str, ...]:
        """Safety expert, language expert, and the base where one is named."""
        return distinct((self.safety, self.language, self.base))

    @property
    def limits(self) -> Limits:
        """What the choice is for, and what it may cost."""
        return Limits(self.languages, self.guarded, self.benign_loss, self.over_refusal)

    def settled(self, edit: Edit) -> Self:
        """The same options with the blocks that were chosen, so that a control asks no model; as it is without any."""
        chosen = edit.provenance[-1].evidence["chosen"]["blocks"]
        return self.model_copy(update={"blocks": tuple(chosen)}) if chosen else self

    def fitted(self, data: Path | None = None) -> Iterator[PromptSet]:
        """The anchors, also where the blocks that were chosen by them are named.

        Those of the toy family are of another split than its evaluation.

        Raises:
            DataError: A table or set cannot be read, or lacks a language.
        """
        return anchor_prompts(self.anchors, self._asked, data)

    def fit(self, sources: Sources) -> Edit:
        """As `fit_with`, where sets need no folder."""
        return self.fit_with(sources, Support())

    def fit_with(self, sources: Sources, support: Support) -> Edit:
        """Measures every block, chooses, and measures what the chosen ones do together.

        Returns:
            The edit; one that changes nothing where no block is to be taken, which a warning says with its reason.

        Raises:
            MismatchError: The experts do not fit together.
            RecipeError: A block that is named does not exist.
            DataError: Anchors lack a language or a part, are among the evaluation, or have no known openings.
            ArchitectureError: transformers keeps a block in another form, or no gradient can be taken of the model.
        """
        pair = [sources[self.safety], sources[self.language]]
        require_agreement([sources[name] for name in self.uses])
        blocks = blocks_of(pair[1].architecture, self.granularity)
        if self.blocks is not None:
            return self._edit(sources, blocks, _named(self.blocks, blocks), None)
        anchors, overlaps = self._anchors(pair[1], support.data)
        found = self._study(sources, blocks, anchors, support).run(support.kept)
        return self._edit(sources, blocks, found.choice.taken, found, overlaps, support.evidence)

    def work(self, sources: Sources, support: Support) -> Sequence[Work]:
        """The anchors, read by the expert as it is and once more for every block, or with gradients for all."""
        if self.blocks is not None:
            return ()
        anchors, _ = self._anchors(sources[self.language], support.data)
        blocks = len(blocks_of(sources[self.language].architecture, self.granularity))
        rows = min(self.prompts, len(anchors.harmful)) + 2 * min(self.prompts, len(anchors.harmless))
        steps = min(self.budget or blocks, blocks) if self.search == "stepwise" else 1
        reads = sum(blocks - step for step in range(steps)) if self.scores == "exact" else max(1, self.path_points)
        return [Work("anchors", self.language, rows * len(self._asked), len(self._asked), 2 + reads)]

    @property
    def _asked(self) -> tuple[str, ...]:
        return (*self.languages, *self.guarded)

    def _anchors(self, source: Source, data: Path | None) -> tuple[Anchors, tuple[str, ...]]:
        anchors = read_anchors(self.anchors, source, self._asked, data)
        return anchors, shared_with(anchors, self.evaluation, allowed=self.allow_overlap)

    def _study(
        self, sources: Sources, blocks: Mapping[BlockKey, Sequence[str]], anchors: Anchors, support: Support
    ) -> Study:
        source = sources[self.language]
        known = organism_of(source.checkpoint).openings if self.anchors == "organism" else openings
        return Study(
            model=load_model(source, self.device, dtype=support.computed),
            donor=sources[self.safety],
            blocks={key.name: tensors for key, tensors in blocks.items()},
            anchors=anchors,
            held_out=self.held_out,
            asking=Asking(self._asked, known, self.template, self.max_tokens, self.prompts),
            limits=self.limits,
            budget=self.budget,
            stepwise=self.search == "stepwise",
            points=None if self.scores == "exact" else self.path_points,
        )

    def _edit(
        self,
        sources: Sources,
        blocks: Mapping[BlockKey, Sequence[str]],
        chosen: Sequence[str],
        found: Found | None,
        overlaps: Sequence[str] = (),
        known: Mapping[str, Any] | None = None,
    ) -> Edit:
        choices = {key: "safety" if key.name in chosen else "language" for key in blocks}
        placed = self.placed(choices, lambda key: (key.module, key.projection))
        taken = [key for key in blocks if placed[key] == "safety"]
        pair = [sources[self.safety], sources[self.language]]
        moved = {} if self.base is None or found is None else self._movement(sources)
        return self.make_edit(
            sources,
            {name: Copy(source=self.safety) for key in taken for name in blocks[key]},
            decisions=[_decision(key, placed[key], found, moved) for key in blocks],
            notes=[*architecture_notes(pair), *storage_notes(pair), *_notes(found, len(blocks))],
            warnings=[*overlaps, *_warnings(found)],
            evidence={
                "chosen": {"blocks": list(chosen)},
                **({} if found is None else found.plain()),
                **({} if found is None or not moved else {"movement": _agreement(found.choice, moved)}),
                **(known or {}),
            },
        )

    def _movement(self, sources: Sources) -> Mapping[BlockKey, float]:
        assert self.base is not None
        return movement(sources[self.base], sources[self.safety], sources[self.language], self.granularity)


def _named(names: Sequence[str], blocks: Mapping[BlockKey, Sequence[str]]) -> list[str]:
    known = {key.name for key in blocks}
    for name in names:
        if name not in known:
            listed = sorted(known)
            raise RecipeError(
                f"there is no block {name!r}",
                remedy=f"blocks of this granularity are called like {listed[0]}; there are {len(listed)}",
            )
    return list(names)


def _decision(key: BlockKey, choice: str, found: Found | None, moved: Mapping[BlockKey, float]) -> Decision:
    single = None if found is None else found.choice.singles[key.name]
    detail = {"movement": moved[key]} if key in moved else {}
    return Decision(
        block=key.name,
        layer=key.layer,
        module=".".join(filter(None, (key.module, key.projection))) or None,
        choice=choice,
        safety_weight=float(choice == "safety"),
        score=None if single is None else single.plain()["gain"],
        detail=detail if single is None else {**detail, **_detail(single)},
    )


def _detail(single: Measured) -> dict[str, float]:
    plain = single.plain()
    costs = {f"{what}_{name}": value for name, each in plain["costs"].items() for what, value in each.items()}
    numbers = {"gain_low": plain["low"], "gain_high": plain["high"], "n": float(single.n), **costs}
    return {name: value for name, value in numbers.items() if value is not None}


def _notes(found: Found | None, blocks: int) -> Iterator[str]:
    if found is None:
        yield "the blocks are named in the options: no model was asked"
        return
    choice = found.choice
    yield (
        f"{len(choice.taken)} of {blocks} blocks, measured on {found.fitted} harmful anchors per language; "
        "refusal log-odds say how answers begin, not what they say"
    )
    if choice.taken and choice.joint is not None:
        share = "" if choice.additive is None else f", {choice.additive:.0%} of the sum of what each does alone"
        yield f"together they raise refusal log-odds by {choice.joint.gain:.2f}{share}"


def _warnings(found: Found | None) -> Iterator[str]:
    if found is not None and found.nothing:
        yield f"no block is taken, and the language expert stays as it is: {found.nothing}"


def _agreement(choice: Choice, moved: Mapping[BlockKey, float]) -> dict[str, Any]:
    """How far the movement score ranks blocks as their effects do, and the score of every block."""
    pairs = [(moved[key], choice.singles[key.name].gain) for key in moved]
    finite = [pair for pair in pairs if pair[1] == pair[1]]
    found = rank_agreement([first for first, _ in finite], [second for _, second in finite])
    return {
        "scores": {key.name: value for key, value in moved.items()},
        "kendall": found.kendall,
        "kendall_interval": [found.kendall_low, found.kendall_high],
        "n": found.n,
    }
