"""The report: one HTML page that shows what was found, safe to open and to pass on."""

from polysafe.findings.data import BlockDecision, ChangedAnswer, ReportData
from polysafe.report.html import build_report

__all__ = ["BlockDecision", "ChangedAnswer", "ReportData", "build_report"]
