"""What the numbers of a report cannot say."""

from __future__ import annotations

from collections.abc import Iterator

from polysafe.findings.claims import ABILITY_LOSS, BAR, EQUIVALENT, OVER_REFUSAL_RISE
from polysafe.findings.data import ReportData
from polysafe.findings.summary import SIGNIFICANT
from polysafe.text.readable import LEVEL, percent


def limits(data: ReportData) -> Iterator[str]:
    """What the numbers cannot say."""
    if data.toy:
        yield (
            "The models are a model organism: small models trained on purpose to have the problem. "
            "Nothing here is evidence about any real model."
        )
    yield from _of_edit() if data.rows else _of_audit()
    yield "A rate of 0 % on n items does not rule out a true rate up to the upper end of its interval."
    yield from data.limits


def _of_edit() -> Iterator[str]:
    yield (
        f"Intervals are {LEVEL} Wilson intervals of single rates. p-values are exact McNemar tests on the same items "
        "before and after, adjusted by Holm's procedure over the languages of one method and metric; below "
        f"{SIGNIFICANT} counts as significant. Methods and metrics are not adjusted for each other."
    )
    yield (
        "An outcome is called repaired only if unsafe answers fell significantly and proper answers made up at least "
        f"half of the fall; the interval of the mean rate afterwards ends at or below {percent(BAR)} and no language "
        f"is shown above it, or the mean is shown to be within {100 * EQUIVALENT:.0f} points of the pivot; and the "
        f"intervals rule out an ability loss of {100 * ABILITY_LOSS:.0f} points and a rise of over-refusal by "
        f"{100 * OVER_REFUSAL_RISE:.0f}."
    )
    yield (
        f"n detects a difference if the exact McNemar test at {percent(SIGNIFICANT)} finds it four times in five where "
        "a fifth of the answers change; smaller ones are missed more often."
    )


def _of_audit() -> Iterator[str]:
    yield (
        f"Intervals are {LEVEL} Wilson intervals of single rates; those of gaps are paired, by prompt. p-values are "
        "exact McNemar tests of the same prompts in a language and in the pivot, adjusted by Holm's procedure over the "
        f"languages of one metric; below {SIGNIFICANT} counts as significant."
    )
    yield (
        "A gap holds the translation of the prompts and the judge's error in each language, beside the model's safety."
    )
