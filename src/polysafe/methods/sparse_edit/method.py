"""Sparse weight editing: a low-rank change of a few MLP units makes other languages respond to harm as the pivot does.

Liang, Wang & Wang, *Multilingual Safety Alignment Via Sparse Weight Editing*, ICML 2026. In one layer, the units of
`gate_proj` and `up_proj` that respond to harmful prompts of the pivot language are its safety neurons S. For the MLP
inputs X of harmful prompts in other languages, X_en of their parallels in the pivot, and X_s of harmless prompts, the
weights W_S (units as columns) change by

    ΔW_S = argmin over rank(Δ) ≤ r of  ‖XΔ − (X_en − X)W_S‖² / N + γ̂ ‖X_sΔ‖² / N_s + λ̂ t ‖Δ‖²

in closed form (`reduced_rank`). Targets are compared before the nonlinearity, so that equal inputs have no gap.
Nothing is trained, and inference costs what it did.

Beyond the paper: several layers, edited in order; a gain g on the target, g·X_en; choosing a layer on the anchors
(`sparse_choice.separation`); and choosing layers and gain on validation prompts (`constraints`). A gain of 1 and a
single layer are the published method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from polysafe.checkpoint.opened import Source, Sources
from polysafe.checkpoint.output import RECORDS
from polysafe.data.anchors import Anchors
from polysafe.data.organism import organism_of
from polysafe.data.prompts import PromptSet
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.edits.reader import EditedReader
from polysafe.errors import ArchitectureError, EditError, RecipeError
from polysafe.files.paths import AbsolutePath
from polysafe.methods.anchor_options import AnchorSource, anchor_prompts, read_anchors, shared_with
from polysafe.methods.base import Method, SourceName, Support, Work, control_label, distinct
from polysafe.methods.candidates import Candidates
from polysafe.methods.materials import MODEL, Materials
from polysafe.methods.registry import register
from polysafe.methods.sparse_edit.choice import (
    LayerRanking,
    effect_prompts,
    preference,
    rank_layers,
    searched,
    setting,
    shortlist,
    try_candidates,
)
from polysafe.methods.sparse_edit.evidence import decision, evidence
from polysafe.methods.sparse_edit.mlp_units import Side, left_alone, mlp_projections
from polysafe.methods.sparse_edit.reduced_rank import Penalty, Utility
from polysafe.methods.sparse_edit.safety_neurons import Combine, Criterion
from polysafe.methods.sparse_edit.solve import LayerEdit, Workbench, operations
from polysafe.methods.validation import Trial, Validation, Weighted
from polysafe.probe.model import load_model

MERGE_LOSS = 0.05
"""Share of an edit that may get lost in the storage type before it is worth a warning."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Layer = Annotated[int, Field(ge=0)]
RANDOM = ("random", "random_labels", "random_directions")
"""Controls that are drawn."""
Control = Literal["random", "random_labels", "random_directions", "all", "gate", "up"]


@register
class SparseEdit(Method):
    """Move safety neurons of other languages towards the pivot's activations (Liang et al., ICML 2026)."""

    name: ClassVar[str] = "sparse_edit"
    version: ClassVar[int] = 1
    stage: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"sparse_edit": "Sparse weight editing"}
    citation: ClassVar[str] = (
        "Liang, Wang and Wang: Multilingual Safety Alignment Via Sparse Weight Editing. ICML 2026. "
        "https://arxiv.org/abs/2602.22554"
    )

    model: SourceName
    """Source that is edited: a model that refuses in the pivot language."""
    pivot: str = "en"
    """Language whose activations are the target."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    """Languages to make safe, in one joint edit."""
    anchors: AnchorSource
    """Tables or sets of parallel prompts, or `organism`: the training split of the toy family that the model is of."""
    evaluation: tuple[AbsolutePath, ...] = ()
    """Files of prompts that the result will be evaluated on; anchors among them are refused."""
    allow_overlap: bool = False
    """Go on although anchors are among the prompts of an evaluation."""

    layers: Annotated[tuple[Layer | Literal["auto"], ...], Field(min_length=1)] = ("auto",)
    """Layers to edit, or `[auto]`: chosen on the recipe's `validation`, and without it one layer on the anchors."""
    max_layers: Annotated[int, Field(ge=1)] = 1
    """Most layers that `auto` may choose."""
    target_gain: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] = 1.0
    """Factor on the pivot's activations, 1 as published; of several, one is chosen on validation prompts."""

    projections: Annotated[tuple[Side, ...], Field(min_length=1)] = ("gate", "up")
    """Projections to edit, each with units of its own."""
    selector: Literal["contrast", "gated_product", "probe"] = "contrast"
    """Choose units by their contrast (published), by that of the gated product, or by a logistic probe."""
    tau_mag: float = 2.0
    """Threshold on z, the standing of a unit's mean gap in its layer."""
    tau_stat: float = 1.0
    """Threshold on d, Cohen's effect size of a unit."""
    combine: Combine = "union"
    """Whether one threshold suffices (published) or both must be passed."""
    absolute: bool = False
    """Whether units that fire less on harmful prompts count as well."""
    cap: Annotated[float, Field(gt=0, le=1)] | None = 0.01
    """Largest share of the units of a projection, those of largest d; null for no cap (published)."""
    control: Control | None = None
    """A control instead of the method: as many random units; units and edit by labels (harmful or harmless) that are
    drawn at random; an edit as large at every unit along random directions; all units; or one projection alone."""
    control_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of what a control draws."""

    rank: Annotated[int, Field(ge=1)] | None = 32
    """Rank of the change of a projection; null for no limit."""
    utility: Utility = "soft"
    """Keep harmless inputs in place by a penalty (published), by a hard constraint, or not at all."""
    utility_weight: Annotated[float, Field(ge=0)] = 1.0
    """γ̂, weight of harmless inputs; the larger, the less over-refusal and the weaker the edit."""
    ridge: Annotated[float, Field(ge=0)] = 0.01
    """λ̂, weight of the size of the change."""
    null_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """For `utility: hard`: share of the largest eigenvalue below which harmless inputs count as not varying."""

    weights: dict[str, Positive] = Field(default={})
    """Weights of languages; 1 where none is given."""
    pivot_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the pivot's own harmful prompts, which pins what it does with them; 0 leaves them out (published)."""
    leave_out: str | None = None
    """A language of `languages` that takes no part in anything, to see whether it profits all the same."""
    held_out: Share = 0.1
    """Share of harmful anchors that take no part, to see whether the gap closes on them too."""

    template: Literal["chat", "raw"] = "chat"
    """Whether prompts are put into the chat template."""
    pooling: Literal["last", "mean"] = "last"
    """Which activations stand for a prompt: those at its last token, or the mean over its tokens."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Prompts in a forward pass."""
    device: str | None = None
    """Where the forward passes run, for example `cuda`; the processor by default."""
    force: bool = False
    """Edit a model that has already been edited by this method."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for names in (self.languages, self.projections, self.layers):
            if len(set(names)) < len(names):
                raise ValueError(f"{', '.join(map(str, names))} names something twice")
        if self.pivot in self.languages:
            raise ValueError(f"the pivot {self.pivot!r} cannot be among the languages to edit")
        if "auto" in self.layers and len(self.layers) > 1:
            raise ValueError("layers is either [auto] or a list of layers")
        unknown = {*self.weights, *distinct([self.leave_out])} - set(self.languages)
        if unknown:
            raise ValueError(f"{min(unknown)!r} is not among the languages")
        if not self.edited_languages:
            raise ValueError("leave_out leaves no language to edit")
        return self

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, object]:
        """Middle layers, and what decides how strong an edit is."""
        return searched(layers)

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, object]:
        """The model alone, fitted to anchors."""
        return {"model": MODEL, "pivot": there.pivot, **there.fitted()}

    @property
    def label(self) -> str:
        """`sparse_edit`, with what sets this entry apart: a control, a language left out, or the published setting."""
        if self.control is not None:
            return control_label(self.name, self.control, self.control_seed)
        if self.leave_out is not None:
            return f"{self.name}.without_{self.leave_out}"
        return f"{self.name}.published" if self.published else self.name

    @property
    def published(self) -> bool:
        """Whether this is the method of the paper: one layer, no gain."""
        single = self.max_layers == 1 if self.layers == ("auto",) else len(self.layers) == 1
        return single and self.target_gain == 1 and self.utility == "soft" and self.pivot_weight == 0

    @property
    def start(self) -> str:
        """The model."""
        return self.model

    @property
    def uses(self) -> tuple[str, ...]:
        """The model."""
        return (self.model,)

    @property
    def edited_languages(self) -> tuple[str, ...]:
        """Languages that the edit is fitted to."""
        return tuple(language for language in self.languages if language != self.leave_out)

    @property
    def criterion(self) -> Criterion:
        """Which units are chosen."""
        return Criterion(self.tau_mag, self.tau_stat, self.combine, self.absolute, self.cap)

    @property
    def penalty(self) -> Penalty:
        """What keeps the edit small."""
        return Penalty(self.utility, self.utility_weight, self.ridge, self.null_threshold)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Projections that are edited."""
        return (self.control,) if self.control in ("gate", "up") else self.projections

    def settled(self, edit: Edit) -> Self:
        """The same options with the layers and the gain that were chosen in an edit of this method."""
        evidence = edit.provenance[-1].evidence
        return self.model_copy(
            update={"layers": tuple(evidence["chosen"]["layers"]), "target_gain": evidence["chosen"]["gain"]}
        )

    def controls(self, draws: int = 3) -> tuple[Self, ...]:
        """What the method has to beat: random units, random labels, random directions, all units, either projection."""
        drawn = [
            self.model_copy(update={"control": kind, "control_seed": seed}) for kind in RANDOM for seed in range(draws)
        ]
        return (*drawn, *(self.model_copy(update={"control": kind}) for kind in ("all", "gate", "up")))

    def fitted(self, data: Path | None = None) -> Iterator[PromptSet]:
        """The anchors; those of the toy family are of another split than its evaluation.

        Raises:
            DataError: A table or set cannot be read, or lacks a language.
        """
        return anchor_prompts(self.anchors, (self.pivot, *self.edited_languages), data)

    def fit(self, sources: Sources) -> Edit:
        """As `fit_with`, where sets need no folder and the recipe has no `validation`."""
        return self.fit_with(sources, Support())

    def fit_with(self, sources: Sources, support: Support) -> Edit:
        """Records the anchors, chooses layers and units, and solves.

        Args:
            sources: The model.
            support: Where sets are; and what candidates are compared by, where layers or gain are to be chosen:
                `anchors: organism` brings its own. Without it `layers: [auto]` is chosen by `separation`.

        Raises:
            RecipeError: A gain is to be chosen, and there is nothing to validate with.
            DataError: Anchors lack a language, are broken, or are among the evaluation; activations are not finite.
            EditError: No unit is chosen, there are too few anchors, a system is singular, or the model is already
                edited.
            ArchitectureError: The MLP of a layer cannot be edited.
            VerificationError: Validation says that none of the candidates is better than no edit.
        """
        source = sources[self.model]
        if not self.force:
            _require_unedited(source)
        anchors, overlaps = self._anchors(source, support.data)
        validation = self._validation(source, support)
        layers = self._candidates(source)
        bench = Workbench(self, load_model(source, self.device, dtype=support.computed), anchors, layers)
        ranking = rank_layers(bench, layers, self._gains[0]) if self._ranked(validation, len(layers)) else None
        tried = shortlist(ranking.scores, self._most(validation)) if ranking and ranking.scores else layers
        judging, trials = None, list[Trial]()
        if validation is not None:
            count = len(self._gains) * (len(tried) if self.layers == ("auto",) else 1)
            candidates = Candidates(validation.work(self.model, count), support.kept)
            judging = candidates.judging(validation, bench.model, self.edited_languages, self.leave_out)
            trials = try_candidates(self, bench, tried, self._gains, judging, candidates)
        made = [trial for trial in trials if not trial.problem]
        best = min(made or trials, key=preference, default=Trial(setting(tried, self._gains[0])))
        if judging is not None and made:
            judging.require(best, trials)
        chosen = best.setting
        solved = bench.solve(chosen["layers"], chosen["gain"])
        doubts = judging.warnings(best) if judging is not None else ()
        return self.make_edit(
            sources,
            operations(solved),
            decisions=[decision(layer) for layer in solved],
            notes=[
                *self._notes(anchors, bench, solved),
                *self._why(ranking, trials),
                *self._rest(source, solved, layers),
            ],
            warnings=[*overlaps, *self._warnings(source, solved), *doubts],
            evidence={
                "chosen": chosen,
                "trials": [trial.plain() for trial in trials],
                **({"ranking": {str(layer): score for layer, score in ranking.scores.items()}} if ranking else {}),
                "anchors": {
                    "sha256": anchors.sha256,
                    "harmful": bench.num_fitted,
                    "held_out": bench.num_held_out,
                    "harmless": len(anchors.harmless),
                    "first": bench.previews,
                },
                **evidence(source, solved, bench.overlap(chosen["layers"])),
                "safety_neurons": bench.counts(chosen["layers"]),
                **support.evidence,
            },
        )

    def work(self, sources: Sources, support: Support) -> Sequence[Work]:
        """The anchors, which are read once, and the validation prompts of every candidate."""
        source = sources[self.model]
        anchors, _ = self._anchors(source, support.data)
        languages = 1 + len(self.edited_languages)
        prompts = (len(anchors.harmful) + len(anchors.harmless)) * languages
        found = [Work("anchors", self.model, prompts, languages)]
        validation = self._validation(source, support)
        layers = len(self._candidates(source)) if self.layers == ("auto",) else 1
        held_out = range(len(anchors.harmful.split(self.held_out)[1]))
        asked = effect_prompts(anchors, held_out, self.edited_languages) if self._ranked(validation, layers) else []
        if asked:
            found.append(Work("held-out anchors", self.model, len(asked), languages - 1, 1 + layers))
        if validation is None:
            return found
        most = min(layers, self._most(validation) or layers)
        further = sum(most - number for number in range(1, min(self.max_layers, most)))
        return [*found, validation.work(self.model, most * len(self._gains) + further)]

    @property
    def _gains(self) -> tuple[float, ...]:
        return self.target_gain if isinstance(self.target_gain, tuple) else (self.target_gain,)

    @property
    def _open(self) -> bool:
        """Whether something is to be chosen."""
        return self.layers == ("auto",) or len(self._gains) > 1

    def _candidates(self, source: Source) -> list[int]:
        """The layers that are named, or all whose MLP can be edited."""
        if self.layers != ("auto",):
            named = [layer for layer in self.layers if layer != "auto"]
            for layer in named:
                mlp_projections(source, layer, self.sides)
            return sorted(named)
        found = [layer for layer in range(source.architecture.num_layers) if _editable(source, layer, self.sides)]
        if not found:
            mlp_projections(source, 0, self.sides)
        return found

    def _validation(self, source: Source, support: Support) -> Validation | None:
        """What candidates are compared by, None where none is needed or `separation` has to do."""
        if not self._open:
            return None
        validation = support.validation or self._own_validation(source)
        if validation is None and len(self._gains) > 1:
            raise RecipeError(
                "a gain is to be chosen, and there is nothing to compare candidates by",
                remedy="name one `target_gain`, or add `validation` to the recipe",
            )
        return validation

    def _ranked(self, validation: Validation | None, layers: int) -> bool:
        """Whether layers are chosen, or shortlisted, by their separation."""
        most = self._most(validation)
        return self.layers == ("auto",) and most is not None and most < layers

    def _most(self, validation: Validation | None) -> int | None:
        """Most layers to look at, None for all."""
        return 1 if validation is None else validation.candidates

    def _anchors(self, source: Source, data: Path | None) -> tuple[Anchors, tuple[str, ...]]:
        """The anchors, and what they share with the evaluation if that is allowed."""
        anchors = read_anchors(self.anchors, source, (self.pivot, *self.edited_languages), data)
        return anchors, shared_with(anchors, self.evaluation, allowed=self.allow_overlap)

    def _own_validation(self, source: Source) -> Validation | None:
        return Weighted(organism_of(source.checkpoint).validator()) if self.anchors == "organism" else None

    def _why(self, ranking: LayerRanking | None, trials: Sequence[Trial]) -> Iterator[str]:
        """How layers were chosen, where anchors had a say."""
        if ranking is None or not ranking.scores:
            return
        if trials:
            yield f"{len(ranking.scores)} layers were ranked on the anchors, and the best of them validated"
        else:
            yield (
                f"layer {ranking.best} was chosen on the anchors, {ranking.why}; "
                "answers had no say: with `validation` in the recipe they do"
            )

    def _notes(self, anchors: Anchors, bench: Workbench, solved: Sequence[LayerEdit]) -> Iterator[str]:
        yield f"fitted to {bench.num_fitted} harmful anchors per language, {bench.num_held_out} held out"
        for name, prompts in (("harmful", anchors.harmful), ("harmless", anchors.harmless)):
            if prompts.dropped:
                yield f"{prompts.dropped} rows of the {name} anchors lack a language and were left out"
        for layer in solved:
            for part in layer.parts:
                if self.rank is not None and part.low_rank.rank < self.rank:
                    yield (
                        f"{part.projection.tensor}: rank {self.rank} was asked for, the anchors determine "
                        f"{part.low_rank.rank}"
                    )

    def _rest(self, source: Source, solved: Sequence[LayerEdit], layers: Sequence[int]) -> Iterator[str]:
        looked_at = layers if self.layers == ("auto",) else range(source.architecture.num_layers)
        return left_alone(source, [layer.layer for layer in solved], looked_at)

    def _warnings(self, source: Source, solved: Sequence[LayerEdit]) -> Iterator[str]:
        if self.utility == "none" or (self.utility == "soft" and self.utility_weight == 0):
            yield "nothing keeps harmless inputs in place: expect over-refusal"
        for layer in solved:
            if not layer.parts:
                yield f"layer {layer.layer} has no safety neurons and is not edited"
            for part in layer.parts:
                dtype = source.reader.spec(part.projection.tensor).dtype
                if (loss := part.merge_loss(dtype)) > MERGE_LOSS:
                    yield (
                        f"{part.projection.tensor}: storing the sum as {dtype} loses {loss:.0%} of the edit; "
                        "keep the edit file, or store the result in a wider type"
                    )
            for language, closed in layer.gap_closed.items():
                if closed.get("held_out", 0.0) < 0:
                    yield f"layer {layer.layer} widens the gap of {language} on held-out anchors"


def _editable(source: Source, layer: int, sides: Sequence[Side]) -> bool:
    try:
        mlp_projections(source, layer, sides)
    except ArchitectureError:
        return False
    return True


def _require_unedited(source: Source) -> None:
    """A second edit would be fitted to what the first one did; both must come from the original model."""
    reader, file = source.reader, source.checkpoint.root / RECORDS / JSON_FILE
    edits = [reader.edit] if isinstance(reader, EditedReader) else []
    edits += [Edit.load(file)] if file.is_file() else []
    if any(part.method.startswith(f"{SparseEdit.name}.") for edit in edits for part in edit.provenance):
        raise EditError(
            "has been edited by this method already",
            where=source.checkpoint.root,
            remedy="edit the original model with all languages at once, or set `force: true`",
        )
