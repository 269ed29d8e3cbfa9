"""Sparse weight editing: a low-rank change of a few MLP units makes other languages respond to harm as the pivot does.

Liang, Wang & Wang, *Multilingual Safety Alignment Via Sparse Weight Editing*, ICML 2026. In one layer, the units of
`gate_proj` and `up_proj` that respond to harmful prompts of the pivot language are its safety neurons S. For the MLP
inputs X of harmful prompts in other languages, X_en of their parallels in the pivot, and X_s of harmless prompts, the
weights W_S (units as columns) change by

    ΔW_S = argmin over rank(Δ) ≤ r of  ‖XΔ − (X_en − X)W_S‖² / N + γ̂ ‖X_sΔ‖² / N_s + λ̂ t ‖Δ‖²

in closed form (`reduced_rank`). Targets are compared before the nonlinearity, so that equal inputs have no gap.
Nothing is trained, and inference costs what it did.

Beyond the paper: several layers, edited in order; a gain g on the target, g·X_en; and choosing layers and gain on
validation prompts, by refusals, with over-refusal, helpfulness and the languages that are not edited held against a
candidate. A gain of 1 and a single layer are the published method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from polysafe.checkpoint.output import RECORDS
from polysafe.data.anchors import ID_COLUMN, Anchors, load_prompts, load_texts
from polysafe.data.prompts import Kind, PromptSet
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.edits.evaluate import EditedReader
from polysafe.errors import ArchitectureError, EditError, RecipeError
from polysafe.methods.base import Method, Source, SourceName, Sources, distinct
from polysafe.methods.mlp_units import Side, mlp_projections
from polysafe.methods.reduced_rank import Penalty, Utility
from polysafe.methods.registry import register
from polysafe.methods.safety_neurons import Combine, Criterion
from polysafe.methods.sparse_evidence import decision, evidence
from polysafe.methods.sparse_solve import LayerEdit, Workbench, operations
from polysafe.methods.validation import Trial, Validator, choose_layers, shortfall
from polysafe.paths import AbsolutePath
from polysafe.probe.model import edited, load_model
from polysafe.progress import during

MERGE_LOSS = 0.05
"""Share of an edit that may get lost in the storage type before it is worth a warning."""

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Layer = Annotated[int, Field(ge=0)]
Control = Literal["random", "all", "gate", "up"]


class AnchorFiles(BaseModel):
    """Prompts in files: `.csv`, `.tsv` or `.jsonl`, with a column for the id and one for each language."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    harmful: AbsolutePath
    """Harmful prompts; a hundred or more per language work well."""
    harmless: AbsolutePath
    """Harmless prompts, several times as many."""
    id_column: str = ID_COLUMN
    """Column that names the rows."""


@register
class SparseEdit(Method):
    """Move safety neurons of other languages towards the pivot's activations (Liang et al., ICML 2026)."""

    name: ClassVar[str] = "sparse_edit"
    version: ClassVar[int] = 1

    model: SourceName
    """Source that is edited: a model that refuses in the pivot language."""
    pivot: str = "en"
    """Language whose activations are the target."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    """Languages to make safe, in one joint edit."""
    anchors: AnchorFiles | Literal["organism"]
    """Files of parallel prompts, or `organism`: the training split of the toy family that the model belongs to."""
    evaluation: tuple[AbsolutePath, ...] = ()
    """Files of prompts that the result will be evaluated on; anchors among them are refused."""
    allow_overlap: bool = False
    """Go on although anchors are among the prompts of an evaluation."""

    layers: Annotated[tuple[Layer | Literal["auto"], ...], Field(min_length=1)] = ("auto",)
    """Layers to edit, or `[auto]`: chosen on validation prompts."""
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
    """A control instead of the method: as many random units, all units, or one projection alone."""
    control_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random units."""

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

    @property
    def label(self) -> str:
        """`sparse_edit`, with what sets this entry apart: a control, a language left out, or the published setting."""
        if self.control is not None:
            seed = f".{self.control_seed}" if self.control == "random" else ""
            return f"control.{self.name}.{self.control}{seed}"
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
        """What the choice of units has to beat: random units, all units, and either projection alone."""
        drawn = [self.model_copy(update={"control": "random", "control_seed": seed}) for seed in range(draws)]
        return (*drawn, *(self.model_copy(update={"control": kind}) for kind in ("all", "gate", "up")))

    def fitted(self) -> Iterator[PromptSet]:
        """The anchors in files; those of the toy family are of another split than its evaluation.

        Raises:
            DataError: A file cannot be read, or lacks a language.
        """
        if isinstance(self.anchors, AnchorFiles):
            languages = (self.pivot, *self.edited_languages)
            kinds: tuple[Kind, Kind] = ("harmful", "harmless")
            for kind, path in zip(kinds, (self.anchors.harmful, self.anchors.harmless), strict=True):
                yield load_prompts(path, languages, id_column=self.anchors.id_column).as_set(path.name, kind)

    def fit(self, sources: Sources) -> Edit:
        """Records the anchors, chooses units, and solves.

        Raises:
            RecipeError: Layers or gain are to be chosen, and there is nothing to validate with.
            DataError: Anchors lack a language, are broken, or are among the evaluation; activations are not finite.
            EditError: No unit is chosen, there are too few anchors, a system is singular, or the model is already
                edited.
            ArchitectureError: The MLP of a layer cannot be edited.
        """
        return self.fit_validated(sources, None)

    def fit_validated(self, sources: Sources, validator: Validator | None) -> Edit:
        """As `fit`, with a way to ask edited models.

        Args:
            sources: The model.
            validator: Judges candidates where layers or gain are to be chosen; `anchors: organism` brings its own.

        Raises:
            RecipeError: As `fit`.
            DataError: As `fit`.
            EditError: As `fit`.
            ArchitectureError: As `fit`.
        """
        source = sources[self.model]
        if not self.force:
            _require_unedited(source)
        anchors, overlaps = self._anchors(source)
        validator = validator or self._own_validator(source)
        if self._open and validator is None:
            raise RecipeError(
                "layers or gain are to be chosen, and there are no answers to judge candidates by",
                remedy="name `layers` and one `target_gain`, or pass a validator to `fit_validated`",
            )
        layers = self._candidates(source)
        bench = Workbench(self, load_model(source, self.device), anchors, layers)
        trials = self._trials(bench, layers, validator) if self._open and validator is not None else []
        chosen = min(trials, key=_preference).setting if trials else _setting(layers, self._gains[0])
        solved = bench.solve(chosen["layers"], chosen["gain"])
        return self.make_edit(
            sources,
            operations(solved),
            decisions=[decision(layer) for layer in solved],
            notes=self._notes(anchors, bench, solved),
            warnings=[*overlaps, *self._warnings(source, solved, trials)],
            evidence={
                "chosen": chosen,
                "trials": [trial.plain() for trial in trials],
                "anchors": {
                    "sha256": anchors.sha256,
                    "harmful": bench.num_fitted,
                    "held_out": bench.num_held_out,
                    "harmless": len(anchors.harmless),
                    "first": bench.previews,
                },
                **evidence(source, solved, bench.overlap(chosen["layers"])),
            },
        )

    @property
    def _gains(self) -> tuple[float, ...]:
        return self.target_gain if isinstance(self.target_gain, tuple) else (self.target_gain,)

    @property
    def _open(self) -> bool:
        """Whether something is to be chosen on validation prompts."""
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

    def _trials(self, bench: Workbench, candidates: Sequence[int], validator: Validator) -> list[Trial]:
        source = bench.model.source
        asked = [language for language in validator.languages if language != self.leave_out]
        with during("before"):
            before = validator(bench.model, asked)

        def attempt(layers: tuple[int, ...], gain: float) -> Trial:
            try:
                solved = bench.solve(layers, gain)
            except EditError as error:  # a layer without safety neurons is no reason to give up on the others
                return Trial(_setting(layers, gain), problem=error.problem)
            with edited(bench.model, bench.edit_of(solved), {source.name: source.reader}) as model:
                after = validator(model, asked)
            return Trial(_setting(layers, gain), shortfall(before, after, self.edited_languages), after)

        if self.layers != ("auto",):
            return [attempt(tuple(candidates), gain) for gain in self._gains]
        trials = choose_layers(candidates, self._gains, self.max_layers, attempt)
        if all(trial.problem for trial in trials):
            raise EditError(trials[0].problem, where=self.model, remedy="lower `tau_mag` and `tau_stat`")
        return trials

    def _anchors(self, source: Source) -> tuple[Anchors, tuple[str, ...]]:
        """The anchors, and what they share with the evaluation if that is allowed."""
        languages = (self.pivot, *self.edited_languages)
        if isinstance(self.anchors, AnchorFiles):
            sets = (
                load_prompts(path, languages, id_column=self.anchors.id_column)
                for path in (self.anchors.harmful, self.anchors.harmless)
            )
            anchors = Anchors(*sets)
        else:
            from polysafe.organism.anchors import organism_anchors, world_of

            anchors = organism_anchors(world_of(source.checkpoint), languages)
        evaluation = {path.name: load_texts(path) for path in self.evaluation}
        return anchors, anchors.require_disjoint(evaluation, forced=self.allow_overlap)

    def _own_validator(self, source: Source) -> Validator | None:
        if self.anchors != "organism":
            return None
        from polysafe.organism.anchors import OrganismValidator, world_of

        return OrganismValidator(world_of(source.checkpoint))

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

    def _warnings(self, source: Source, solved: Sequence[LayerEdit], trials: Sequence[Trial]) -> Iterator[str]:
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
        if trials:
            best = min(trials, key=_preference)
            left = [name for name in self.edited_languages if best.standings[name].refused < 0.5]
            if left:
                yield f"on validation prompts, {', '.join(left)} still refuse less than half of the harmful requests"


def _preference(trial: Trial) -> tuple[float, int, float]:
    """The smallest shortfall; of equals, the fewest layers, then the smallest gain."""
    return trial.shortfall, len(trial.setting["layers"]), trial.setting["gain"]


def _setting(layers: Sequence[int], gain: float) -> dict[str, Any]:
    return {"layers": list(layers), "gain": gain}


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
