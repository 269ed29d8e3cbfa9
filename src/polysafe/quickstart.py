"""The whole story on the packaged family: audit, swap, evaluate before and after, report.

Everything here goes the way a user's own models would go: recipes are written down, `run_recipe` makes real
checkpoints, and those are what is examined. Only the judge is special: the toy world knows the truth, so verdicts are
exact.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe import __version__
from polysafe.checkpoint.atomic import write_bytes_atomic, write_json_atomic
from polysafe.checkpoint.output import RECORDS
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.writer import output_error
from polysafe.data.groupings import grouping
from polysafe.edits.edit import Edit
from polysafe.edits.size import StartShapes
from polysafe.engine.run import run_recipe
from polysafe.errors import PolysafeError
from polysafe.progress import Progress, tell
from polysafe.recipe import Recipe, make_recipe
from polysafe.report import ReportData, build_report
from polysafe.report.edits import ALL
from polysafe.report.findings import Answer, Answered, Findings, Pair
from polysafe.report.settings import about_groups, language_names
from polysafe.report.verdict import judge
from polysafe.reproduce.quickstart import record_quickstart
from polysafe.stats.compare import Outcomes, rate_outcomes
from polysafe.stats.rows import RateRow, Row, save_rows

if TYPE_CHECKING:
    from polysafe.organism.exam import Exam, Set
    from polysafe.organism.packaged import Family

METHODS: tuple[Mapping[str, Any], ...] = (
    {"method": "layer_swap", "granularity": "layer", "base": "base", "safety": "safety"},
    {"method": "layer_swap", "granularity": "module", "base": "base", "safety": "safety"},
    {"method": "band_swap", "safety": "safety", "bottom": 3, "top": 0, "transition_bottom": 0, "transition_top": 0},
    {"method": "soup"},
    {"method": "task_arithmetic", "base": "base", "scale": 1.0},
)
"""What is shown, with the published settings of the swaps; the band was chosen on development seeds."""

_SPARSE: Mapping[str, Any] = {
    "model": "base",
    "languages": ["qac", "qad", "qae"],
    "anchors": "organism",
    "utility_weight": 0.1,
}
_VALIDATED: Mapping[str, Any] = {**_SPARSE, "absolute": True, "cap": 0.5, "target_gain": [1.0, 1.5, 2.0, 3.0]}
SPARSE_EDITS: tuple[Mapping[str, Any], ...] = (
    {**_VALIDATED, "max_layers": 3},
    {**_SPARSE, "cap": 0.25},
    *({**_VALIDATED, "leave_out": language} for language in ("qac", "qad", "qae")),
)
"""Edits of the base: validated and published setting, and one language left out of everything at a time."""
RANDOM_DRAWS = 3
"""Controls of the first sparse edit: as many units, drawn at random."""

_STEERED: Mapping[str, Any] = {
    "model": "base",
    "harmful": "harm",
    "languages": ["qac", "qad", "qae"],
    "tasks": "organism",
}
HEAD_EDITS: tuple[Mapping[str, Any], ...] = (
    {**_STEERED, "together": "mean", "fraction": [0.25, 0.5], "strength": [1.0, 2.0]},
    {**_STEERED, "prompts": 25, "score": "first", "corruption": "permute"},
    {**_STEERED, "together": "mean", "ranking": "absolute"},
)
"""Edits of the base by head steering: validated and published setting, and heads ranked by the size of their effect."""

HEADLINE = "layer_swap.module"
LIMITS = (
    "Swapped models are examined in the language they were made for and in the pivot; other languages are not shown.",
    "One training seed and one set of 48 harmful prompts per language; three other seeds are in the documentation.",
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
        """Rows of all methods."""
        return self.data.rows

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


def run_quickstart(output: Path, progress: Progress = tell) -> Quickstart:
    """Audits the packaged family, repairs it with every method, and writes results and report into `output`.

    Running it again into the same folder reuses the checkpoints that are there.

    Raises:
        PolysafeError: The family is not there, transformers is not installed, or `output` cannot be written.
    """
    _require_models_extra()
    from polysafe.organism.lexicon import LANGUAGES, LOW, PIVOT, TIERS
    from polysafe.organism.packaged import packaged_family

    output = output.absolute()
    family = packaged_family()
    sparse_models = len(SPARSE_EDITS) + (RANDOM_DRAWS if SPARSE_EDITS else 0)
    controls = 2 * RANDOM_DRAWS + 2 if HEAD_EDITS else 0
    exams = len(LANGUAGES) * (2 + sparse_models + len(HEAD_EDITS)) + len(LOW) * (2 + 2 * len(METHODS) + controls)
    examiner = _Examiner(family, output, progress, total=exams)
    found = _Found()
    members = {name: examiner.examine(name, family.members[name], LANGUAGES) for name in ("base", "safety")}
    base, safety = (_answered(name, exam) for name, exam in members.items())
    for model in (base, safety):
        found.add_model(model)
    experts = {language: examiner.examine(language, family.members[language], (PIVOT, language)) for language in LOW}
    for language, exam in experts.items():
        found.add_model(_answered(f"expert {language}", exam))
    for settings in METHODS:
        _try_method(settings, family, experts, examiner, found, output)
    _try_sparse_edits(family, base, examiner, found, output)
    _try_head_edits(family, base, examiner, found, output)
    results = output / "results.json"
    data = replace(
        found.data("polysafe quickstart", toy=True, tiers=dict(TIERS)),
        headline=HEADLINE,
        languages=language_names(LANGUAGES, toy=True),
        meta=_meta(family, found),
        limits=LIMITS,
    )
    try:
        save_rows(results, found.rows)
        write_json_atomic(output / "audit.json", [asdict(row) for row in found.audits])
    except OSError as error:
        raise output_error(output, error) from error
    record_quickstart(family, found.recipes, examiner.exams, found.rows, output)
    return Quickstart(build_report(data, output), results, data)


def _require_models_extra() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise PolysafeError(
            "running a model needs the transformers library", remedy="pip install 'polysafe[models]'"
        ) from error


def _try_method(
    settings: Mapping[str, Any],
    family: Family,
    experts: Mapping[str, Exam],
    examiner: _Examiner,
    found: _Found,
    output: Path,
) -> None:
    """One method into every low-resource language, and what it changed against the language expert."""
    from polysafe.organism.lexicon import PIVOT

    label, pairs = "", []
    for language, expert in experts.items():
        recipe = swap_recipe(settings, family, language, output)
        label = recipe.edits[0].label
        model = _make(recipe, language, found, output)
        exam = examiner.examine(f"{label} {language}", model, (PIVOT, language))
        pairs.append(Pair(_answered(f"expert {language}", expert), _answered(label, exam), (language,)))
        found.audits += rate_outcomes(f"{label} into {language}", _only(exam.outcomes(), PIVOT))
    found.add_method(label, pairs)


def _try_sparse_edits(family: Family, before: Answered, examiner: _Examiner, found: _Found, output: Path) -> None:
    """Edits of the base for all low-resource languages at once, asked in every language."""
    from polysafe.methods.sparse_edit import SparseEdit
    from polysafe.organism.lexicon import LANGUAGES

    entries: list[Mapping[str, Any] | SparseEdit] = list(SPARSE_EDITS)
    for number, entry in enumerate(entries):
        method = entry if isinstance(entry, SparseEdit) else SparseEdit.model_validate(dict(entry))
        recipe = _recipe([method], {"base": family.members["base"]}, output / "models" / method.label)
        model = _make(recipe, ALL, found, output)
        exam = examiner.examine(method.label, model, LANGUAGES)
        asked = LANGUAGES if method.leave_out is None else (method.leave_out,)
        found.add_method(method.label, [Pair(before, _answered(method.label, exam), asked)])
        if number == 0:
            settled = method.settled(Edit.load(model / RECORDS))
            entries += settled.controls(RANDOM_DRAWS)[:RANDOM_DRAWS]


def _try_head_edits(family: Family, before: Answered, examiner: _Examiner, found: _Found, output: Path) -> None:
    """Edits of the base's attention heads, asked in every language; controls of the first, asked for safety alone."""
    from polysafe.methods.head_steering import HeadSteering
    from polysafe.organism.exam import REQUESTS, SETS
    from polysafe.organism.lexicon import LANGUAGES, LOW

    sources = {name: family.members[name] for name in ("base", "harm")}
    entries = [HeadSteering.model_validate({**entry, "effects": output / "effects"}) for entry in HEAD_EDITS]
    for number, method in enumerate(entries):
        recipe = _recipe([method], sources, output / "models" / method.label)
        model = _make(recipe, ALL, found, output)
        asked, sets = (LANGUAGES, SETS) if method.control is None else (LOW, REQUESTS[:2])
        exam = examiner.examine(method.label, model, asked, sets)
        found.add_method(method.label, [Pair(before, _answered(method.label, exam), asked)])
        if number == 0:
            entries += method.settled(Edit.load(model / RECORDS)).controls(RANDOM_DRAWS, matched=False)


def _make(recipe: Recipe, name: str, found: _Found, output: Path) -> Path:
    """Writes the recipe down, runs it, and keeps what its edit says about itself."""
    label = recipe.edits[0].label
    write_bytes_atomic(_folder(output / "recipes") / f"{label}.{name}.yaml", recipe.to_yaml().encode())
    found.recipes[f"{label}.{name}"] = recipe
    model = run_recipe(recipe).output
    edit = Edit.load(model / RECORDS)
    found.edits[f"{label}, {name}"] = edit.sha256
    start = recipe.sources[recipe.edits[0].start].path
    assert start is not None
    found.add_edit(label, name, edit, StartShapes.of(edit, open_checkpoint(start)))
    return model


def swap_recipe(settings: Mapping[str, Any], family: Family, language: str, output: Path) -> Recipe:
    """The recipe that brings safety into one language expert of the family."""
    entry = dict(settings)
    match entry["method"]:
        case "layer_swap" | "band_swap":
            entry["language"] = language
        case "soup":
            entry["weights"] = {"safety": 0.5, language: 0.5}
            entry["start_from"] = language
        case _:
            entry["experts"] = ["safety", language]
            entry["start_from"] = language
    label = ".".join(str(entry[key]) for key in ("method", "granularity") if key in entry)
    sources = {name: family.members[name] for name in ("base", "safety", language)}
    return _recipe([entry], sources, output / "models" / label / language)


def _recipe(edits: Sequence[object], sources: Mapping[str, Path], output: Path) -> Recipe:
    named = {name: {"path": str(path)} for name, path in sources.items()}
    return make_recipe({"polysafe": 1, "sources": named, "edits": list(edits), "output": {"path": str(output)}})


class _Examiner:
    """Examines models, keeps every record on disk, and reports progress over all of them."""

    def __init__(self, family: Family, output: Path, progress: Progress, total: int) -> None:
        self._world, self._output, self._progress = family.world, output, progress
        self._done, self._total = 0, total
        self.exams: dict[str, Exam] = {}

    def examine(self, name: str, model: Path, languages: Sequence[str], sets: Sequence[Set] | None = None) -> Exam:
        from polysafe.organism.exam import SETS, examine

        self._progress("examining models", self._done, self._total)
        exam = examine(model, self._world, languages, sets=sets or SETS)
        self._done += len(languages)
        self._progress("examining models", self._done, self._total)
        lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in exam.records)
        file = _folder(self._output / "records") / f"{name.replace(' ', '.')}.jsonl"
        write_bytes_atomic(file, lines.encode())
        self.exams[name] = exam
        return exam


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    return path


def _only(outcomes: Outcomes, *languages: str) -> dict[tuple[str, str], Mapping[str, bool]]:
    return {cell: items for cell, items in outcomes.items() if cell[0] in languages}


def _answered(name: str, exam: Exam) -> Answered:
    from polysafe.organism.lexicon import PIVOT

    return Answered(name, PIVOT, exam.outcomes(), lambda: _answers(exam), _by_verb(exam))


def _answers(exam: Exam) -> Iterator[Answer]:
    for record in exam.records:
        yield Answer(record.language, record.set, record.item, record.prompt, record.answer, str(record.verdict))


def _by_verb(exam: Exam) -> dict[str, Outcomes]:
    """What harmful requests ask for stands in for the categories of a benchmark."""
    found: dict[str, dict[tuple[str, str], dict[str, bool]]] = {}
    for (language, metric), items in exam.outcomes().items():
        if metric == "unsafe":
            for item, unsafe in items.items():
                verb = item.rpartition("/")[2].partition("-")[0]
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
