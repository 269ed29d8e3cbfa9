"""How often intervals of means over languages hold the truth, and how wide they are beside the mean of the ends.

    python -m benchmarks.evidence.coverage [--runs 2000] [--seed 0] [--json FILE]

Prompts are drawn with one latent normal score for each language, correlated over the languages of a prompt; an answer
is unsafe where its score is below the quantile of the language's rate. Languages differ by half of their mean rate
either way. For paired differences the scores before and after are correlated likewise. Nothing is asserted here; the
tests hold the worst cases.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from polysafe.stats import wilson
from polysafe.stats.clusters import Design
from polysafe.stats.differences import interval_of_design

PROMPTS = (48, 150, 315)
LANGUAGES = (3, 5, 10)
RATES = (0.01, 0.03, 0.05, 0.1, 0.3, 0.5)
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
CHANGES = ((0.4, 0.1), (0.1, 0.03), (0.1, 0.1))
"""Rates before and after."""


@dataclass(frozen=True)
class Row:
    """One way of drawing.

    Attributes:
        what: `rate`, or `difference` of two rates on the same prompts.
        prompts: Prompts in each language.
        languages: Number of languages.
        truth: Mean rate, or rates before and after.
        correlation: Correlation of the scores of one prompt.
        held: Share of intervals that hold the truth.
        below: Share of intervals that end below it.
        width: Mean width.
        averaged: Share of intervals of averaged ends that hold the truth; None for differences.
        ratio: How many times wider these are; None for differences.
    """

    what: str
    prompts: int
    languages: int
    truth: str
    correlation: float
    held: float
    below: float
    width: float
    averaged: float | None = None
    ratio: float | None = None


def drawn(
    seed: np.random.Generator, prompts: int, rates: NDArray[np.float64], correlation: float
) -> NDArray[np.float64]:
    """Outcomes, 0 or 1, shape (prompts, rates)."""
    shared = seed.standard_normal((prompts, 1)) * correlation**0.5
    own = seed.standard_normal((prompts, rates.size)) * (1 - correlation) ** 0.5
    return (shared + own < ndtri(rates)).astype(np.float64)


def spread(rate: float, languages: int) -> NDArray[np.float64]:
    """Rates of the languages around their mean."""
    return rate * np.linspace(0.5, 1.5, languages)


def design(prompts: int, languages: int) -> Design:
    """Every prompt in every language, items in the order of `drawn`."""
    return Design.of(np.repeat(np.arange(prompts), languages), np.tile(np.arange(languages), prompts))


def of_rates(
    seed: np.random.Generator, prompts: int, languages: int, rate: float, correlation: float, runs: int
) -> Row:
    """Coverage of a mean rate."""
    plan, held, below, averaged = design(prompts, languages), 0, 0, 0
    widths = np.zeros(2)
    for _ in range(runs):
        values = drawn(seed, prompts, spread(rate, languages), correlation)
        span = plan.wilson(values.ravel(), 0.95)
        ends = np.mean([wilson(int(count), prompts) for count in values.sum(0)], axis=0)
        held, below = held + (span.low <= rate <= span.high), below + (span.high < rate)
        averaged += bool(ends[0] <= rate <= ends[1])
        widths += span.high - span.low, ends[1] - ends[0]
    return Row("rate", prompts, languages, f"{rate}", correlation, held / runs, below / runs, widths[0] / runs,
               averaged / runs, widths[1] / widths[0])  # fmt: skip


def of_differences(
    seed: np.random.Generator, prompts: int, languages: int, rates: Sequence[float], correlation: float, runs: int
) -> Row:
    """Coverage of a paired difference."""
    plan, held, below, width, truth = design(prompts, languages), 0, 0, 0.0, rates[1] - rates[0]
    both = np.concatenate([spread(rate, languages) for rate in rates])
    for _ in range(runs):
        values = drawn(seed, prompts, both, correlation)
        span = interval_of_design(values[:, :languages].ravel(), values[:, languages:].ravel(), plan)
        held, below, width = (
            held + (span.low <= truth <= span.high),
            below + (span.high < truth),
            width + span.high - span.low,
        )
    told = f"{rates[0]} to {rates[1]}"
    return Row("difference", prompts, languages, told, correlation, held / runs, below / runs, width / runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws, counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    seed, rows = np.random.default_rng(options.seed), []
    print("what prompts languages truth correlation held below width averaged ratio")
    for prompts, languages, correlation in product(PROMPTS, LANGUAGES, CORRELATIONS):
        found = [of_rates(seed, prompts, languages, rate, correlation, options.runs) for rate in RATES]
        found += [of_differences(seed, prompts, languages, rates, correlation, options.runs // 4) for rates in CHANGES]
        for row in found:
            print(
                *(f"{value:.3f}" if isinstance(value, float) else value for value in asdict(row).values()), flush=True
            )
        rows += found
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
