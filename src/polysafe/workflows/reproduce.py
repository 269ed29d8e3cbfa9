"""Does again what a `reproduce/` folder records, from the inputs alone, and compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polysafe._version import __version__
from polysafe.checkpoint.digest import hash_file
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.checkpoint.writer import output_error
from polysafe.data.organism import organism_of
from polysafe.data.prompts import Kind
from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.evaluate.asking import Asking, Settings, recalled
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import remembered
from polysafe.judge.block import JudgeSpec
from polysafe.judge.spec import named_judge
from polysafe.progress import Progress, reporting, tell
from polysafe.recipe.places import NO_JUDGE, option_files, placed
from polysafe.recipe.recipe import Recipe
from polysafe.reproduce.compare import altered, compare_environments, compare_folders, differences
from polysafe.reproduce.environment import environment
from polysafe.reproduce.finding import ORDER, Finding, Severity, exit_code
from polysafe.reproduce.inputs import Input, check_inputs, resolve, used_sources
from polysafe.reproduce.record import RECORD, ReproduceFolder
from polysafe.reproduce.write import without_addresses
from polysafe.threads import threads

SCHEMA = 1
COMPARISON = "comparison.json"
_JOB = "reproducing.json"


@dataclass(frozen=True)
class Reproduced:
    """What came of doing it again.

    Attributes:
        recorded: What was to be done again.
        findings: What differs, the worst first.
        found: The repetition; None where nothing was run.
    """

    recorded: ReproduceFolder
    findings: tuple[Finding, ...]
    found: ReproduceFolder | None = None

    @property
    def exit_code(self) -> int:
        """0 where nothing that was computed differs, 1 where something does, 2 where the inputs do."""
        return exit_code(self.findings)

    @property
    def sentence(self) -> str:
        """The outcome in a sentence."""
        counts = Counter(finding.severity for finding in self.findings)
        if counts[Severity.FATAL]:
            return f"{counts[Severity.FATAL]} differences of the inputs: this would be a result of something else"
        if self.found is None:
            return "nothing was run; the inputs are those on record"
        if self.exit_code == 0:
            return f"identical: {self._compared}"
        return f"not the same: {counts[Severity.RESULT]} differences of the result, {counts[Severity.DRIFT]} of drift"

    @property
    def _compared(self) -> str:
        assert self.found is not None
        old, new = ([step.edit_sha256 for step in folder.about.steps] for folder in (self.recorded, self.found))
        counts = [
            (len(old), "edit"),
            (len(self.recorded.about.runs), "examined model"),
            (len(self.recorded.rows), "row"),
        ]
        words = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts]
        words[0] += " to the byte" if old == new else " but for the names of sources or files"
        return f"{words[0]}, every file of their models, every answer of {words[1]}, {words[2]}"

    def to_json(self) -> dict[str, Any]:
        """The outcome in values that JSON can hold."""
        counts = Counter(finding.severity for finding in self.findings)
        return {
            "polysafe": "reproduction_comparison",
            "schema": SCHEMA,
            "version": __version__,
            "record": hash_file(self.recorded.root / RECORD),
            "ran": self.found is not None,
            "exit_code": self.exit_code,
            "outcome": self.sentence,
            "counts": {severity: counts[severity] for severity in ORDER},
            "findings": [asdict(finding) for finding in self.findings],
        }


def reproduce(
    folder: Path,
    output: Path,
    *,
    sources: Mapping[str, Path] | None = None,
    data: Path | None = None,
    judge: str | Sequence[str] | None = None,
    judge_key: str | None = None,
    device: str | None = None,
    check_only: bool = False,
    progress: Progress = tell,
) -> Reproduced:
    """Checks the inputs of a result, does it again, and compares.

    Nothing that was computed before is used, no remembered answer either. An interrupted repetition goes on where it
    stopped. As many threads are used as were on record, because they decide the last digits.

    Args:
        folder: Folder of results, or the `reproduce/` folder in it.
        output: Folder for everything that is made again, and for `comparison.json`.
        sources: Input -> folder or file on this machine.
        data: Folder with a folder per prompt set.
        judge: The judge, as for `audit`, where it is on a server: addresses are not on record.
        judge_key: Environment variable with the key of its server.
        device: Where models run, if not where they ran.
        check_only: Compare inputs and environment, and run and write nothing.
        progress: Called as `progress(what, done, total)`.

    Raises:
        DataError: The record is damaged, or nobody says where an input is.
        OutputError: The output holds something else.
        PolysafeError: As for running and evaluating the recipe.
    """
    recorded = ReproduceFolder.load(folder.absolute())
    job = _Job(recorded, dict(sources or {}), data, named_judge(judge, judge_key), device)
    with reporting(progress), threads(recorded.environment.torch_threads):
        findings = [*altered(recorded), *job.check()]
        if check_only or any(finding.severity is Severity.FATAL for finding in findings):
            findings += compare_environments(recorded.environment, environment())
            return Reproduced(recorded, _sorted(findings))
        output = output.absolute()
        _prepare(output, recorded)
        found = ReproduceFolder.load(job.run(output))
    done = Reproduced(recorded, _sorted([*findings, *compare_folders(recorded, found)]), found)
    write_json_atomic(output / COMPARISON, done.to_json())
    return done


def _sorted(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))


def _prepare(output: Path, recorded: ReproduceFolder) -> None:
    """Takes an empty folder, or one in which this very repetition was interrupted.

    Raises:
        OutputError: The folder holds something else, or a repetition that is done: nothing would be computed.
    """
    mark = {"record": hash_file(recorded.root / RECORD), "version": __version__}
    try:
        output.mkdir(parents=True, exist_ok=True)
        if (any(output.iterdir()) and remembered(output / _JOB) != mark) or (output / COMPARISON).exists():
            raise OutputError(
                "is not empty; a repetition starts from nothing", where=output, remedy="choose another --output"
            )
        write_json_atomic(output / _JOB, mark)
    except OSError as error:
        raise output_error(output, error) from error


@dataclass(frozen=True)
class _Job:
    """A record, and what the user says about this machine."""

    recorded: ReproduceFolder
    sources: Mapping[str, Path]
    data: Path | None
    judge: JudgeSpec | None
    device: str | None

    @cached_property
    def places(self) -> dict[str, Path]:
        return resolve(self._inputs, self.sources, self.recorded.root)

    @cached_property
    def _inputs(self) -> Mapping[str, Input]:
        """The inputs, without those of a judge in whose place the user names one."""
        inputs = self.recorded.about.inputs
        if self.recorded.about.kind != "evaluate":
            return inputs
        recipe = self._template
        return {name: inputs[name] for name in (*used_sources(recipe), *option_files(recipe)) if name in inputs}

    @cached_property
    def _template(self) -> Recipe:
        """The recipe with its placeholders; without a judge where the user names one."""
        (step,) = self.recorded.about.steps
        recipe = self.recorded.recipe(step)
        if recipe.evaluate is None:
            raise DataError("measures nothing", where=self.recorded.root / step.recipe)
        if not self.judge:
            if NO_JUDGE in recipe.to_yaml():
                raise RecipeError(
                    f"nobody says where the judge {self.recorded.about.judge['name']!r} is served",
                    remedy="add --judge KIND=NAME@URL, as for audit",
                )
            return recipe
        return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"judge": None})})

    def check(self) -> Iterator[Finding]:
        """Everything that can be known to differ before anything is run."""
        yield from check_inputs(self._inputs, self.places)
        if self.recorded.about.kind == "evaluate":
            recipe = self.recipe(self.places, Path("model"))
            yield from self._check_sets(recipe)
            if self.judge:
                yield from self._check_judge(recipe, self.judge)

    def recipe(self, places: Mapping[str, Path], output: Path) -> Recipe:
        return placed(self._template, self.recorded.root, places, output)

    def run(self, output: Path) -> Path:
        """Does it again and returns the folder of results."""
        runs: Mapping[str, Callable[[Path], None]] = {"evaluate": self._evaluate, "quickstart": self._quickstart}
        results = output / "results"
        runs[self.recorded.about.kind](results)
        return results

    def _evaluate(self, results: Path) -> None:
        from polysafe.workflows.evaluate import evaluate_recipe

        settings = recalled(self.recorded.about.settings)
        recipe = self.recipe(self._linked(results.parent / "inputs"), results.parent / "model")
        assert recipe.evaluate is not None
        evaluate_recipe(
            recipe,
            results,
            judge=self.judge,
            calibration=recipe.evaluate.calibration,
            data=self.data,
            cache=results.parent / "cache.sqlite",
            **{**settings, **({"device": self.device} if self.device else {})},
        )

    def _linked(self, folder: Path) -> dict[str, Path]:
        """The places, with links to files and judges under their recorded names: edits say what files are called."""
        links = {name: folder / name for name in option_files(self._template)}
        try:
            for name, link in links.items():
                folder.mkdir(exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(self.places[name])
        except OSError as error:
            raise output_error(folder, error) from error
        return {**self.places, **links}

    def _quickstart(self, results: Path) -> None:
        from polysafe.workflows.quickstart import run_quickstart

        run_quickstart(results)

    def _check_sets(self, recipe: Recipe) -> Iterator[Finding]:
        assert recipe.evaluate is not None
        told = Settings(data=self.data, **recalled(self.recorded.about.settings))
        start = self.places[recipe.edits[0].start]
        asking = Asking.of(recipe.evaluate, told, start, recipe.output.path)
        kinds: tuple[Kind, ...] = ("harmful", "harmless")
        sets = [
            found.of_kind(kind)
            for kind in kinds
            for found in asking.prompts(kind, lambda: organism_of(self._start(recipe)))
        ]
        for old, new in zip(self.recorded.about.sets, sets, strict=True):
            if old["sha256"] != new.sha256:
                yield Finding(Severity.FATAL, f"prompt set {new.name}", str(old["sha256"]), new.sha256)

    def _start(self, recipe: Recipe) -> Checkpoint:
        return open_checkpoint(self.places[recipe.edits[0].start])

    def _check_judge(self, recipe: Recipe, judge: JudgeSpec) -> Iterator[Finding]:
        """Opens the judge once before the work: that another one answers is not to be learnt hours later."""
        from polysafe.judge.opening import open_judge

        with open_judge(judge, organism=lambda: organism_of(self._start(recipe)), device=self.device) as opened:
            now = {"name": opened.name, "identity": without_addresses(dict(opened.identity))}
        yield from differences(Severity.FATAL, "judge", self.recorded.about.judge, now)
