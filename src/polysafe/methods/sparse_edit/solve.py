"""The work behind sparse weight editing: recorded anchors, chosen units, and the edit of one layer after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.data.anchors import Anchors, ParallelPrompts
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddLowRank
from polysafe.errors import EditError
from polysafe.methods.sparse_edit.mlp_units import Projection, mlp_projections
from polysafe.methods.sparse_edit.reduced_rank import Anchored, LowRank, RankPath
from polysafe.methods.sparse_edit.safety_neurons import Contrast, overlap, probe_units, random_units, strongest
from polysafe.probe.capture import Captured, capture
from polysafe.probe.kept import measurements
from polysafe.probe.model import LoadedModel, Site, edited
from polysafe.probe.moments import MeanVariance
from polysafe.probe.render import RenderedPrompts, Template, cached_tokenizer, render
from polysafe.probe.residual import Residuals
from polysafe.probe.stores import Rows
from polysafe.progress import during

if TYPE_CHECKING:
    from polysafe.methods.sparse_edit.method import SparseEdit

Inputs = Mapping[str, Captured[torch.Tensor]]
Prompts = tuple[Mapping[str, RenderedPrompts], Mapping[str, RenderedPrompts]]
"""Harmful and harmless prompts by language."""
"""Language -> MLP inputs of its prompts; `inputs[language][layer]` is [prompts, d]."""


@dataclass(frozen=True)
class ProjectionEdit:
    """The edit of one projection.

    Attributes:
        projection: Where it is stored.
        units: Its edited units, ascending, [m].
        weights: Their weights before, as columns, [d, m] in float64.
        path: The edits of all ranks.
        low_rank: The one that was taken, [d, m].
    """

    projection: Projection
    units: torch.Tensor
    weights: torch.Tensor
    path: RankPath
    low_rank: LowRank

    @property
    def relative_size(self) -> float:
        """‖ΔW_S‖ / ‖W_S‖."""
        return float(self.low_rank.dense.norm() / self.weights.norm())

    def merge_loss(self, dtype: str) -> float:
        """How much of the edit is lost when sums are stored in a type: ‖(round(W + ΔW) − round(W)) − ΔW‖ / ‖ΔW‖."""
        delta, kind = self.low_rank.dense, torch_dtype(dtype)
        before, after = (value.to(kind).to(torch.float64) for value in (self.weights, self.weights + delta))
        size = float(delta.norm())
        return float((after - before - delta).norm()) / size if size else 0.0


@dataclass(frozen=True)
class LayerEdit:
    """The edit of one layer.

    Attributes:
        layer: Its index.
        parts: The edits of its projections.
        form: `dense` or `kernel`.
        ridge: λ as it was used.
        free_directions: Number of input directions that the edit may use.
        gap_closed: Language -> share of the squared gap to the pivot that the edit closes, on the anchors that it was
            fitted to and on those held out, if any.
        drift: Language -> change of the edited units' outputs on harmless prompts, relative to these outputs.
    """

    layer: int
    parts: tuple[ProjectionEdit, ...]
    form: str
    ridge: float
    free_directions: int
    gap_closed: Mapping[str, Mapping[str, float]]
    drift: Mapping[str, float]


@dataclass(frozen=True)
class _Problem:
    """A layer, recorded and factored: what edits of all gains have in common.

    Attributes:
        layer: Its index.
        harmful: Language -> inputs of its harmful prompts on the model edited so far, [prompts, d]; of languages that
            the edit is fitted to.
        harmless: Those of harmless prompts, of every language.
        pivot: Inputs of the pivot's harmful prompts on the original model, [prompts, d].
        rows: Harmful inputs that the edit is fitted to, [N, d].
        targets: Inputs of their parallels in the pivot on the original model, [N, d].
        pinned: Which rows are prompts of the pivot itself, [N].
        solver: The factored system.
    """

    layer: int
    harmful: Mapping[str, torch.Tensor]
    harmless: Mapping[str, torch.Tensor]
    pivot: torch.Tensor
    rows: torch.Tensor
    targets: torch.Tensor
    pinned: torch.Tensor
    solver: Anchored


class Workbench:
    """A model with everything that was recorded on it.

    Args:
        options: The options of the method.
        model: The original model.
        anchors: What the edit is fitted to.
        layers: Layers that may be edited.

    Attributes:
        num_fitted: Number of harmful anchors that the edit is fitted to, per language.
        num_held_out: Number of harmful anchors that take no part in it.
        anchors: The anchors.
    """

    def __init__(self, options: SparseEdit, model: LoadedModel, anchors: Anchors, layers: Sequence[int]) -> None:
        self._options = options
        self.model = model
        self.anchors = anchors
        fitted, held_out = anchors.harmful.split(options.held_out)
        place = {name: row for row, name in enumerate(anchors.harmful.ids)}
        self._fitted, self._held_out = ([place[name] for name in part.ids] for part in (fitted, held_out))
        self.num_fitted, self.num_held_out = len(fitted), len(held_out)
        self._prompts = self._render(anchors.harmful), self._render(anchors.harmless)
        self._layers = tuple(layers)
        self._original = self._record_original(layers)
        self._units: dict[Projection, torch.Tensor] = {}
        self._recent: _Problem | None = None

    @property
    def previews(self) -> dict[str, list[dict[str, object]]]:
        """The first harmful prompt of every language with its token ids."""
        return {language: prompts.preview(1) for language, prompts in self._prompts[0].items()}

    @property
    def pivot(self) -> str:
        """The pivot language."""
        return self._options.pivot

    @property
    def edited_languages(self) -> tuple[str, ...]:
        """Languages that are edited."""
        return self._options.edited_languages

    @property
    def template(self) -> Template:
        """Whether prompts go into the chat template."""
        return self._options.template

    @property
    def held_out(self) -> tuple[int, ...]:
        """Rows of the harmful anchors that the edit is not fitted to."""
        return tuple(self._held_out)

    @property
    def recorded(self) -> tuple[Inputs, Inputs]:
        """MLP inputs of harmful and of harmless prompts on the original model; held-out anchors are among them."""
        return self._original

    # Units.

    def units(self, projection: Projection) -> torch.Tensor:
        """The units of a projection that are edited, ascending: the pivot's on the original model, or a control's."""
        if projection not in self._units:
            self._units[projection] = self._controlled(projection, self.safety_neurons(projection, self._options.pivot))
        return self._units[projection]

    def safety_neurons(self, projection: Projection, language: str) -> torch.Tensor:
        """The safety neurons of a language on the original model."""
        harmful, harmless = self._outputs(projection, language)
        if self._options.selector == "probe":
            return probe_units(harmful[self._fitted], harmless, self._options.cap)
        return self._options.criterion.choose(self._contrast(harmful, harmless))

    def _contrast(self, harmful: torch.Tensor, harmless: torch.Tensor) -> Contrast:
        """How units tell the prompts that are fitted to apart; outputs are [prompts, units]."""
        return Contrast.of(MeanVariance.of(harmful[self._fitted]), MeanVariance.of(harmless))

    def overlap(self, layers: Sequence[int]) -> dict[str, dict[str, float]]:
        """Jaccard overlap of the safety neurons of the pivot and the edited languages in some layers."""
        source, sides = self.model.source, self._options.sides
        projections = [part for layer in layers for part in mlp_projections(source, layer, sides)]
        return overlap({name: [self.safety_neurons(part, name) for part in projections] for name in self._original[0]})

    def counts(self, layers: Sequence[int]) -> dict[str, dict[str, int]]:
        """Language -> projection (as `4.gate`) -> number of its safety neurons, which chance depends on."""
        source, sides = self.model.source, self._options.sides
        projections = [part for layer in layers for part in mlp_projections(source, layer, sides)]
        return {
            name: {f"{part.layer}.{part.name}": len(self.safety_neurons(part, name)) for part in projections}
            for name in self._original[0]
        }

    def _outputs(self, projection: Projection, language: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What units are chosen by, on harmful and harmless prompts: [prompts, units] each."""
        recorded = self._gated if self._options.selector == "gated_product" else self._original
        harmful, harmless = (inputs[language][projection.layer] for inputs in recorded)
        if self._options.selector == "gated_product":
            return harmful, harmless
        reader = self.model.source.reader
        return projection.outputs(reader, harmful), projection.outputs(reader, harmless)

    @cached_property
    def _gated(self) -> tuple[Inputs, Inputs]:
        """What the units pass on, act(gate)·up."""
        return self._record(self.model, self._layers, self._prompts, Site.UNITS)

    def _controlled(self, projection: Projection, chosen: torch.Tensor) -> torch.Tensor:
        match self._options.control:
            case "all":
                return torch.arange(projection.units)
            case "random":
                return random_units(projection.units, len(chosen), seed=self._seed(projection))
            case "random_labels":
                contrast = self._contrast(*self._labelled(*self._outputs(projection, self.pivot)))
                return strongest(contrast, len(chosen), absolute=self._options.absolute)
        return chosen

    def _seed(self, projection: Projection) -> int:
        """A seed for what a control draws anew in every projection."""
        return 1000 * self._options.control_seed + 2 * projection.layer + (projection.name == "up")

    def _labelled(self, harmful: torch.Tensor, harmless: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same; for a control, which prompts count as harmful is drawn at random, alike in every language."""
        if self._options.control != "random_labels":
            return harmful, harmless
        both = torch.cat([harmful, harmless])
        order = torch.randperm(len(both), generator=torch.Generator().manual_seed(self._options.control_seed))
        return both[order[: len(harmful)]], both[order[len(harmful) :]]

    # Layers.

    def solve(self, layers: Sequence[int], gain: float) -> tuple[LayerEdit, ...]:
        """Edits layers from the lowest to the highest, each on the model edited so far.

        Units, and the pivot's activations that are the target, are those of the original model: taken from the edited
        one, targets would drift, and no unit would be found where the edit has already changed the contrast.

        Raises:
            EditError: No unit is chosen in any of the layers, or a system is singular.
            DataError: An activation is not finite.
        """
        done: list[LayerEdit] = []
        entered: Residuals | None = self._entered
        for layer in sorted(layers):
            if any(edit.parts for edit in done):
                source, here = self.model.source, None if layer == max(layers) else Residuals(layer)
                with edited(self.model, self.edit_of(done), {source.name: source.reader}) as model:
                    recorded = self._record(model, [layer], self._moved, after=entered, keep=here)
                problem = self._problem(layer, recorded)
                entered = here
            else:
                problem = self._original_problem(layer)
            done.append(self._solve(problem, gain))
        if not any(edit.parts for edit in done):
            raise EditError(
                f"no safety neuron is found in layer {', '.join(map(str, sorted(layers)))}",
                where=self.model.source.name,
                remedy="lower `tau_mag` and `tau_stat`, or name other layers",
            )
        return tuple(done)

    def edit_of(self, layers: Sequence[LayerEdit]) -> Edit:
        """The layers as an edit of the model, without provenance."""
        source = self.model.source
        return Edit(
            start=source.name,
            steps={tensor: (operation,) for tensor, operation in operations(layers).items()},
            sources={source.name: SourceRecord(origin=source.checkpoint.origin)},
        )

    def _original_problem(self, layer: int) -> _Problem:
        if self._recent is None or self._recent.layer != layer:
            self._recent = self._problem(layer, self._original)
        return self._recent

    def _problem(self, layer: int, recorded: tuple[Inputs, Inputs]) -> _Problem:
        options = self._options
        harmful, harmless = ({name: rows[layer] for name, rows in kind.items()} for kind in recorded)
        for name in harmful:
            harmful[name], harmless[name] = self._labelled(harmful[name], harmless[name])
        pivot, _ = self._labelled(*(kind[options.pivot][layer] for kind in self._original))
        languages = [*options.edited_languages, *([options.pivot] if options.pivot_weight else [])]
        weight = {options.pivot: options.pivot_weight, **options.weights}
        rows = torch.cat([harmful[language][self._fitted] for language in languages])
        weights = torch.tensor([weight.get(language, 1.0) for language in languages])
        return _Problem(
            layer,
            harmful,
            harmless,
            pivot,
            rows,
            pivot[self._fitted].repeat(len(languages), 1),
            torch.tensor([language == options.pivot for language in languages]).repeat_interleave(self.num_fitted),
            Anchored(
                rows,
                torch.cat(list(harmless.values())),
                options.penalty,
                weights=weights.repeat_interleave(self.num_fitted),
            ),
        )

    def _solve(self, problem: _Problem, gain: float) -> LayerEdit:
        projections = mlp_projections(self.model.source, problem.layer, self._options.sides)
        parts = tuple(self._solve_projection(problem, projection, gain) for projection in projections)
        parts = tuple(part for part in parts if len(part.units))
        return LayerEdit(
            problem.layer,
            parts,
            problem.solver.form,
            problem.solver.ridge,
            problem.solver.free_directions,
            {language: dict(self._gap_closed(problem, parts, language, gain)) for language in problem.harmless},
            {language: _drift(parts, inputs) for language, inputs in problem.harmless.items()},
        )

    def _solve_projection(self, problem: _Problem, projection: Projection, gain: float) -> ProjectionEdit:
        units = self.units(projection)
        weights = projection.weight(self.model.source.reader)[units].mT
        gains = torch.where(problem.pinned, 1.0, gain).to(torch.float64)[:, None]
        path = problem.solver.solve((gains * problem.targets - problem.rows.to(torch.float64)) @ weights)
        solved = path.truncate(self._options.rank)
        if self._options.control == "random_directions":
            solved = solved.turned(self._seed(projection))
        return ProjectionEdit(projection, units, weights, path, solved)

    def _gap_closed(
        self, problem: _Problem, parts: Sequence[ProjectionEdit], language: str, gain: float
    ) -> Iterator[tuple[str, float]]:
        if language == self._options.pivot or not parts:
            return
        low, pivot = problem.harmful[language].to(torch.float64), problem.pivot.to(torch.float64)
        for name, chosen in (("anchors", self._fitted), ("held_out", self._held_out)):
            x, wanted = low[chosen], gain * pivot[chosen] - low[chosen]
            gaps = [wanted @ part.weights for part in parts]
            left = [gap - x @ part.low_rank.dense for gap, part in zip(gaps, parts, strict=True)]
            before, after = (sum(float(value.square().sum()) for value in values) for values in (gaps, left))
            if before:
                yield name, 1 - after / before

    # Recording.

    def _render(self, prompts: ParallelPrompts) -> dict[str, RenderedPrompts]:
        """The prompts of every language, rendered once for many edits of one model."""
        root, template = self.model.source.checkpoint.root, self._options.template
        kept, found = measurements(self.model).rendered, {}
        for language in (self._options.pivot, *self._options.edited_languages):
            key = f"{root} {template} {prompts.sha256} {language}"
            if key not in kept:
                kept[key] = render(cached_tokenizer(root), prompts.prompts(language), template=template)
            found[language] = kept[key]
        return found

    def _record_original(self, layers: Sequence[int]) -> tuple[Inputs, Inputs]:
        """MLP inputs of the original model, and what enters the lowest layer that may be edited."""
        kept, name = measurements(self.model).residuals, self.model.sha256
        if name in kept and kept[name].layer <= min(layers):
            self._entered = kept[name]
            return self._record(self.model, layers, self._prompts, after=self._entered)
        self._entered = kept[name] = Residuals(min(layers))
        return self._record(self.model, layers, self._prompts, keep=self._entered)

    @property
    def _moved(self) -> Prompts:
        """Prompts that a further layer reads: of the pivot's, harmful ones only where the edit is fitted to them."""
        harmful, harmless = self._prompts
        if self._options.pivot_weight or self._options.control == "random_labels":
            return harmful, harmless
        return {name: prompts for name, prompts in harmful.items() if name != self._options.pivot}, harmless

    def _record(
        self,
        model: LoadedModel,
        layers: Sequence[int],
        prompts: Prompts,
        site: Site = Site.MLP,
        *,
        after: Residuals | None = None,
        keep: Residuals | None = None,
    ) -> tuple[Inputs, Inputs]:
        """What harmful and harmless prompts give at a place in some layers, by language."""
        harmful, harmless = (
            {
                language: during(language)(capture)(
                    model,
                    rendered,
                    layers,
                    into=Rows(),
                    site=site,
                    pooling=self._options.pooling,
                    batch_size=self._options.batch_size,
                    after=after,
                    keep=keep,
                )
                for language, rendered in by_language.items()
            }
            for by_language in prompts
        )
        return harmful, harmless


def operations(layers: Sequence[LayerEdit]) -> dict[str, AddLowRank]:
    """Tensor -> its change, in float32. Gate and up of a fused tensor become one operation with both their ranks."""
    by_tensor: dict[str, list[ProjectionEdit]] = {}
    for part in (part for layer in layers for part in layer.parts):
        by_tensor.setdefault(part.projection.tensor, []).append(part)
    return {tensor: _operation(sorted(parts, key=_first_row)) for tensor, parts in by_tensor.items()}


def _first_row(part: ProjectionEdit) -> int:
    return part.projection.first


def _operation(parts: Sequence[ProjectionEdit]) -> AddLowRank:
    return AddLowRank(
        rows=torch.cat([part.projection.first + part.units for part in parts]),
        a=torch.block_diag(*(part.low_rank.b for part in parts)).to(torch.float32),
        b=torch.cat([part.low_rank.a for part in parts], dim=1).to(torch.float32),
    )


def _drift(parts: Sequence[ProjectionEdit], inputs: torch.Tensor) -> float:
    x = inputs.to(torch.float64)
    moved = sum(float((x @ part.low_rank.dense).square().sum()) for part in parts)
    outputs = sum(float((x @ part.weights).square().sum()) for part in parts)
    return (moved / outputs) ** 0.5 if outputs else 0.0
