"""The benchmarks by which ability is measured, and what lm-eval calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from polysafe.data.languages import is_language, language
from polysafe.data.questions import LETTERS, Question
from polysafe.errors import RecipeError, did_you_mean

Output = Literal["likelihood", "generation"]


@dataclass(frozen=True)
class Family:
    """A benchmark in many languages, each of which is a task of lm-eval or several.

    Attributes:
        task: What polysafe calls it; results call it `capability.<task>`.
        exam: The set that its questions come from.
        folder: Folder of its definitions among lm-eval's tasks.
        prefix: What the names of lm-eval's tasks begin with; the language follows.
        output: Whether choices are compared by their likelihood, or an answer is written.
        spelled: Language code -> how lm-eval's names spell it.
        row: A question as the row of the hub's table that lm-eval's definition reads.
        part: What follows the language in a task's name; empty where nothing does.
        borrows: Whether a language that lm-eval lacks is asked by the English definition, which says nothing in English
            but the word before the answer.
    """

    task: str
    exam: str
    folder: str
    prefix: str
    output: Output
    spelled: Callable[[str], str]
    row: Callable[[Question], Mapping[str, Any]]
    part: Callable[[Question], str] = lambda _: ""
    borrows: bool = False

    def name(self, code: str) -> str:
        """lm-eval's name of the benchmark in a language: a task, or a group of tasks."""
        return f"{self.prefix}{self.spelled(code)}"

    def leaf(self, question: Question, code: str) -> str:
        """lm-eval's task that a question belongs to, by the definition for a language."""
        return "_".join(filter(None, (self.name(code), self.part(question))))


def _flores(code: str) -> str:
    return language(code).flores or code


def _same(code: str) -> str:
    return code


def _locale(code: str) -> str:
    from polysafe.data.exams.mmmlu import CONFIGS

    return next((config.lower() for config in CONFIGS if language(config).code == code), code)


def _with_filipino(code: str) -> str:
    return "fil" if code == "tl" else code


def _belebele(question: Question) -> Mapping[str, Any]:
    link, _, number = question.parallel.rpartition("#")
    return {
        "link": link,
        "question_number": number,
        "flores_passage": question.context,
        "question": question.question,
        **{f"mc_answer{place}": choice for place, choice in enumerate(question.choices, 1)},
        "correct_answer_num": str(question.gold + 1),
    }


def _global_mmlu(question: Question) -> Mapping[str, Any]:
    return {
        "sample_id": question.parallel,
        "subject": question.subject,
        "subject_category": question.category,
        "question": question.question,
        **{f"option_{letter.lower()}": choice for letter, choice in zip(LETTERS, question.choices, strict=True)},
        "answer": LETTERS[question.gold],
    }


def _mmmlu(question: Question) -> Mapping[str, Any]:
    return {
        "Question": question.question,
        **dict(zip(LETTERS, question.choices, strict=True)),
        "Answer": LETTERS[question.gold],
        "Subject": question.subject,
    }


def _mgsm(question: Question) -> Mapping[str, Any]:
    return {"question": question.question, "answer": None, "answer_number": question.gold, "equation_solution": None}


def _xcopa(question: Question) -> Mapping[str, Any]:
    choices = {f"choice{place}": choice for place, choice in enumerate(question.choices, 1)}
    return {"premise": question.context, **choices, "question": question.question, "label": question.gold}


def _category(question: Question) -> str:
    return (question.category or "").lower().replace(" ", "_")


def _subject(question: Question) -> str:
    return question.subject or ""


def _arithmetic(task: str, style: str) -> Family:
    return Family(task, "mgsm", f"mgsm/{style}", f"mgsm_{style}_", "generation", _same, _mgsm)


_FAMILIES = (
    Family("belebele", "belebele", "belebele", "belebele_", "likelihood", _flores, _belebele),
    Family(
        "global_mmlu",
        "global_mmlu",
        "global_mmlu/full",
        "global_mmlu_full_",
        "likelihood",
        _with_filipino,
        _global_mmlu,
        _subject,
        borrows=True,
    ),
    Family(
        "global_mmlu_lite",
        "global_mmlu_lite",
        "global_mmlu/default",
        "global_mmlu_",
        "likelihood",
        _same,
        _global_mmlu,
        _category,
        borrows=True,
    ),
    _arithmetic("mgsm", "direct"),
    _arithmetic("mgsm_native_cot", "native_cot"),
    _arithmetic("mgsm_en_cot", "en_cot"),
    Family("mmmlu", "mmmlu", "openai-mmmlu/default", "mmmlu_", "likelihood", _locale, _mmmlu, _subject),
    Family("xcopa", "xcopa", "xcopa", "xcopa_", "likelihood", _same, _xcopa),
)


def families(names: Iterable[str]) -> dict[str, tuple[Family, frozenset[str] | None]]:
    """Task -> its family and the languages that were named with it, None where the family itself was.

    Args:
        names: Names of families (`belebele`, `mgsm`, …) or of lm-eval's tasks in one language (`belebele_tha_Thai`).

    Raises:
        RecipeError: A name is neither.
    """
    found: dict[str, tuple[Family, frozenset[str] | None]] = {}
    for name in names:
        family, code = _family(name)
        _, before = found.get(family.task, (family, frozenset()))
        found[family.task] = family, None if code is None or before is None else before | {code}
    return found


def _family(name: str) -> tuple[Family, str | None]:
    known = {family.task: family for family in _FAMILIES}
    bare = {family.prefix.rstrip("_"): family for family in _FAMILIES} | known
    if name in bare:
        return bare[name], None
    for family in sorted(_FAMILIES, key=lambda each: -len(each.prefix)):
        rest = name.removeprefix(family.prefix)
        if rest != name and is_language(rest):
            return family, language(rest).code
    raise RecipeError(
        f"there is no task {name!r}",
        where="capability",
        remedy=did_you_mean(name, known)
        or f"use {', '.join(known)}, or lm-eval's name of one of them in a language, for example belebele_tha_Thai",
    )
