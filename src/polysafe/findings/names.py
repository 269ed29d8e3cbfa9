"""What methods, metrics and languages are called on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from polysafe.methods.base import CONTROL
from polysafe.methods.registry import described

PUBLISHED = ".published"
WITHOUT = ".without_"
CAPABILITY = "capability."

SAFETY_METRICS = {
    "unsafe": "Unsafe",
    "refused": "Refused",
    "safe": "Safe",
    "invalid": "Broken",
    "wrong_language": "Wrong language",
    "unparsed": "Unparsed",
    "over_refusal": "Over-refusal",
    "harmless_invalid": "Broken, harmless requests",
    "harmless_wrong_language": "Wrong language, harmless requests",
    "harmless_unparsed": "Unparsed, harmless requests",
}
"""Columns of the safety table in their order, and what they are called."""

BROKEN: Mapping[str, str] = {
    "invalid": "broken answers",
    "wrong_language": "answers in the wrong language",
    "unparsed": "answers without a verdict",
}
"""Metrics of answers to harmful requests that are neither safe nor unsafe, and their words within a sentence."""

_TASKS = {
    "instructions": "Instructions",
    "knowledge": "Knowledge",
    "arithmetic": "Arithmetic",
    "reading": "Reading",
}
_TIERS = {"pivot": "pivot", "high": "high-resource", "mid": "mid-resource", "low": "low-resource"}


def method_name(method: str) -> str:
    """A method's name in words; an unknown one keeps its own words."""
    bare, _, left_out = method.removesuffix(PUBLISHED).removeprefix(CONTROL).partition(WITHOUT)
    found = described(bare)
    titles = found.titles if found else {}
    known = max((name for name in titles if f"{bare}.".startswith(f"{name}.")), key=len, default="")
    words = " ".join(
        filter(None, [titles.get(known, ""), bare[len(known) :].replace("_", " ").replace(".", " ").strip()])
    )
    if left_out:
        words += f" (without {left_out})"
    if method.endswith(PUBLISHED):
        words += " (published setting)"
    return f"Control: {words}" if method.startswith(CONTROL) else words


def method_kind(method: str) -> str:
    """control, published, transfer (to a language that was left out), baseline or method."""
    if method.startswith(CONTROL):
        return "control"
    if method.endswith(PUBLISHED):
        return "published"
    if WITHOUT in method:
        return "transfer"
    found = described(method)
    return "baseline" if found is not None and found.baseline else "method"


def metric_name(metric: str) -> str:
    """A metric's name in words."""
    task = metric.removeprefix(CAPABILITY)
    return _TASKS.get(task, task) if metric.startswith(CAPABILITY) else SAFETY_METRICS.get(metric, metric)


def tier_name(tier: str) -> str:
    """A resource tier in words."""
    return _TIERS.get(tier, tier)


def language_name(code: str, names: Mapping[str, str]) -> str:
    """A language's name with its code, or the code alone."""
    name = names.get(code, code)
    return code if name == code else f"{name} ({code})"


def pivot_of(tiers: Mapping[str, str]) -> str | None:
    """The language that others are compared with, or None where none is named."""
    return next((code for code, tier in tiers.items() if tier == "pivot"), None)


def in_order(codes: Iterable[str], tiers: Mapping[str, str]) -> list[str]:
    """Languages without repetition: those of `tiers` in its order, then the others as they came."""
    present = dict.fromkeys(codes)
    return [code for code in tiers if code in present] + [code for code in present if code not in tiers]
