"""Intervals, paired tests, multiplicity, judge error, and the rows that results are made of. Knows no model."""

from polysafe.stats.clusters import wilson_clustered
from polysafe.stats.compare import Outcomes, adjust, collect, compare_outcomes, rate_outcomes
from polysafe.stats.differences import Difference, newcombe_paired, paired_difference, paired_interval, tango
from polysafe.stats.gaps import Gap, adjust_gaps, gap_rows
from polysafe.stats.intervals import Interval, mean_interval, wilson
from polysafe.stats.judge_error import Calibration, Corrected, correct_rate
from polysafe.stats.language_means import MeanRate, MeanShift, mean_rate, mean_shift
from polysafe.stats.multiplicity import Adjustment, benjamini_hochberg, holm
from polysafe.stats.power import (
    Detectable,
    detectable_paired,
    detectable_unpaired,
    power_paired,
    power_unpaired,
    size_paired,
    size_unpaired,
    smallest_paired,
)
from polysafe.stats.rows import RateRow, Row, load_rows, save_rows
from polysafe.stats.tests import mcnemar_clustered, mcnemar_exact, pivot_exact

__all__ = [
    "Adjustment",
    "Calibration",
    "Corrected",
    "Detectable",
    "Difference",
    "Gap",
    "Interval",
    "MeanRate",
    "MeanShift",
    "Outcomes",
    "RateRow",
    "Row",
    "adjust",
    "adjust_gaps",
    "benjamini_hochberg",
    "collect",
    "compare_outcomes",
    "correct_rate",
    "detectable_paired",
    "detectable_unpaired",
    "gap_rows",
    "holm",
    "load_rows",
    "mcnemar_clustered",
    "mcnemar_exact",
    "mean_interval",
    "mean_rate",
    "mean_shift",
    "newcombe_paired",
    "paired_difference",
    "paired_interval",
    "pivot_exact",
    "power_paired",
    "power_unpaired",
    "rate_outcomes",
    "save_rows",
    "size_paired",
    "size_unpaired",
    "smallest_paired",
    "tango",
    "wilson",
    "wilson_clustered",
]
