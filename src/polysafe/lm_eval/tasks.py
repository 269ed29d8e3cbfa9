"""lm-eval's own tasks over our documents: its prompts, choices, stop sequences, filters and metrics."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from polysafe.data.questions import Question, QuestionSet
from polysafe.errors import DataError
from polysafe.lm_eval.families import Family
from polysafe.lm_eval.model import one_message

_PIVOT = "en"
_SPLIT = "test"
# Our documents are one split that is filtered already, and are asked without examples.
_LOCAL = {
    "test_split": _SPLIT,
    "training_split": None,
    "validation_split": None,
    "fewshot_split": None,
    "process_docs": None,
    "num_fewshot": 0,
}


@dataclass(frozen=True)
class Leaf:
    """One of lm-eval's tasks with our questions in it.

    Attributes:
        name: lm-eval's name of the definition.
        task: The task, its requests built.
        questions: Its questions, in the order of its documents.
    """

    name: str
    task: ConfigurableTask
    questions: tuple[Question, ...]

    def requests(self) -> list[list[Instance]]:
        """The requests of every question: one, or one for each choice."""
        found: list[list[Instance]] = [[] for _ in self.questions]
        for instance in self.task.instances:
            found[instance.doc_id].append(instance)
        return found

    def score(self, place: int, requests: Sequence[Instance], filtered: str) -> float:
        """lm-eval's own metric of a question, after one of its filters.

        Args:
            place: Place of the question.
            requests: Its requests, answered and filtered.
            filtered: Name of the filter.
        """
        document = self.task.eval_docs[place]
        found = self.task.process_results(document, [request.filtered_resps[filtered] for request in requests])
        return float(found["acc"] if "acc" in found else found["exact_match"])


@dataclass(frozen=True)
class Built:
    """The tasks of a family over a set of questions.

    Attributes:
        leaves: The tasks.
        tasks: Language -> lm-eval's name of the definition that it is asked by.
        missing: Languages that the set has and lm-eval does not, and that cannot be asked by another definition.
    """

    leaves: tuple[Leaf, ...]
    tasks: Mapping[str, str]
    missing: tuple[str, ...]


def build(family: Family, questions: QuestionSet, *, chat: bool) -> Built:
    """lm-eval's tasks of a family over questions.

    Args:
        family: The family.
        questions: What is asked.
        chat: Whether a chat template is put around the prompts.

    Raises:
        DataError: A question is of a subject that lm-eval does not know.
    """
    with quiet():
        manager = TaskManager(
            include_defaults=False, include_path=[Path(lm_eval.tasks.__file__).parent / family.folder]
        )
        by_language: dict[str, list[Question]] = {}
        for each in questions.questions:
            by_language.setdefault(each.language, []).append(each)
        definitions = {code: _definition(family, code, rows[0], manager) for code, rows in by_language.items()}
        leaves = [
            _leaf(name, rows, family, manager, chat)
            for code, definition in definitions.items()
            if definition is not None
            for name, rows in _by_leaf(family, by_language[code], definition).items()
        ]
    return Built(
        tuple(leaves),
        {code: family.name(definition) for code, definition in definitions.items() if definition is not None},
        tuple(code for code, definition in definitions.items() if definition is None),
    )


def _definition(family: Family, code: str, example: Question, manager: TaskManager) -> str | None:
    """The language by whose definition one is asked, None where there is none."""
    candidates = (code, _PIVOT) if family.borrows else (code,)
    return next((each for each in candidates if family.leaf(example, each) in manager.task_index), None)


def _by_leaf(family: Family, questions: Sequence[Question], definition: str) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for each in questions:
        found.setdefault(family.leaf(each, definition), []).append(each)
    return found


def _leaf(name: str, questions: Sequence[Question], family: Family, manager: TaskManager, chat: bool) -> Leaf:
    if name not in manager.task_index:
        raise DataError(
            f"lm-eval has no task {name!r}, which the question's subject or category asks for",
            where=f"question {questions[0].id!r}",
            remedy="check the column of subjects, or update lm-eval",
        )
    rows = [dict(family.row(each)) for each in questions]

    def documents(**_: Any) -> dict[str, datasets.Dataset]:
        return {_SPLIT: datasets.Dataset.from_list(rows)}

    member = {"task": name, "custom_dataset": documents, **_LOCAL}
    task = manager.load([{"group": "polysafe", "task": [member]}])["tasks"][name]
    task.build_all_requests(
        apply_chat_template=chat, fewshot_as_multiturn=False, chat_template=one_message if chat else None
    )
    return Leaf(name, task, tuple(questions))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps lm-eval's bars and hints off the screen; our own progress is shown instead."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
