"""The whole story on the packaged family: audit, swap, evaluate before and after, report.

Everything here goes the way a user's own models would go: recipes are written down, `run_recipe` makes real
checkpoints, and `audit` asks them. Only the judge is special: the toy world knows the truth, so verdicts are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe._version import __version__
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.writer import output_error
from polysafe.data.groupings import grouping
from polysafe.data.organism import CONTRAST, ORGANISM
from polysafe.edits.edit import Edit
from polysafe.edits.size import StartShapes
from polysafe.engine.plan import make_plan
from polysafe.errors import PolysafeError
from polysafe.evaluate.model_run import ModelRun
from polysafe.files.atomic import write_bytes_atomic, write_json_atomic
from polysafe.findings.choosing import Choosing
from polysafe.findings.contests import contest_rows
from polysafe.findings.edits import ALL
from polysafe.findings.gather import Answered, Findings, Pair
from polysafe.findings.runs import answered
from polysafe.findings.settings import about_groups, language_names
from polysafe.findings.verdict import judge
from polysafe.probe.kept import Measurements
from polysafe.processes import Task, Workers
from polysafe.progress import Progress, tell
from polysafe.recipe.measures import Validate
from polysafe.recipe.recipe import Recipe
from polysafe.report import ReportData, build_report
from polysafe.reproduce.evaluation import record_runs
from polysafe.reproduce.inputs import family_inputs
from polysafe.stats.compare import Outcomes, rate_outcomes
from polysafe.stats.rows import RateRow, Row, save_rows
from polysafe.threads import threads
from polysafe.workflows.audit import audit
from polysafe.workflows.choosing import choose
from polysafe.workflows.quickstart_recipes import (
    HEAD_EDITS,
    METHODS,
    RANDOM_DRAWS,
    SPARSE_EDITS,
    VALIDATION,
    recipe_of,
    swap_recipe,
)
from polysafe.workflows.run import run_recipe

if TYPE_CHECKING:
    from polysafe.organism.packaged import Family

HEADLINE = "layer_swap.module"
LIMITS = (
    "Swapped models are examined in the language they were made for and in the pivot; other languages are not shown.",
    "One training seed, that on which the methods were developed, and one set of 48 harmful prompts per language.",
    "In the pivot a swap has one row for its three models together; intervals and tests count each prompt once.",
)


@dataclass(frozen=True)
class Quickstart:
    """What a quickstart leaves behind.

    Attributes:
        report: The page.
        results: The results file.
        data: Everything that the page shows.
    """

    report: Path
    results: Path
    data: ReportData

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of all methods, each against the model that it starts from."""
        return self.data.rows

    @property
    def comparisons(self) -> list[Row]:
        """Rows of method against method and against its controls; they follow the others in the results file."""
        return contest_rows(self.data.contests)

    @property
    def audits(self) -> tuple[RateRow, ...]:
        """Rates of the unedited models, and of the edited ones in the pivot."""
        return self.data.audits

    @property
    def verdict(self) -> str:
        """The sentence that the report opens with."""
        return judge(self.data).sentence


@dataclass
class _Found(Findings):
    """Findings, and the hash of every edit."""

    edits: dict[str, str] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)


def run_quickstart(output: Path, progress: Progress = tell, *, workers: int = 1) -> Quickstart:
    """Audits the packaged family, repairs it with every method, and writes results and report into `output`.

    Running it again into the same folder reuses the checkpoints that are there. What is written does not depend on
    the number of workers.

    Args:
        output: Folder to write.
        progress: Told how many models have been decided or examined.
        workers: Processes that decide edits and examine models; 1 does it in this one. A program that asks for more
            must guard its main module by `if __name__ == "__main__"`, as for every use of processes in Python.

    Raises:
        PolysafeError: The family is not there, transformers is not installed, `output` cannot be written, or a process
            ended unexpectedly.
    """
    _require_models_extra()
    from polysafe.organism.lexicon import LANGUAGES, LOW, PIVOT, TIERS
    from polysafe.organism.packaged import packaged_family
    from polysafe.workflows.seeds import measured_seeds

    output = output.absolute()
    family = packaged_family()
    total = 2 + 2 * len(LOW) + 2 * _num_edits()
    with Workers(workers, lambda done: progress("deciding and examining", done, total)) as crew:
        progress("deciding and examining", 0, total)
        models = _Models(family, output, crew)
        members = [models.member(name, LANGUAGES) for name in ("base", "safety")]
        experts = {language: models.member(language, (PIVOT, language)) for language in LOW}
        swaps = [_swaps(settings, family, models, output) for settings in METHODS]
        choices = [crew.submit(_choose, _choice(made), language) for language, *made in zip(LOW, *swaps, strict=True)]
        edits = [*_edits_of_the_base(family, models, output)]
        found = _Found()
        base, safety = (models.answered(model) for model in members)
        for answered in (base, safety):
            found.add_model(answered)
        before = {language: models.answered(model, f"expert {language}") for language, model in experts.items()}
        for answered in before.values():
            found.add_model(answered)
        for made in swaps:
            _add_swaps(made, before, models, found)
        for model in edits:
            _add_edit(model, base, models, found)
        choosing = tuple(crew.result(each) for each in choices)
    data = replace(
        found.data("polysafe quickstart", toy=True, tiers=dict(TIERS)),
        headline=HEADLINE,
        languages=language_names(LANGUAGES, toy=True),
        meta=_meta(family, found),
        limits=LIMITS,
        seeds=measured_seeds(),
        choosing=choosing,
    )
    rows = [*found.rows, *contest_rows(data.contests)]
    results = output / "results.json"
    try:
        save_rows(results, rows)
        write_json_atomic(output / "audit.json", [asdict(row) for row in found.audits])
    except OSError as error:
        raise output_error(output, error) from error
    inputs = family_inputs(family.members)
    record_runs("quickstart", found.recipes, models.runs, rows, output, inputs=inputs)
    return Quickstart(build_report(data, output), results, data)


def _require_models_extra() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise PolysafeError(
            "running a model needs the transformers library", remedy="pip install 'polysafe[models]'"
        ) from error


def _num_edits() -> int:
    from polysafe.organism.lexicon import LOW

    drawn = (RANDOM_DRAWS if SPARSE_EDITS else 0) + (2 * RANDOM_DRAWS + 2 if HEAD_EDITS else 0)
    return len(METHODS) * len(LOW) + len(SPARSE_EDITS) + len(HEAD_EDITS) + drawn


@dataclass(frozen=True)
class _Model:
    """A model that is examined.

    Attributes:
        name: What its records are called.
        target: Language that it was made for, or `all`.
        languages: Languages that it is asked in and compared in.
        run: What it answered.
        recipe: How it is made, of an edited one.
        edit: What its recipe decided.
    """

    name: str
    target: str
    languages: Sequence[str]
    run: Task[ModelRun]
    recipe: Recipe | None = None
    edit: Edit | None = None


class _Models:
    """Lets models be decided and examined by others, and keeps on disk whatever comes of it."""

    def __init__(self, family: Family, output: Path, crew: Workers) -> None:
        self._family, self._output, self._crew = family, output, crew
        self.runs: dict[str, ModelRun] = {}

    def member(self, name: str, languages: Sequence[str]) -> _Model:
        """A member of the family."""
        return _Model(name, name, languages, self._examination(name, self._family.members[name], languages))

    def decide(self, recipe: Recipe) -> Task[Edit]:
        return self._crew.submit(_decide, recipe)

    def make(
        self,
        recipe: Recipe,
        decision: Task[Edit],
        target: str,
        asked: Sequence[str],
        harmless: str = ORGANISM,
        compared: Sequence[str] | None = None,
    ) -> _Model:
        """Writes the recipe down and carries out what was decided."""
        label = recipe.edits[0].label
        write_bytes_atomic(_folder(self._output / "recipes") / f"{label}.{target}.yaml", recipe.to_yaml().encode())
        folder = run_recipe(recipe, edit=self._crew.result(decision), progress=lambda *_: None).output
        name = label if target == ALL else f"{label} {target}"
        run = self._examination(name, folder, asked, harmless)
        return _Model(name, target, compared or asked, run, recipe, Edit.load(folder / RECORDS))

    def _examination(
        self, name: str, model: Path, languages: Sequence[str], harmless: str = ORGANISM
    ) -> Task[ModelRun]:
        run = self._output / "runs" / name.replace(" ", ".")
        return self._crew.submit(_examine, model, run, tuple(languages), harmless, self._family.members["base"])

    def answered(self, model: _Model, name: str | None = None) -> Answered:
        """Waits for an examination."""
        run = self.runs[model.name] = self._crew.result(model.run)
        return _answered(name or model.name, run)


def _decide(recipe: Recipe) -> Edit:
    with threads(1), _measurements():
        return make_plan(recipe).edit


@cache
def _measurements() -> Measurements:
    """What several edits of the base are decided by is measured once in a process."""
    return Measurements()


def _choice(made: Sequence[_Model]) -> dict[str, Recipe]:
    """Label -> the recipe of every edit of one expert, with what they are chosen by."""
    from polysafe.organism.lexicon import PIVOT

    validation = Validate.model_validate({**VALIDATION, "languages": [PIVOT, made[0].target]})
    recipes = [model.recipe for model in made if model.recipe is not None]
    return {each.edits[0].label: each.model_copy(update={"validation": validation}) for each in recipes}


def _choose(recipes: Mapping[str, Recipe], model: str) -> Choosing:
    with threads(1):
        return choose(recipes, model)


def _examine(model: Path, run: Path, languages: Sequence[str], harmless: str, base: Path) -> ModelRun:
    with threads(1):
        return audit(
            model,
            safety=[ORGANISM],
            over_refusal=[harmless],
            capability=[ORGANISM],
            judge=ORGANISM,
            languages=languages,
            family=base,
            output=run,
            cache=run.parent / "answers.sqlite",
        ).run


def _swaps(settings: Mapping[str, Any], family: Family, models: _Models, output: Path) -> list[_Model]:
    """One method into every low-resource language."""
    from polysafe.organism.lexicon import LOW, PIVOT

    recipes = {language: swap_recipe(settings, family, language, output) for language in LOW}
    decided = {language: models.decide(recipe) for language, recipe in recipes.items()}
    return [models.make(recipe, decided[language], language, (PIVOT, language)) for language, recipe in recipes.items()]


def _edits_of_the_base(family: Family, models: _Models, output: Path) -> Iterator[_Model]:
    """Edits for all low-resource languages at once, asked in every language, with the controls of both methods.

    One that leaves a language out is asked in that one alone, and in the pivot.

    The longest are begun first. Heads of all but the first edit wait for the effects that the first one measures.
    """
    from polysafe.methods.head_steering.method import HeadSteering
    from polysafe.methods.sparse_edit.method import SparseEdit
    from polysafe.organism.lexicon import LANGUAGES, LOW, PIVOT

    def made(method: SparseEdit | HeadSteering) -> Recipe:
        sources = {name: family.members[name] for name in method.uses}
        return recipe_of([method], sources, output / "models" / method.label)

    heads = [HeadSteering.model_validate({**entry, "effects": output / "effects"}) for entry in HEAD_EDITS]
    first = [models.decide(made(method)) for method in heads[:1]]
    sparse = [SparseEdit.model_validate(dict(entry)) for entry in SPARSE_EDITS]
    decided = [models.decide(made(method)) for method in sparse]
    for number, method in enumerate(sparse):
        left = method.leave_out
        asked, compared = (LANGUAGES, LANGUAGES) if left is None else ((PIVOT, left), (left,))
        model = models.make(made(method), decided[number], ALL, asked, compared=compared)
        yield model
        if number == 0 and model.edit is not None:
            sparse += method.settled(model.edit).controls(RANDOM_DRAWS)[:RANDOM_DRAWS]
            decided += [models.decide(made(control)) for control in sparse[len(decided) :]]
    for number, steering in enumerate(heads):
        languages, harmless = (LANGUAGES, ORGANISM) if steering.control is None else (LOW, CONTRAST)
        model = models.make(made(steering), first[number], ALL, languages, harmless)
        yield model
        if number == 0 and model.edit is not None:
            heads += steering.settled(model.edit).controls(RANDOM_DRAWS, matched=False)
            first += [models.decide(made(other)) for other in heads[1:]]


def _add_swaps(made: Sequence[_Model], before: Mapping[str, Answered], models: _Models, found: _Found) -> None:
    """What a method changed against the language experts."""
    from polysafe.organism.lexicon import PIVOT

    label, pairs = "", []
    for model in made:
        label = _add(model, found)
        after = models.answered(model, label)
        pairs.append(Pair(before[model.target], after, model.languages))
        found.audits += rate_outcomes(f"{label} into {model.target}", _only(after.outcomes, PIVOT))
    found.add_method(label, pairs)


def _add_edit(model: _Model, before: Answered, models: _Models, found: _Found) -> None:
    label = _add(model, found)
    found.add_method(label, [Pair(before, models.answered(model), model.languages)])


def _add(model: _Model, found: _Found) -> str:
    """Keeps what an edit says about itself, and returns its label."""
    recipe, edit = model.recipe, model.edit
    assert recipe is not None
    assert edit is not None
    label = recipe.edits[0].label
    found.recipes[f"{label}.{model.target}"] = recipe
    found.edits[f"{label}, {model.target}"] = edit.sha256
    start = recipe.sources[recipe.edits[0].start].path
    assert start is not None
    found.add_edit(label, model.target, edit, StartShapes.of(edit, open_checkpoint(start)))
    return label


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    return path


def _only(outcomes: Outcomes, *languages: str) -> dict[tuple[str, str], Mapping[str, bool]]:
    return {cell: items for cell, items in outcomes.items() if cell[0] in languages}


def _answered(name: str, run: ModelRun) -> Answered:
    from polysafe.organism.exam import reported
    from polysafe.organism.lexicon import PIVOT

    found = answered(run, PIVOT, refusals=True)
    return replace(found, name=name, outcomes=reported(found.outcomes), categories=_by_verb(found.outcomes))


def _by_verb(outcomes: Outcomes) -> dict[str, Outcomes]:
    """What harmful requests ask for stands in for the categories of a benchmark."""
    found: dict[str, dict[tuple[str, str], dict[str, bool]]] = {}
    for (language, metric), items in outcomes.items():
        if metric == "unsafe":
            for item, unsafe in items.items():
                verb = item.rpartition("/")[2].split("-")[1]
                found.setdefault(verb, defaultdict(dict))[language, metric][item] = unsafe
    return {verb: dict(cells) for verb, cells in found.items()}


def _meta(family: Family, found: _Found) -> dict[str, dict[str, Any]]:
    from polysafe.organism.lexicon import LANGUAGES, PIVOT

    weights = {name: entry["files"]["model.safetensors"]["sha256"] for name, entry in family.record["members"].items()}
    return {
        "Settings": {"family seed": family.seed, "split": "test", "decoding": "greedy", "intervals": "95 % Wilson"},
        "Language groups": about_groups(grouping("organism"), LANGUAGES, PIVOT),
        "Versions": {"polysafe": __version__, **family.record["members"]["base"]["versions"]},
        "SHA-256 of the weights": weights,
        "SHA-256 of the edits": found.edits,
    }
