"""Percentiles by their definitions: nearest rank, bounds under censoring, and Kaplan and Meier's estimate between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.statistics import kaplan_meier_percentile, percentile, percentile_bounds, percentile_interval

values = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
samples = st.lists(values, min_size=1, max_size=200)
percentiles = st.floats(min_value=0.5, max_value=99.5)


def masks(draw: st.DataObject, sample: list[float]) -> list[bool]:
    return draw.draw(st.lists(st.booleans(), min_size=len(sample), max_size=len(sample)))


@given(samples, percentiles)
def test_percentile_is_the_least_value_that_covers_p(sample: list[float], p: float) -> None:
    found = percentile(sample, p)
    if len(sample) * (100.0 - p) < 100.0 - 1e-6:
        assert found is None
        return
    assert found in sample
    up_to = sum(value <= found for value in sample)
    below = sum(value < found for value in sample)
    assert up_to >= len(sample) * p / 100.0 - 1e-6
    assert below < len(sample) * p / 100.0 + 1e-6


@given(samples, st.data())
def test_censoring_never_lowers_a_percentile(sample: list[float], data: st.DataObject) -> None:
    censored, p = masks(data, sample), data.draw(percentiles)
    full, cut = percentile(sample, p), percentile(sample, p, censored)
    assert cut is None or (full is not None and cut >= full)
    wide, narrow = percentile_interval(sample, p, 0.95, 20.0, censored), percentile_interval(sample, p, 0.95, 20.0)
    if wide is not None and narrow is not None:
        assert wide[0] <= narrow[0]
        assert wide[1] >= narrow[1]


@given(samples, st.data())
def test_every_reading_of_censored_values_lies_within_the_bounds(sample: list[float], data: st.DataObject) -> None:
    censored, p = masks(data, sample), data.draw(percentiles)
    grown = [value + data.draw(values) if cut else value for value, cut in zip(sample, censored, strict=True)]
    bounds, truth, estimate = (
        percentile_bounds(sample, p, censored),
        percentile(grown, p),
        kaplan_meier_percentile(sample, p, censored),
    )
    assert (bounds is None) == (truth is None)
    if bounds is not None and truth is not None:
        assert bounds[0] <= truth <= bounds[1]
        assert estimate is None or bounds[0] <= estimate


@given(samples, percentiles)
def test_without_censoring_all_definitions_agree(sample: list[float], p: float) -> None:
    found = percentile(sample, p)
    assert kaplan_meier_percentile(sample, p) == found
    assert percentile_bounds(sample, p) == (None if found is None else (found, found))


def test_a_percentile_among_the_censored_is_not_invented() -> None:
    sample, censored = [1.0] * 90 + [5.0] * 10, [False] * 90 + [True] * 10
    assert percentile(sample, 90.0, censored) == 1.0
    assert percentile(sample, 91.0, censored) is None
    assert percentile_bounds(sample, 91.0, censored) == (5.0, math.inf)
    assert kaplan_meier_percentile(sample, 91.0, censored) is None


def test_kaplan_and_meier_by_hand() -> None:
    """Ends at 1, 2 and 4, cut off at 3: survival 3/4, 2/4, then one at risk of one."""
    sample, censored = [1.0, 2.0, 3.0, 4.0], [False, False, True, False]
    assert kaplan_meier_percentile(sample, 50.0, censored) == 2.0
    assert kaplan_meier_percentile(sample, 60.0, censored) == 4.0


def test_kaplan_and_meier_allow_for_a_cut_off_at_random() -> None:
    rng = np.random.default_rng(1)
    waits, watched = rng.exponential(1.0, 40_000), rng.uniform(0.0, 6.0, 40_000)
    seen, censored = np.minimum(waits, watched), waits > watched
    estimate = kaplan_meier_percentile(seen, 90.0, censored)
    assert estimate == pytest.approx(math.log(10.0), rel=0.03)
    ended = percentile(seen[~censored], 90.0)
    assert ended is not None
    assert ended < 0.85 * math.log(10.0), "forgetting the unfinished would have done as well: the test shows nothing"


def test_infinite_values_are_ranked_like_any_other() -> None:
    sample = [1.0] * 95 + [math.inf] * 5
    assert percentile(sample, 95.0) == 1.0
    assert percentile(sample, 96.0) == math.inf
    assert kaplan_meier_percentile(sample, 96.0) == math.inf


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1.0], 100.0)
    with pytest.raises(ValueError, match="NaN"):
        percentile([math.nan], 50.0)
    with pytest.raises(ValueError, match="shapes"):
        percentile([1.0], 50.0, [True, False])
