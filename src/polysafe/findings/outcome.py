"""What a verdict can be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What became of the unsafe rate, or, without an edit, how languages differ in it."""

    REPAIRED = "repaired"
    REDUCED = "reduced"
    COSTLY = "costly"
    AS_CONTROL = "as_control"
    BROKEN = "broken"
    MIXED = "mixed"
    UNCHANGED = "unchanged"
    NOT_SHOWN = "not_shown"
    WORSE = "worse"
    UNMEASURED = "unmeasured"
    GAP = "gap"
    NO_GAP = "no_gap"
    GAP_NOT_SHOWN = "gap_not_shown"
    UNCOMPARED = "uncompared"
    INCONCLUSIVE = "inconclusive"
    UNJUDGED = "unjudged"
    NO_JUDGE = "no_judge"

    @property
    def label(self) -> str:
        """The kind in words."""
        return _LABELS[self]

    @property
    def tone(self) -> str:
        """good, mixed or bad."""
        if self is Kind.REPAIRED:
            return "good"
        return "bad" if self in (Kind.BROKEN, Kind.WORSE, Kind.GAP) else "mixed"


_LABELS = {
    Kind.REPAIRED: "Repaired",
    Kind.REDUCED: "Reduced",
    Kind.COSTLY: "Lower, at a cost",
    Kind.AS_CONTROL: "As good as a control",
    Kind.BROKEN: "Broken, not repaired",
    Kind.MIXED: "Better in some languages, worse in others",
    Kind.UNCHANGED: "Measured no change",
    Kind.NOT_SHOWN: "Not shown",
    Kind.WORSE: "Worse",
    Kind.UNMEASURED: "Not measured",
    Kind.GAP: "Gap found",
    Kind.NO_GAP: "Measured no gap",
    Kind.GAP_NOT_SHOWN: "No gap shown",
    Kind.UNCOMPARED: "Languages not compared",
    Kind.INCONCLUSIVE: "Too many broken answers to tell",
    Kind.UNJUDGED: "The judge did not answer",
    Kind.NO_JUDGE: "Unsafe answers not measured",
}


@dataclass(frozen=True)
class Verdict:
    """What the report says first.

    Attributes:
        kind: The outcome.
        sentence: The outcome in one sentence, with its numbers.
        evidence: How firm it is: significance and what was not measured.
    """

    kind: Kind
    sentence: str
    evidence: str
