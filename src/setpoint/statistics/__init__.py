"""Percentiles, intervals, comparisons and trends of latency samples that are dependent, cut off, or infinitely late.

Pure numpy, no I/O. A sample is a 1-d array of floats in arrival order. ``inf`` is a value like any other: a request that
never got an answer. A value marked in the mask ``censored`` is only a lower bound: a request still running at cut-off.
"""

from setpoint.statistics.dependence import Dependence, dependence, effective_sample_size, tail_dependence
from setpoint.statistics.differences import Estimate, difference, mean_of_rounds, ratio
from setpoint.statistics.intervals import (
    mean_interval,
    percentile_effective_n,
    percentile_interval,
    proportion_interval,
    share_interval,
)
from setpoint.statistics.limits import Side, side_of_limit
from setpoint.statistics.ratios import ratio_interval
from setpoint.statistics.samples import (
    BoolArray,
    FloatArray,
    IntArray,
    Interval,
    finite,
    kaplan_meier_percentile,
    percentile,
    percentile_bounds,
)
from setpoint.statistics.stopping import StoppingRule, settled
from setpoint.statistics.student import student_quantile
from setpoint.statistics.summary import SUMMARY_PERCENTILES, SampleSummary, summarise
from setpoint.statistics.trend import Trend, batch_means, rising_trend, transient_length

__all__ = [
    "SUMMARY_PERCENTILES",
    "BoolArray",
    "Dependence",
    "Estimate",
    "FloatArray",
    "IntArray",
    "Interval",
    "SampleSummary",
    "Side",
    "StoppingRule",
    "Trend",
    "batch_means",
    "dependence",
    "difference",
    "effective_sample_size",
    "finite",
    "kaplan_meier_percentile",
    "mean_interval",
    "mean_of_rounds",
    "percentile",
    "percentile_bounds",
    "percentile_effective_n",
    "percentile_interval",
    "proportion_interval",
    "ratio",
    "ratio_interval",
    "rising_trend",
    "settled",
    "share_interval",
    "side_of_limit",
    "student_quantile",
    "summarise",
    "tail_dependence",
    "transient_length",
]
