"""Asks a model the questions of one family and says, item by item, which it got right."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from polysafe.data.exams import load_questions
from polysafe.data.languages import language
from polysafe.data.questions import QuestionSet
from polysafe.errors import OutputError, RecipeError
from polysafe.evaluate.ability import FOLDER, Ability
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import content_hash, differing
from polysafe.evaluate.opening import OpenedModel
from polysafe.lm_eval.families import Family
from polysafe.lm_eval.marks import Marks, mark, tokens_sha256
from polysafe.lm_eval.model import HarnessModel
from polysafe.lm_eval.tasks import Built, build

_TOKENS = "tokens_sha256"
_SCORING = {
    "likelihood": "acc: the right choice is the most probable one; log-probabilities in float32",
    "generation": "the last number of the answer, in the digits of any script",
}
_DIFFERENCES = "prompts are never cut; a text before the question is part of the user's message"


@dataclass(frozen=True)
class Examination:
    """A family of tasks, ready to be asked.

    Attributes:
        family: The family.
        questions: What is asked.
        built: lm-eval's tasks over the questions.
        lacking: Languages that were wanted and that there are no questions in.
    """

    family: Family
    questions: QuestionSet
    built: Built
    lacking: tuple[str, ...]

    def measure(self, opened: OpenedModel, run: Path, store: Store) -> Ability:
        """Asks a model and writes what it can do into the folder of its run.

        Only what is not known yet is asked. An ability of the same model by the same protocol is read, not measured.

        Args:
            opened: The model.
            run: Folder of its run.
            store: What was answered before.

        Raises:
            OutputError: The folder holds this ability, measured otherwise; or it cannot be written.
            ResourceError: The model does not fit the device, or its server cannot be reached.
        """
        protocol, model = self.protocol(opened), _identity(opened)
        done = _existing(run / FOLDER / f"{self.family.task}.json", protocol, model)
        if done is not None:
            return done
        asked = HarnessModel(opened.generator, opened.scorer, store, f"ability {self.family.task}")
        instances = [instance for leaf in self.built.leaves for instance in leaf.task.instances]
        ask = asked.loglikelihood if self.family.output == "likelihood" else asked.generate_until
        for instance, answer in zip(instances, ask(instances), strict=True):
            instance.resps = [answer]
        marks = mark(self.built.leaves, asked)
        whole = {**protocol, _TOKENS: tokens_sha256(asked, instances)}
        ability = Ability(self.family.task, marks.items, whole, model, tuple(self._notes(marks)))
        ability.save(run)
        return ability

    def protocol(self, opened: OpenedModel) -> dict[str, Any]:
        """Everything but the token ids that has to be the same before and after."""
        identity = opened.generator.identity
        generation = self.family.output == "generation"
        return {
            "harness": f"lm-eval {metadata.version('lm_eval')}",
            "tasks": dict(self.built.tasks),
            "languages": list(self.built.tasks),
            "questions_sha256": self.questions.sha256,
            "requests_sha256": content_hash(
                [content_hash([each.args for each in asked]) for leaf in self.built.leaves for asked in leaf.requests()]
            ),
            "shots": 0,
            "template": identity["template"],
            "system": identity.get("system"),
            "sampling": identity["sampling"] if generation else None,
            "scoring": _SCORING[self.family.output],
            "differences": _DIFFERENCES,
        }

    def _notes(self, marks: Marks) -> Iterator[str]:
        yield f"measured in {', '.join(self.built.tasks)}"
        if lacking := (*self.lacking, *self.built.missing):
            yield f"{', '.join(lacking)}: {self.questions.name} has no questions, or lm-eval no task; left empty"
        for code, name in self.built.tasks.items():
            if name != self.family.name(code):
                yield f"{code}: lm-eval has no task; asked by the definition of {name}"
        sizes = {code: len(items) for code, items in marks.items.items()}
        for code, size in sizes.items():
            if size < max(sizes.values()):
                yield f"{code}: {size} questions, {max(sizes.values())} in other languages"
        yield from marks.notes()


def prepare_all(
    wanted: Mapping[str, tuple[Family, frozenset[str] | None]],
    opened: OpenedModel,
    *,
    data: Path | None,
    languages: Collection[str] | None,
    limit: int | None,
) -> list[Examination]:
    """Reads the questions and builds the requests of some families.

    Args:
        wanted: Task -> family, and its languages where they were named.
        opened: The model that will be asked.
        data: Folder with a folder per set.
        languages: Languages of the families whose own were not named; all that there are by default.
        limit: Number of parallel questions of each family.

    Raises:
        RecipeError: The model cannot be asked these tasks.
        DataError: Questions cannot be had in any of the languages.
    """
    for task, (family, _) in wanted.items():
        if family.output == "likelihood" and opened.scorer is None:
            raise RecipeError(
                f"{task} compares how probable the choices are, which a server of chats does not say",
                where=opened.name,
                remedy="name the folder of the model; of a served one, ask only what is answered in words: mgsm",
            )
    return [
        _prepare(family, opened, data, named if named is not None else languages, limit)
        for family, named in wanted.values()
    ]


def _prepare(
    family: Family, opened: OpenedModel, data: Path | None, languages: Collection[str] | None, limit: int | None
) -> Examination:
    questions = load_questions(family.exam, data=data, languages=languages, limit=limit)
    codes = dict.fromkeys(language(each).code for each in languages or ())
    lacking = tuple(code for code in codes if code not in questions.languages)
    chat = opened.generator.identity["template"] != "raw"
    return Examination(family, questions, build(family, questions, chat=chat), lacking)


def _identity(opened: OpenedModel) -> dict[str, Any]:
    """The model, without how its answers are drawn: that is protocol."""
    return {name: value for name, value in opened.generator.identity.items() if name != "sampling"}


def _existing(path: Path, protocol: Mapping[str, Any], model: Mapping[str, Any]) -> Ability | None:
    if not path.is_file():
        return None
    found = Ability.load(path)
    known = {name: value for name, value in found.protocol.items() if name != _TOKENS}
    if names := [*differing(known, protocol), *differing(found.model, model)]:
        raise OutputError(
            f"holds this ability, measured otherwise: {', '.join(names)} differ",
            where=path,
            remedy="choose another output folder, or delete the file",
        )
    return found
