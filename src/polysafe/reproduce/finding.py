"""What differs between a result and its repetition, and how bad that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a difference is, the worst first.

    Attributes:
        FATAL: An input differs, so that the two results are not results of the same.
        RESULT: The edit, the model, a verdict or a rate differs by more than its interval allows.
        DRIFT: Numbers differ within their recorded intervals, or in the last digits.
        ENVIRONMENT: Versions, machine or settings differ; a reason, if something else does.
        NOTE: Worth knowing.
    """

    FATAL = "fatal"
    RESULT = "result"
    DRIFT = "drift"
    ENVIRONMENT = "environment"
    NOTE = "note"


ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    Attributes:
        severity: How bad it is.
        what: What differs.
        recorded: How it was.
        found: How it is.
    """

    severity: Severity
    what: str
    recorded: str = ""
    found: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where nothing that was computed differs, 1 where something does, 2 where the inputs do."""
    severities = {finding.severity for finding in findings}
    if Severity.FATAL in severities:
        return 2
    return 1 if severities & {Severity.RESULT, Severity.DRIFT} else 0
