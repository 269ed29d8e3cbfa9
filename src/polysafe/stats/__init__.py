"""Intervals, paired tests, multiplicity, and the rows that results are made of. Knows no model."""

from polysafe.stats.compare import Outcomes, adjust, collect, compare_outcomes, rate_outcomes
from polysafe.stats.intervals import Interval, mean_interval, wilson
from polysafe.stats.multiplicity import holm
from polysafe.stats.rows import RateRow, Row, load_rows, save_rows
from polysafe.stats.tests import mcnemar_exact

__all__ = [
    "Interval",
    "Outcomes",
    "RateRow",
    "Row",
    "adjust",
    "collect",
    "compare_outcomes",
    "holm",
    "load_rows",
    "mcnemar_exact",
    "mean_interval",
    "rate_outcomes",
    "save_rows",
    "wilson",
]
