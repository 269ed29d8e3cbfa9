"""The metadata of a model card: the YAML block that the hub reads, with results in its model-index form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from polysafe.card.data import Card, CardResults
from polysafe.findings.names import CAPABILITY, metric_name
from polysafe.stats.rows import Row
from polysafe.text.markdown import one_line
from polysafe.text.readable import LEVEL, interval

_LANGUAGE = re.compile(r"[a-z]{2,3}")
_TAG = re.compile(r"[^a-z0-9._-]+")
_DIGITS = 6


def front_matter(card: Card) -> str:
    """The block between the two lines of dashes, which are part of it.

    Every text is on one line and quoted where it has to be, so that none of them can end the block.
    """
    data = {key: value for key, value in _metadata(card).items() if value}
    text = yaml.safe_dump(_plain(data), sort_keys=False, allow_unicode=True, width=10**9)
    return f"---\n{text}---\n"


def _metadata(card: Card) -> dict[str, Any]:
    hubs = list(dict.fromkeys(hub.id for source in card.sources for hub in source.hubs))
    return {
        "language": languages(card),
        "license": card.settled_licence,
        "license_name": card.licence_name,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": hubs,
        "base_model_relation": ("merge" if card.merged else "finetune") if hubs else None,
        "tags": _tags(card),
        "model-index": model_index(card),
    }


def languages(card: Card) -> list[str]:
    """Languages in which the model was measured, or is to be, as the hub names them: without script and region."""
    measured = [row.language for row in card.results.rows] if card.results else []
    codes = (code.replace("_", "-").partition("-")[0].lower() for code in (*measured, *card.asked.get("languages", ())))
    return list(dict.fromkeys(code for code in codes if _LANGUAGE.fullmatch(code)))


def _tags(card: Card) -> list[str]:
    methods = [_TAG.sub("-", method.label.lower()).strip("-")[:50] for method in card.methods]
    merge = ["merge"] if card.merged else []
    toy = ["model-organism"] if card.toy else []
    return list(dict.fromkeys(tag for tag in ("polysafe", "safety", "multilingual", *merge, *toy, *methods) if tag))


def model_index(card: Card) -> list[dict[str, Any]] | None:
    """Every rate that was measured after the edit, in the hub's form; None where there is none."""
    if card.results is None:
        return None
    rows = [row for row in card.results.rows if row.after is not None]
    results = [
        {
            "task": {"type": "text-generation", "name": task},
            "dataset": {
                "type": "+".join(sets),
                "name": f"{', '.join(sets)} ({language})",
                "config": language,
                "args": {"language": language},
            },
            "metrics": [_metric(row) for row in group],
        }
        for (task, sets, language), group in _grouped(rows, card.results).items()
    ]
    return [{"name": card.name or f"polysafe {card.label}", "results": results}] if results else None


def _grouped(rows: Iterable[Row], results: CardResults) -> dict[tuple[str, tuple[str, ...], str], list[Row]]:
    groups: dict[tuple[str, tuple[str, ...], str], list[Row]] = {}
    for row in rows:
        groups.setdefault((*asked(row, results), row.language), []).append(row)
    return groups


def asked(row: Row, results: CardResults) -> tuple[str, tuple[str, ...]]:
    """What a row measures, and the names of the sets or the task that it was measured with."""
    if row.metric.startswith(CAPABILITY):
        return "ability", (row.metric.removeprefix(CAPABILITY),)
    kind = "harmless" if row.metric == "over_refusal" or row.metric.startswith("harmless") else "harmful"
    task = "over-refusal" if kind == "harmless" else "safety"
    return task, tuple(one.name for one in results.sets if one.kind == kind) or ("unknown",)


def _metric(row: Row) -> dict[str, Any]:
    assert row.after is not None
    spread = f", {LEVEL} {interval(row.after_interval)}" if row.after_interval else ""
    numbers = {name: getattr(row, name) for name in ("before", "before_low", "before_high", "p_value", "p_adjusted")}
    return {
        "type": row.metric,
        "value": _rounded(row.after),
        "name": f"{metric_name(row.metric)} after {row.method} (share; n = {row.n}{spread})",
        "args": {
            "n": row.n,
            "low": _rounded(row.after_low),
            "high": _rounded(row.after_high),
            **{name: _rounded(value) for name, value in numbers.items()},
        },
    }


def _rounded(value: float | None) -> float | None:
    """The value to a few significant digits: a small p-value is small, never zero."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _plain(value: Any) -> Any:
    """The value without what is None, its texts on one line."""
    if isinstance(value, dict):
        return {one_line(key): _plain(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return one_line(value) if isinstance(value, str) else value


def sections(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows by what they say, in the order in which the card shows them; nothing is left out."""
    left = list(rows)
    for title, wanted in (
        ("Harmful prompts", lambda row: not row.metric.startswith(("over_refusal", "harmless", CAPABILITY))),
        ("Harmless prompts", lambda row: row.metric.startswith(("over_refusal", "harmless"))),
        ("Ability", lambda _: True),
    ):
        chosen = [row for row in left if wanted(row)]
        left = [row for row in left if not wanted(row)]
        if chosen:
            yield title, chosen
