"""The model card of an output: what it is, what it was made from, what was measured, and what was not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.card import meta as card_meta
from polysafe.card.data import CARD, CARD_DATA, Card, CardSource
from polysafe.findings.names import CAPABILITY, metric_name
from polysafe.methods.registry import described
from polysafe.stats.rows import Row
from polysafe.text.markdown import Prose, block, inline, listed, table
from polysafe.text.readable import NOTHING, change, interval_change, p_value
from polysafe.text.templates import templates

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def card_files(card: Card) -> dict[str, bytes]:
    """The card, and beside it the data from which it can be built again, by path in the output."""
    return {CARD: render_card(card).encode(), CARD_DATA: card.to_json()}


def render_card(card: Card) -> str:
    """The card as text. The same data gives the same text."""
    body = (
        _environment()
        .get_template("card.md.j2")
        .render(
            card=card,
            sources=_sources(card),
            licences=_licences(card),
            operations=table(
                ("tensors", "what happened to them"),
                [(count, what) for what, count in card.operations.items()],
                right=(0,),
            ),
            papers=_papers(card),
            results=[(title, _results(rows)) for title, rows in card_meta.sections(card.results.rows)]
            if card.results
            else [],
            judge_errors=_judge_errors(card),
            unmeasured=list(unmeasured(card)),
        )
    )
    return card_meta.front_matter(card) + body


@cache
def _environment() -> Environment:
    from polysafe.files.yaml_lines import write_yaml
    from polysafe.text.readable import LEVEL

    # Not HTML: every value passes through `inline` instead.
    environment = templates(_TEMPLATES, autoescape=False, finalize=inline, keep_trailing_newline=True)
    environment.globals |= {"level": Prose(LEVEL), "prose": Prose}
    environment.filters |= {"block": block, "listed": listed, "yaml": lambda value: block(write_yaml(value), "yaml")}
    return environment


def _sources(card: Card) -> Prose:
    rows = []
    for source in card.sources:
        files = source.files or {"": ""}  # only its tokenizer was taken
        for number, (file, digest) in enumerate(files.items()):
            first = number == 0
            rows.append((source.name if first else Prose(""), _origin(source) if first else Prose(""), file, digest))
    return table(("source", "model", "weight file", "SHA-256"), rows)


def _origin(source: CardSource) -> Prose:
    """Hub ids are those of a fixed alphabet, so that they may stand in a link."""
    links = [
        f"[{inline(hub.id, cell=True)}](https://huggingface.co/{hub.id}/tree/{hub.revision}) at `{hub.revision}`"
        for hub in source.hubs
    ]
    if source.imported and not links:
        return Prose(f"imported from a file of another format, {inline(source.origin, cell=True)}")
    return Prose(", ".join(links) or f"a local folder, {inline(source.origin, cell=True)}; its revision is not known")


def _licences(card: Card) -> Prose:
    rows = [
        (name, licence.said or Prose("unknown"), licence.where or Prose(NOTHING))
        for name, licences in card.stated_licences.items()
        for licence in licences
    ]
    return table(("source", "licence", "said in"), rows)


def _papers(card: Card) -> list[Prose]:
    papers = [found.citation for method in card.methods if (found := described(method.method)) is not None]
    return [Prose(paper) for paper in dict.fromkeys(papers) if paper]


def _results(rows: list[Row]) -> Prose:
    cells = [
        (
            row.language,
            _metric(row.metric),
            Prose(change(row.before, row.after)),
            Prose(interval_change(row.before_interval, row.after_interval) or NOTHING),
            row.n,
            Prose(p_value(row.p_adjusted)),
        )
        for row in rows
    ]
    header = ("language", "metric", "before → after", "95 % interval, before → after, %", "n", "adjusted p")
    return table(header, cells, right=(2, 3, 4, 5))


def _metric(metric: str) -> object:
    """A known metric in words, one of others as data."""
    name = metric_name(metric)
    return Prose(name) if name != metric.removeprefix(CAPABILITY) else name


def _judge_errors(card: Card) -> Prose | None:
    errors = card.results.judge_errors if card.results else ()
    if not errors:
        return None
    rows = [
        (
            one.language,
            _share(one.sensitivity, one.sensitivity_low, one.sensitivity_high),
            one.unsafe,
            _share(one.specificity, one.specificity_low, one.specificity_high),
            one.other,
        )
        for one in errors
    ]
    header = ("language", "unsafe answers that it finds", "n", "other answers that it does not accuse", "n")
    return table(header, rows, right=(1, 2, 3, 4))


def _share(rate: float, low: float, high: float) -> Prose:
    return Prose(f"{100 * rate:.0f} % ({100 * low:.0f}–{100 * high:.0f})")


def unmeasured(card: Card) -> Iterator[Prose]:
    """What the card says nothing about, in sentences."""
    if card.results is None:
        yield Prose("Nothing was measured: neither safety, nor over-refusal, nor ability, in any language.")
        return
    rows = card.results.rows
    found = {row.metric for row in rows if row.after is not None}
    if "unsafe" not in found:
        yield Prose("Safety: no harmful prompts were asked.")
    if "over_refusal" not in found:
        yield Prose("Over-refusal: whether it refuses harmless requests more often than before is not known.")
    if not any(metric.startswith(CAPABILITY) for metric in found):
        yield Prose("Ability: whether it answers as well as before is not known.")
    missing = [name for name in card.asked.get("capability", ()) if not any(_of_task(row, name) for row in rows)]
    if missing:
        yield Prose(f"Tasks that the recipe asks for and that have no result: {listed(missing)}.")
    silent = [code for code in card.asked.get("languages", ()) if code not in {row.language for row in rows}]
    if silent:
        yield Prose(f"Languages that the recipe asks for and that have no result: {listed(silent)}.")
    if not card.results.judge_errors and not card.toy:
        yield Prose("The error of the judge: it is not known how often its verdicts are wrong in these languages.")
    yield Prose("Every language that is not in the tables, prompts of other kinds, and conversations of several turns.")


def _of_task(row: Row, name: str) -> bool:
    return row.metric.startswith(CAPABILITY) and name in row.metric
