"""The whole story on the family in real languages: audit, three methods, baselines and controls, report.

Everything goes the way a user's own models go: recipes are written down, `run_recipe` makes checkpoints, `audit` asks
them and the exact judge of the family reads their whole answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polysafe._version import __version__
from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.dtypes import fast_type
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import Edit
from polysafe.edits.size import StartShapes
from polysafe.errors import OutputError, PolysafeError, VerificationError
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.numbers import changed_numbers
from polysafe.files.atomic import write_bytes_atomic
from polysafe.findings.edits import ALL
from polysafe.findings.gather import Answered, Findings, Pair
from polysafe.findings.names import method_name
from polysafe.findings.runs import answered
from polysafe.findings.settings import about_runs, caveats, language_names, language_tiers
from polysafe.methods.base import Method
from polysafe.methods.head_steering.method import HeadSteering
from polysafe.methods.random_blocks import BlockMethod
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.organism.gemma.family import GemmaFamily, build_gemma
from polysafe.organism.gemma.tables import Tables, write_tables
from polysafe.organism.gemma.texts import LANGUAGES, Texts
from polysafe.processes import Task, Workers
from polysafe.progress import Progress, tell
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.report import build_report
from polysafe.stats.compare import rate_outcomes
from polysafe.stats.rows import save_rows
from polysafe.threads import threads
from polysafe.workflows.examination import EXAMS, JUDGE, MAX_TOKENS, Examination, examine
from polysafe.workflows.quickstart import Quickstart
from polysafe.workflows.quickstart_recipes import swap_entry
from polysafe.workflows.run import run_recipe

PIVOT = "en"
INTO = ("bn", "vi")
"""Languages whose experts safety is brought into."""
FITTED = ("zh", "bn")
"""Languages with anchors, which the sparse edit is fitted to."""
REPAIRED = ("zh", "vi", "bn", "sw")
"""Languages that edits of the aligned model are for, and in which their controls are asked."""
EXAMINED = (PIVOT, *REPAIRED)
"""Languages in which edits of the aligned model are asked."""
ABLE = (PIVOT, "zh", "vi", "bn")
"""Languages in which ability is measured, of the aligned model and its edits."""
DRAWS = 2
MULTIJAIL = "sparse_edit.multijail_anchors"
"""The sparse edit with anchors of the set that it is reported on, of other rows: closer than a user's anchors are."""
HEADLINE = "sparse_edit"

SWAPS: tuple[Mapping[str, Any], ...] = (
    {"method": "layer_swap", "granularity": "layer", "base": "aligned", "safety": "safety"},
    {"method": "layer_swap", "granularity": "module", "base": "aligned", "safety": "safety"},
    {"method": "band_swap", "safety": "safety", "bottom": 6, "top": 2, "transition_bottom": 0, "transition_top": 0},
    {"method": "soup"},
    {"method": "task_arithmetic", "base": "aligned", "scale": 1.0},
    {"method": "ties", "base": "aligned", "scale": 1.0},
    {"method": "dare", "base": "aligned", "scale": 1.0},
)
"""What brings safety into an expert: the published rules, a band of the literature, and merges."""

_SPARSE: Mapping[str, Any] = {"method": "sparse_edit", "model": "aligned", "pivot": PIVOT}
_CHOSEN: Mapping[str, Any] = {
    "layers": ["auto"],
    "max_layers": 3,
    "absolute": True,
    "cap": 0.5,
    "utility_weight": 0.1,
}
_STEERED: Mapping[str, Any] = {
    "method": "head_steering",
    "model": "aligned",
    "harmful": "harm",
    "languages": list(REPAIRED),
    "prompts": 25,
    "score": "first",
    "corruption": "permute",
}
"""Effects as published, measured once for both choices of heads."""
_TRIED_HEADS: Mapping[str, Any] = {"together": "mean", "fraction": 0.25, "strength": [0.1, 0.2, 0.4]}
_PUBLISHED_HEADS: Mapping[str, Any] = {"together": "majority", "strength": 0.2}
"""The published choice of heads; its strength is not known, and at one half this family refuses nearly everything."""

_EDITED = Examination(EXAMINED, ABLE, boundary=True)
Decision = Edit | str
"""An edit, or why validation found none."""


@dataclass(frozen=True)
class _Model:
    """A model that is examined: where that is kept, what it was made of, and what is asked."""

    label: str
    target: str
    languages: tuple[str, ...]
    run: Task[Path]
    edit: Edit | None = None
    recipe: Recipe | None = None

    @property
    def start(self) -> str:
        """The member that it was made from."""
        return "aligned" if self.target == ALL else self.target


def run_gemma_quickstart(
    output: Path,
    data: Path,
    *,
    seed: int = 0,
    limit: int | None = None,
    family: Path | None = None,
    progress: Progress = tell,
    workers: int = 1,
) -> Quickstart:
    """Builds the family where it is not there, repairs it with every method, and writes results and report.

    Running it again into the same folder asks and makes only what is missing.

    Args:
        output: Folder to write.
        data: Folder with a folder per set.
        seed: Seed of the family.
        limit: Most parallel rows of every set; all by default.
        family: Folder of the family; that in the user's cache by default.
        progress: Told how far it is.
        workers: Processes that decide edits and examine models.

    Raises:
        PolysafeError: As for building the family, running recipes and auditing.
    """
    made = build_gemma(data, family, seed=seed, members=("safety", *INTO, "harm"), progress=progress)
    return _Story(made, data.absolute(), output.absolute(), limit).run(progress, workers)


class _Story:
    """What is made and asked, in order."""

    def __init__(self, family: GemmaFamily, data: Path, output: Path, limit: int | None) -> None:
        self.family, self.data, self.output, self.limit = family, data, output, limit
        try:
            self.tables: Tables = write_tables(Texts(data), output / "tables")
        except OSError as error:
            raise output_error(output, error) from error
        self.found = Findings()
        self.edits: dict[str, str] = {}
        self.notes: list[str] = []

    def run(self, progress: Progress, workers: int) -> Quickstart:
        total = 4 + 2 * ((len(SWAPS) + 3 * DRAWS) * len(INTO) + 9 + DRAWS)
        with Workers(workers, lambda done: progress("deciding and examining", min(done, total), total)) as self.crew:
            progress("deciding and examining", 0, total)
            wanted = {
                "aligned": Examination(LANGUAGES, ABLE, boundary=True, exams=tuple(EXAMS)),
                "safety": Examination((PIVOT, *INTO), INTO, boundary=True),
                **{code: Examination((PIVOT, code), (code,), boundary=True, exams=("xcopa",)) for code in INTO},
            }
            members = [self._member(name, each) for name, each in wanted.items()]
            swaps = self._swaps()
            edits = [[model] for model in self._edits()]
            runs = [self._load(model) for model in members]
            starts = {run.name: run for run in runs}
            for run in runs:
                self.found.add_model(_answered(run))
            for made in (*swaps, *edits):
                loaded = [self._load(model) for model in made]
                runs += loaded
                self._add(made, loaded, [starts[model.start] for model in made])
        return self._written(runs)

    def _member(self, name: str, wanted: Examination) -> _Model:
        return _Model(name, name, wanted.languages, self._examination(self.family.members[name], name, wanted))

    def _examination(self, folder: Path, name: str, wanted: Examination) -> Task[Path]:
        run = self.output / "runs" / name
        return self.crew.submit(examine, folder, run, wanted, self.data, self.tables.test, self.limit)

    def _swaps(self) -> list[list[_Model]]:
        """What brings safety into the experts; after it the controls of what chooses blocks."""
        wanted = {code: Examination((PIVOT, code), (code,)) for code in INTO}
        made = [[self._swap(swap_entry(entry, code), code, wanted[code]) for code in INTO] for entry in SWAPS]
        methods = [[_method(model) for model in models] for models in made]
        drawn = [
            draw
            for group in methods
            for draw in zip(*(each.controls(DRAWS) for each in group if isinstance(each, BlockMethod)), strict=True)
        ]
        return made + [
            [self._swap(control, code, Examination((code,))) for control, code in zip(draw, INTO, strict=True)]
            for draw in drawn
        ]

    def _swap(self, entry: Mapping[str, Any] | Method, code: str, wanted: Examination) -> _Model:
        recipe = self._recipe(entry, ("aligned", "safety", code), code)
        return self._sure(recipe, self.crew.submit(_decide, recipe), code, wanted)

    def _edits(self) -> list[_Model]:
        """Edits of the aligned model, the controls of both methods after what they are controls of."""
        sparse = {**_SPARSE, "languages": list(FITTED), "anchors": self._anchors()}
        heads = {**_STEERED, "tasks": self._tasks()}
        one = ("aligned",)
        recipes = [
            self._recipe({**sparse, **_CHOSEN}, one, ALL, chosen_in=FITTED),
            self._recipe(sparse, one, ALL),
            self._recipe({**heads, **_TRIED_HEADS}, (*one, "harm"), ALL, chosen_in=REPAIRED),
            self._recipe({**heads, **_PUBLISHED_HEADS}, (*one, "harm"), ALL),
        ]
        decided = [self.crew.submit(_decide, recipe) for recipe in recipes]
        made = [self._chosen(*each) for each in zip(recipes, decided, strict=True)]
        close = [self._with_multijail(made[0])] if made[0] else []
        controls = [model for first in (made[0], made[2]) if first for model in self._controls(first)]
        return [*filter(None, made), *close, *controls]

    def _chosen(self, recipe: Recipe, decision: Task[Decision]) -> _Model | None:
        """The edited model, or none where validation found nothing better than the model as it is."""
        decided = self.crew.result(decision)
        if isinstance(decided, Edit):
            return self._make(recipe, decided, ALL, _EDITED)
        self.notes.append(f"{method_name(_label(recipe))}: {decided}")
        return None

    def _with_multijail(self, model: _Model) -> _Model:
        """The sparse edit with what was chosen for it, and anchors of the set that it is reported on, of other rows."""
        settled = _settled(model)
        assert isinstance(settled, SparseEdit)
        entry = {
            **_SPARSE,
            **_CHOSEN,
            "languages": list(FITTED),
            "layers": list(settled.layers),
            "target_gain": settled.target_gain,
            "anchors": {"harmful": {"set": "multijail.anchors"}, "harmless": str(self.tables.harmless)},
        }
        recipe = self._recipe(entry, ("aligned",), ALL, label=MULTIJAIL)
        return self._sure(recipe, self.crew.submit(_decide, recipe), ALL, _EDITED)

    def _controls(self, model: _Model) -> list[_Model]:
        assert model.recipe is not None
        settled = _settled(model)
        if isinstance(settled, SparseEdit):
            drawn: Sequence[Method] = settled.controls(DRAWS)[:DRAWS]
        else:
            drawn = [control for control in settled.controls(1) if control.control in ("random", "random_per_layer")]
        recipes = [self._recipe(control, tuple(model.recipe.sources), ALL) for control in drawn]
        decided = [self.crew.submit(_decide, recipe) for recipe in recipes]
        return [self._sure(*each, ALL, Examination(REPAIRED)) for each in zip(recipes, decided, strict=True)]

    def _anchors(self) -> dict[str, str]:
        return {"harmful": str(self.tables.harmful), "harmless": str(self.tables.harmless)}

    def _tasks(self) -> dict[str, str]:
        return {"sib200": str(self.data / "sib200"), "tatoeba": str(self.data / "tatoeba")}

    def _recipe(
        self,
        entry: Mapping[str, Any] | Method,
        sources: Sequence[str],
        target: str,
        *,
        chosen_in: Sequence[str] = (),
        label: str | None = None,
    ) -> Recipe:
        value: dict[str, Any] = {
            "polysafe": 1,
            "data": str(self.data),
            "sources": {name: {"path": str(self.family.members[name])} for name in sources},
            "edits": [entry],
            "dtype": fast_type() if sources == ("aligned",) else None,  # effects of heads are read in F32
        }
        if chosen_in:
            value["validation"] = self._validation(chosen_in)
        named = label or make_recipe({**value, "output": {"path": str(self.output / "models" / "any")}}).edits[0].label
        value["output"] = {"path": str(self.output / "models" / f"{named}.{target}")}
        return make_recipe(value)

    def _validation(self, edited: Sequence[str]) -> dict[str, Any]:
        return {
            "languages": [PIVOT, *edited],
            "safety": ["multijail.validation"],
            "over_refusal": [str(self.tables.validation)],
            "judge": {"kind": JUDGE},
            "max_tokens": MAX_TOKENS,
            "limit": self.limit or 50,
            "candidates": 4,
        }

    def _sure(self, recipe: Recipe, decision: Task[Decision], target: str, wanted: Examination) -> _Model:
        edit = self.crew.result(decision)
        assert isinstance(edit, Edit), "only validation ends without an edit"
        return self._make(recipe, edit, target, wanted)

    def _make(self, recipe: Recipe, edit: Edit, target: str, wanted: Examination) -> _Model:
        """Writes the recipe down and carries out what was decided."""
        label = _label(recipe)
        name = label if target == ALL else f"{label}.{target}"
        try:
            (self.output / "recipes").mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(self.output / "recipes" / f"{name}.yaml", recipe.to_yaml().encode())
        except OSError as error:
            raise output_error(self.output, error) from error
        folder = run_recipe(recipe, edit=edit, progress=lambda *_: None).output
        return _Model(
            label,
            target,
            wanted.languages,
            self._examination(folder, name, wanted),
            Edit.load(folder / RECORDS),
            recipe,
        )

    def _load(self, model: _Model) -> ModelRun:
        return ModelRun.load(self.crew.result(model.run))

    def _add(self, made: Sequence[_Model], runs: Sequence[ModelRun], starts: Sequence[ModelRun]) -> None:
        label, pairs = made[0].label, []
        for model, run, start in zip(made, runs, starts, strict=True):
            assert model.edit is not None
            assert model.recipe is not None
            path = model.recipe.sources[model.recipe.edits[0].start].path
            assert path is not None
            self.edits[f"{label}, {model.target}"] = model.edit.sha256
            self.found.add_edit(label, model.target, model.edit, StartShapes.of(model.edit, open_checkpoint(path)))
            own = model.languages if model.target == ALL else (model.target,)
            after = _answered(run)
            pairs.append(Pair(_answered(start), after, own))
            self.found.number_changes += changed_numbers(label, start.numbers, run.numbers)
            if model.target != ALL:
                pivot = {cell: items for cell, items in after.outcomes.items() if cell[0] == PIVOT}
                self.found.audits += rate_outcomes(f"{label} into {model.target}", pivot)
        self.found.add_method(label, pairs)

    def _written(self, runs: Sequence[ModelRun]) -> Quickstart:
        _, tiers = language_tiers(LANGUAGES, PIVOT, None)
        data = replace(
            self.found.data("polysafe quickstart: a family in real languages", toy=True, tiers=tiers),
            headline=HEADLINE if any(row.method == HEADLINE for row in self.found.rows) else None,
            languages=language_names(LANGUAGES, toy=False),
            meta={
                **about_runs(runs, PIVOT, None, LANGUAGES),
                "Family": {"seed": self.family.record["seed"], "polysafe": __version__},
                "SHA-256 of the edits": self.edits,
            },
            limits=(*_LIMITS, *self.notes, *caveats(runs)),
        )
        results = self.output / "results.json"
        try:
            save_rows(results, self.found.rows)
        except OSError as error:
            raise OutputError(f"cannot be written: {error}", where=results) from error
        return Quickstart(build_report(data, self.output), results, data)


_LIMITS = (
    "A model organism: Gemma 3 270M, taught to refuse in English and only in part elsewhere. No evidence about others.",
    "Swapped models are examined in the language they were made for and in the pivot; other languages are not shown.",
    "One training seed. Answers are one of two sentences, so that the judge is exact.",
)


def _method(model: _Model) -> Method:
    assert model.recipe is not None
    return model.recipe.edits[0]


def _settled(model: _Model) -> SparseEdit | HeadSteering:
    """The method of an edit with what was chosen for it."""
    assert model.edit is not None
    method = _method(model)
    assert isinstance(method, SparseEdit | HeadSteering)
    return method.settled(model.edit)


def _label(recipe: Recipe) -> str:
    """What an edit is called: the name of its model, without what it is for."""
    return recipe.output.path.name.rpartition(".")[0]


def _answered(run: ModelRun) -> Answered:
    return answered(run, PIVOT, refusals=True)


def _decide(recipe: Recipe) -> Decision:
    from polysafe.engine.plan import make_plan

    known = _decided(recipe)
    if known is not None:
        return known
    try:
        with threads(1):
            return make_plan(recipe, fit=True).edit
    except VerificationError as error:
        return error.problem


def _decided(recipe: Recipe) -> Edit | None:
    """The edit of a model that this very recipe made of these very files before."""
    output = recipe.output.path
    try:
        written = (output / RECORDS / "recipe.yaml").read_text(encoding="utf-8")
        edit = Edit.load(output / RECORDS)
    except (OSError, PolysafeError):
        return None
    sources = {name: reference.path for name, reference in recipe.sources.items() if name in edit.sources}
    same = all(
        path is not None and checkpoint_digests(open_checkpoint(path)) == edit.sources[name].files
        for name, path in sources.items()
    )
    return edit if same and written == recipe.to_yaml(relative_to=output) else None
