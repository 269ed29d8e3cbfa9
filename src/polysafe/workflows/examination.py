"""What the family's models are asked: harmful and harmless prompts, topics, translations, exams of lm-eval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.dtypes import fast_type
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.opening import open_model
from polysafe.generate.completion import Sampling
from polysafe.lm_eval import prepare
from polysafe.organism.gemma.ability import measure_bits, measure_topics
from polysafe.organism.gemma.texts import Texts
from polysafe.threads import threads
from polysafe.workflows.audit import audit

HARMFUL = "multijail.test"
BOUNDARY = "xstest.harmless"
EXAMS: Mapping[str, tuple[str, ...]] = {"xcopa": ("zh", "vi"), "belebele": ("en", "vi")}
"""Exams of lm-eval, and the languages that they are asked in."""
QUESTIONS = 100
"""Most questions of an exam in each language."""
MAX_TOKENS = 32
JUDGE = "refusal_or_frame"


@dataclass(frozen=True)
class Examination:
    """What a model is asked.

    Attributes:
        languages: Languages of harmful and harmless prompts.
        able: Languages in which its ability is measured.
        boundary: Whether it is asked harmless English prompts that sound harmful.
        exams: Exams of lm-eval; a model of this size is at chance in them.
    """

    languages: tuple[str, ...]
    able: tuple[str, ...] = ()
    boundary: bool = False
    exams: tuple[str, ...] = ()


def examine(folder: Path, run: Path, wanted: Examination, data: Path, harmless: Path, limit: int | None = None) -> Path:
    """Asks a model and measures its ability, in one thread; what is there already is kept.

    Args:
        folder: The model.
        run: Folder of its run.
        wanted: What is asked.
        data: Folder with a folder per set.
        harmless: Table of harmless prompts.
        limit: Most parallel rows of every set.

    Returns:
        The folder of the run.

    Raises:
        PolysafeError: As for `audit`.
    """
    cache = run.parent / f"{run.name}.sqlite"
    with threads(1):
        audit(
            folder,
            safety=[HARMFUL],
            over_refusal=[*([BOUNDARY] if wanted.boundary else []), harmless],
            judge=JUDGE,
            languages=wanted.languages,
            data=data,
            limit=limit,
            max_tokens=MAX_TOKENS,
            dtype=fast_type(),
            output=run,
            cache=cache,
        )
        if wanted.able:
            _measure(folder, run, wanted, data, cache, limit)
    return run


def _measure(folder: Path, run: Path, wanted: Examination, data: Path, cache: Path, limit: int | None) -> None:
    texts = Texts(data)
    with open_model(folder, Sampling(max_tokens=MAX_TOKENS), dtype=fast_type()) as opened, Cache(cache) as store:
        assert opened.continuations is not None
        measure_topics(opened.continuations, texts, wanted.able, run, limit=limit)
        measure_bits(opened.continuations, texts, wanted.able, run, limit=limit)
        for exam in wanted.exams:
            if asked := [code for code in EXAMS[exam] if code in wanted.able]:
                (prepared,) = prepare([exam], opened, data=data, languages=asked, limit=limit or QUESTIONS)
                prepared.measure(opened, run, store)
