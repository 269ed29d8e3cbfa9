"""Ability through lm-eval (EleutherAI's evaluation harness): its prompts and metrics, our questions and rendering.

lm-eval is imported by the modules in here, and those only when an ability is measured.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.errors import RecipeError

if TYPE_CHECKING:
    from polysafe.evaluate.opening import OpenedModel
    from polysafe.lm_eval.measure import Examination


def prepare(
    names: Sequence[str],
    opened: OpenedModel,
    *,
    data: Path | None = None,
    languages: Collection[str] | None = None,
    limit: int | None = None,
) -> list[Examination]:
    """Reads the questions of some tasks and builds their prompts; nothing is asked yet.

    Args:
        names: `belebele`, `global_mmlu`, `global_mmlu_lite`, `mgsm`, `mgsm_native_cot`, `mgsm_en_cot`, `mmmlu`,
            `xcopa`; or lm-eval's name of one of them in a language, which then is the one that is asked.
        opened: The model that will be asked.
        data: Folder with a folder per set.
        languages: Languages; all of every set by default.
        limit: Number of parallel questions of every task.

    Raises:
        RecipeError: There is no such task, it cannot be asked of the model, or lm-eval is not installed.
        DataError: Questions cannot be had.
    """
    if not names:
        return []
    from polysafe.lm_eval.families import families

    wanted = families(names)
    try:
        from polysafe.lm_eval.measure import prepare_all
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"lm_eval", "datasets"}:
            raise
        raise RecipeError("ability needs the package lm-eval", remedy="pip install 'polysafe[lm-eval]'") from error
    return prepare_all(wanted, opened, data=data, languages=languages, limit=limit)
