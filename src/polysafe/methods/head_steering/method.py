"""Head steering: subtract what harmful tuning added, in the attention heads that a language's tasks run through.

Banerjee et al., *Soteria: Language-Specific Functional Parameter Steering for Multilingual Safety Alignment*, Findings
of EMNLP 2025. For a language, every attention head is scored by its causal effect on in-context tasks
(`probe.effects`); with τ the weights of a harm-tuned copy minus those of the model, the output projections change by

    W_O ← W_O − λ · M ⊙ τ

where M marks the columns of the chosen heads. No harmful text takes part, and no head is trained.

Beyond the published program: scores that see the task in every script; a ranking by absolute effect, or by the size
of τ alone; sizes and strengths chosen on validation prompts; and the controls that say whether the choice of heads
matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from polysafe.checkpoint.opened import Source, Sources
from polysafe.data.organism import organism_of
from polysafe.data.trials import Corruption
from polysafe.edits.edit import Decision, Edit
from polysafe.edits.operations import AddDelta, Copy
from polysafe.errors import RecipeError
from polysafe.files.paths import AbsolutePath
from polysafe.methods.agreement import require_agreement
from polysafe.methods.base import Method, SourceName, Support, Work, control_label, distinct
from polysafe.methods.candidates import Candidates
from polysafe.methods.head_steering.choice import (
    Combine,
    Control,
    Head,
    Ranking,
    checked_heads,
    control_heads,
    first,
    majority,
    share_to_count,
)
from polysafe.methods.head_steering.columns import HeadColumns, block_norms, head_columns, selected_norm, weights_of
from polysafe.methods.head_steering.maps import HeadMaps, draw, effects_file, task_digests
from polysafe.methods.materials import HARMFUL, MODEL, Materials
from polysafe.methods.registry import register
from polysafe.methods.scores import relative_update_norms, require_descendant, scored_tensors
from polysafe.methods.validation import Trial, Validation, Weighted
from polysafe.probe.answers import Score
from polysafe.probe.model import edited, load_model

PUBLISHED_PROMPTS = 25
Share = Annotated[float, Field(gt=0, le=1)]
Pair = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class TaskFile(BaseModel):
    """A task of your own: pairs of an input and its output, in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name of the task."""
    language: str
    """Its language."""
    path: AbsolutePath
    """`.json` (a list of `{"input", "output"}`), `.jsonl`, `.csv` or `.tsv`."""


class TaskSources(BaseModel):
    """Where in-context tasks come from; see the page on tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sib200: AbsolutePath | None = None
    """Folder of SIB-200, for topic classification."""
    tatoeba: AbsolutePath | None = None
    """Folder of the Tatoeba test pairs, for translation."""
    files: tuple[TaskFile, ...] = ()
    """Tasks of your own."""
    names: tuple[str, ...] = ()
    """Take only the tasks of these names; all where none is named."""


@register
class HeadSteering(Method):
    """Subtract harmful tuning in the attention heads of a language's tasks (Soteria, Banerjee et al., 2025)."""

    name: ClassVar[str] = "head_steering"
    version: ClassVar[int] = 1
    stage: ClassVar[int] = 2
    titles: ClassVar[Mapping[str, str]] = {"head_steering": "Head steering"}
    citation: ClassVar[str] = (
        "Banerjee, Layek, Chatterjee, Mukherjee and Hazra: Soteria: Language-Specific Functional Parameter "
        "Steering for Multilingual Safety Alignment. Findings of EMNLP 2025. https://arxiv.org/abs/2502.11244"
    )

    model: SourceName
    """Source that is edited."""
    harmful: SourceName
    """Source that was tuned to do harm, from `harm_base`: a checkpoint, or a LoRA adapter on it."""
    harm_base: SourceName | None = None
    """Source that `harmful` was tuned from; `model` where none is named."""
    allow_unrelated_base: bool = False
    """Go on although the harm-tuned model seems not to descend from its base."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    """Language to steer for, or a group of languages that share one set of heads."""

    tasks: TaskSources | Literal["organism"] = TaskSources()
    """Where in-context tasks come from: CLDR always, and what is named here; `organism`: the toy family's own."""
    prompts: Annotated[int, Field(ge=2)] = 100
    """Clean prompts per task, and as many corrupted ones; 25 as published."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """Demonstrations in a prompt; 10, and 4 for the toy family."""
    corruption: Corruption = "derange"
    """How labels of corrupted prompts are mixed up; `permute` as published."""
    score: Score = "separating"
    """Which tokens of the answer are scored; `first` as published."""
    task_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the prompts."""
    effects: Annotated[AbsolutePath | None, Field(exclude=True)] = None
    """Folder that keeps measured effects, one file per language; by default the user's cache. Changes no result."""

    combine: Combine = "mean"
    """How the effects on several tasks become one score: their mean (published), mean z-score, or mean rank."""
    ranking: Ranking = "signed"
    """Order of the heads: by effect (published), by its absolute value, or by the size of τ in the head's columns."""
    together: Literal["majority", "mean"] = "majority"
    """Heads of several languages: those chosen by more than half of them (published), or by their mean score."""
    fraction: Share | Annotated[tuple[Share, ...], Field(min_length=1)] = 0.5
    """Share of all heads; half as published. Of several, one is chosen on validation prompts."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Number of heads instead of a share."""
    positive: bool = False
    """Take only heads with a positive effect."""
    heads: tuple[Pair, ...] | None = None
    """The heads themselves, as [layer, head]; then nothing is measured."""
    strength: float | Annotated[tuple[float, ...], Field(min_length=1)] = 1.0
    """λ; of several, one is chosen on validation prompts."""
    force: bool = False
    """Allow a strength below 0, which adds what harmful tuning added."""

    control: Control | None = None
    """A control instead of the chosen heads: as many random ones, as many per layer, those of lowest score, or all."""
    control_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random heads."""
    matched: bool = False
    """Scale a control's strength so that it changes the weights by as much as the chosen heads do."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Clean prompts in a forward pass."""
    device: str | None = None
    """Where the forward passes run, for example `cuda`; the processor by default."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.languages)) < len(self.languages):
            raise ValueError(f"{', '.join(self.languages)} names something twice")
        if any(value < 0 for value in self._strengths) and not self.force:
            raise ValueError("a strength below 0 adds harm; set `force: true` if that is meant")
        # a recipe that was written out names every default
        sized = self.fraction != type(self).model_fields["fraction"].default
        if self.count is not None and sized:
            raise ValueError("give either fraction or count")
        if self.heads is not None and (sized or self.count is not None or self.positive):
            raise ValueError("heads that are named leave nothing to choose; leave out fraction, count and positive")
        if self.matched and self.control is None:
            raise ValueError("only a control can be matched to the chosen heads")
        if self.positive and self.ranking != "signed":
            raise ValueError("positive goes with the signed ranking")
        return self

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:  # noqa: ARG003
        """How many heads, and how strongly."""
        return {"fraction": {"low": 0.05, "high": 1.0}, "strength": {"low": 0.02, "high": 2.0, "log": True}}

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, Any]:
        """The model, away from one that was tuned to do harm."""
        there.require(HARMFUL)
        tasks = {} if there.tasks is None else {"tasks": there.tasks}
        return {"model": MODEL, "harmful": HARMFUL, "languages": list(there.languages), **tasks}

    @property
    def label(self) -> str:
        """`head_steering`, with what sets this entry apart: a control, another ranking, or the published setting."""
        if self.control is not None:
            return control_label(self.name, self.control, self.control_seed) + (".matched" if self.matched else "")
        if self.ranking != "signed":
            return f"{self.name}.{self.ranking}"
        return f"{self.name}.published" if self.published else self.name

    @property
    def published(self) -> bool:
        """Whether heads are chosen as in the published program; its λ is not known, so any single one will do."""
        return (
            (self.ranking, self.combine, self.together, self.fraction) == ("signed", "mean", "majority", 0.5)
            and (self.score, self.corruption, self.prompts) == ("first", "permute", PUBLISHED_PROMPTS)
            and self.count is None
            and self.heads is None
            and not self.positive
            and not isinstance(self.strength, tuple)
        )

    @property
    def start(self) -> str:
        """The model."""
        return self.model

    @property
    def uses(self) -> tuple[str, ...]:
        """The model, the harm-tuned one, and what that was tuned from."""
        return distinct((self.model, self.harmful, self.harm_base))

    def settled(self, edit: Edit) -> Self:
        """The same options with the heads' share and the strength that were chosen in an edit of this method."""
        chosen = edit.provenance[-1].evidence["chosen"]
        update = {"strength": chosen["strength"]}
        return self.model_copy(update=update if self._fixed_size else {**update, "fraction": chosen["fraction"]})

    def controls(self, draws: int = 3, *, matched: bool = True) -> tuple[Self, ...]:
        """What the choice of heads has to beat, with the same difference and strength.

        Args:
            draws: Draws of random heads, and of random heads with the same number in each layer.
            matched: Whether to give every one also with the strength at which it changes the weights by as much.
        """
        kinds: list[dict[str, Any]] = [
            {"control": kind, "control_seed": seed} for kind in ("random", "random_per_layer") for seed in range(draws)
        ]
        kinds += [{"control": kind} for kind in ("bottom", "all")]
        sizes = (False, True) if matched else (False,)
        return tuple(self.model_copy(update={**kind, "matched": size}) for size in sizes for kind in kinds)

    def digests(self, data: Path | None = None) -> Iterable[str]:  # noqa: ARG002
        """Hashes of the tasks; those of the toy family are part of its model.

        Raises:
            DataError: A file or folder of tasks cannot be read, or a task that is named is not there.
        """
        return task_digests(self) if self.measured else ()

    def fit(self, sources: Sources) -> Edit:
        """As `fit_with`, where nothing is to be chosen."""
        return self.fit_with(sources, Support())

    def fit_with(self, sources: Sources, support: Support) -> Edit:
        """Measures heads, chooses some, and subtracts.

        Args:
            sources: The model, the harm-tuned one, and its base.
            support: What candidates are compared by, where fraction or strength are to be chosen; the toy family brings
                its own.

        Raises:
            RecipeError: A head does not exist, or something is to be chosen and there is nothing to validate with.
            DataError: There is no task in a language, or an answer is empty after tokenization.
            MismatchError: The harm-tuned model is of another shape or no descendant of its base, or kept effects are of
                another model.
            ArchitectureError: A layer has no output projection of attention heads.
            EditError: No head is chosen.
            VerificationError: Validation says that none of the candidates is better than no edit.
        """
        source, harmful, base = (sources[name] for name in (self.model, self.harmful, self._harm_base))
        require_agreement([sources[name] for name in self.uses])
        validation = self._validation(source, support)
        columns = head_columns(source)
        if not self.allow_unrelated_base:
            _require_descendant(columns, base, harmful)
        norms = block_norms(columns, harmful, base)
        asked = validation is not None or self.measured
        loaded = load_model(source, self.device, dtype=support.computed) if asked else None
        known = support.evidence if asked else {}
        maps = HeadMaps.measure(self, source, loaded, norms)
        if validation is None or loaded is None:
            return self._edit(sources, columns, maps, self._settings[0], known)
        readers = {name: sources[name].reader for name in self.uses}
        candidates = Candidates(validation.work(self.model, len(self._settings)), support.kept)
        judging = candidates.judging(validation, loaded, self.languages)

        def attempt(setting: Mapping[str, Any]) -> Trial:
            with edited(loaded, self._edit(sources, columns, maps, setting, known), readers) as model:
                return judging(setting, model)

        trials = candidates.tried({_named(setting): partial(attempt, setting) for setting in self._settings})
        best = min(trials, key=_preference)
        judging.require(best, trials)
        return self._edit(sources, columns, maps, best.setting, known, trials, judging.warnings(best))

    def work(self, sources: Sources, support: Support) -> Sequence[Work]:
        """The in-context prompts of every language, unless their effects are kept, and the validation prompts."""
        source = sources[self.model]
        missing = [name for name in self.languages if not self._kept(name)] if self.measured else []
        prompts = sum(2 * len(trials.clean) for name in missing for trials in draw(self, source, name)[0])
        measured = (Work("in-context prompts, with every head", self.model, prompts, len(missing)),) if missing else ()
        validation = self._validation(source, support)
        return measured if validation is None else (*measured, validation.work(self.model, len(self._settings)))

    def _kept(self, language: str) -> bool:
        file = effects_file(self, language)
        return file is not None and file.is_file()

    def _validation(self, source: Source, support: Support) -> Validation | None:
        """What candidates are compared by, None where there is one."""
        if not self._open:
            return None
        validation = support.validation or self._own_validation(source)
        if validation is None:
            raise RecipeError(
                "fraction or strength is to be chosen, and there is nothing to compare candidates by",
                remedy="name one of each, or add `validation` to the recipe",
            )
        return validation

    @property
    def _harm_base(self) -> str:
        return self.harm_base or self.model

    @property
    def _strengths(self) -> tuple[float, ...]:
        return self.strength if isinstance(self.strength, tuple) else (self.strength,)

    @property
    def _fixed_size(self) -> bool:
        return self.count is not None or self.heads is not None

    @property
    def _settings(self) -> list[dict[str, Any]]:
        """Every candidate, option by option."""
        fractions = self.fraction if isinstance(self.fraction, tuple) else (self.fraction,)
        sizes: Sequence[float | None] = (None,) if self._fixed_size else fractions
        return [{"fraction": size, "strength": strength} for size in sizes for strength in self._strengths]

    @property
    def _open(self) -> bool:
        return len(self._settings) > 1

    @property
    def measured(self) -> bool:
        """Whether effects have to be measured."""
        return self.heads is None and self.ranking != "norm"

    def _own_validation(self, source: Source) -> Validation | None:
        return Weighted(organism_of(source.checkpoint).validator()) if self.tasks == "organism" else None

    def _edit(
        self,
        sources: Sources,
        columns: HeadColumns,
        maps: HeadMaps,
        setting: Mapping[str, Any],
        known: Mapping[str, Any],
        trials: Sequence[Trial] = (),
        doubts: Iterable[str] = (),
    ) -> Edit:
        chosen, repeated = self._chosen(columns, maps, setting["fraction"])
        rows = chosen if self.control is None else control_heads(self.control, chosen, maps.scores, self.control_seed)
        heads = columns.at(rows)
        strength = float(setting["strength"])
        if self.matched:
            size = selected_norm(maps.norms, rows)
            strength *= selected_norm(maps.norms, chosen) / size if size else 1.0
        source = sources[self.model]
        changed = weights_of(columns, source, heads)
        return self.make_edit(
            sources,
            self._steps(columns, heads, strength),
            decisions=[_decision(layer, row, rows, maps, strength) for row, layer in enumerate(columns.layers)],
            notes=[*self._notes(maps, rows, repeated), *columns.notes],
            warnings=[*maps.warnings, *self._warnings(maps), *doubts],
            evidence={
                "chosen": dict(setting),
                "strength": strength,
                "heads": [list(head) for head in heads],
                "scores": maps.scores.tolist(),
                **columns.evidence,
                "norms": maps.norms.tolist(),
                "selected_norm": selected_norm(maps.norms, rows),
                "weights_changed": changed,
                "share_of_weights_changed": changed / sum(spec.numel for spec in source.checkpoint.tensors.values()),
                "effects": maps.plain(),
                "trials": [trial.plain() for trial in trials],
                **known,
            },
        )

    def _chosen(self, columns: HeadColumns, maps: HeadMaps, fraction: float | None) -> tuple[tuple[Head, ...], int]:
        if self.heads is not None:
            named, repeated = checked_heads(self.heads, columns.layers, columns.heads)
            return columns.rows(named), repeated
        total = len(columns.layers) * columns.heads
        count = self.count if fraction is None else share_to_count(fraction, total)
        assert count is not None
        if count > total:
            raise RecipeError(f"{count} heads are asked for, the model has {total}")
        chosen = first(maps.scores, count, positive=self.positive)
        if self.together == "majority" and len(maps.by_language) > 1:
            chosen = majority([first(each, count, positive=self.positive) for each in maps.by_language.values()])
        return checked_heads(chosen, range(len(columns.layers)), columns.heads)

    def _steps(self, columns: HeadColumns, heads: Sequence[Head], strength: float) -> Mapping[str, AddDelta | Copy]:
        return columns.operations(self.harmful, self._harm_base, -strength, heads) if strength else {}

    def _notes(self, maps: HeadMaps, heads: Sequence[Head], repeated: int) -> Iterator[str]:
        yield f"{len(heads)} of {maps.scores.numel()} heads in {len({layer for layer, _ in heads})} layers"
        if self.measured:
            below = sum(float(maps.effect[head]) <= 0 for head in heads)
            yield f"{below} of them have an effect that is not positive"
        if repeated:
            yield f"{repeated} heads were named more than once"
        yield from maps.notes

    def _warnings(self, maps: HeadMaps) -> Iterator[str]:
        if not float(maps.norms.max()) > 0:
            yield f"{self.harmful!r} does not differ from {self._harm_base!r} in any output projection: nothing changes"


def _require_descendant(columns: HeadColumns, base: Source, harmful: Source) -> None:
    outputs = {projection.tensor for projection in columns.projections}
    scored = [each for each in scored_tensors(base.architecture, biases=False) if each.tensor in outputs]
    require_descendant(base, harmful, scored, relative_update_norms(base, [harmful], scored)[harmful.name])


def _decision(layer: int, row: int, rows: Sequence[Head], maps: HeadMaps, strength: float) -> Decision:
    inside = [head for head in rows if head[0] == row]
    scores = [float(maps.scores[head]) for head in inside]
    return Decision(
        block=f"layers.{layer}.attention",
        layer=layer,
        module="attention",
        choice="edited" if inside and strength else "unchanged",
        safety_weight=len(inside) / maps.scores.shape[1],
        score=sum(scores) / len(scores) if scores else None,
        detail={"heads": float(len(inside)), **{f"head_{head}": float(maps.scores[row, head]) for _, head in inside}},
    )


def _named(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in setting.items() if value is not None)


def _preference(trial: Trial) -> tuple[float, float, float]:
    """The smallest shortfall; of equals, the fewest heads, then the smallest strength."""
    return trial.shortfall, trial.setting["fraction"] or 0.0, abs(trial.setting["strength"])
