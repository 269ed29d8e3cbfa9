"""The report: one HTML page that shows what was found, safe to open and to pass on."""

from polysafe.edits.edit import Decision
from polysafe.findings.data import ChangedAnswer, ReportData
from polysafe.report.html import build_report

__all__ = ["ChangedAnswer", "Decision", "ReportData", "build_report"]
