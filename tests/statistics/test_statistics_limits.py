"""On which side of a limit a percentile lies: as rarely wrong as it says, and decided where it can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.statistics import Side, side_of_limit

sample_values = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=150)


@pytest.mark.parametrize(("p", "needed"), [(50.0, 6), (90.0, 36), (95.0, 72), (99.0, 368)])
def test_how_many_values_none_beyond_show_a_percentile_within(p: float, needed: int) -> None:
    rng = np.random.default_rng(1)
    assert side_of_limit(rng.uniform(0.1, 0.2, needed - 1), p, 100.0) is Side.UNKNOWN
    assert side_of_limit(rng.uniform(0.1, 0.2, needed + 1), p, 100.0) is Side.WITHIN


def test_a_sample_that_is_all_beyond_shows_it_however_dependent() -> None:
    assert side_of_limit(np.linspace(2.0, 9.0, 30), 95.0, 1.0) is Side.BEYOND
    assert side_of_limit([], 95.0, 1.0) is Side.UNKNOWN


@given(sample_values, st.floats(0.1, 10.0), st.sampled_from([50.0, 90.0, 95.0]), st.data())
def test_censored_values_below_the_limit_prove_nothing(
    sample: list[float], limit: float, p: float, data: st.DataObject
) -> None:
    censored = data.draw(st.lists(st.booleans(), min_size=len(sample), max_size=len(sample)))
    known = [cut and value <= limit for value, cut in zip(sample, censored, strict=True)]
    if side_of_limit(sample, p, limit, censored=known) is Side.BEYOND:
        assert sum(value > limit for value in sample) > (1.0 - p / 100.0) * len(sample)


@given(sample_values, st.sampled_from([50.0, 90.0, 95.0]))
def test_a_wider_limit_is_never_worse(sample: list[float], p: float) -> None:
    """What is shown within a limit is not shown beyond a wider one."""
    limits = np.quantile(sample, [0.3, 0.7, 1.0]) + 1e-3
    sides = [side_of_limit(sample, p, float(limit)) for limit in limits]
    if Side.WITHIN in sides:
        assert Side.BEYOND not in sides[sides.index(Side.WITHIN) :]


def test_a_limit_far_above_dependent_values_is_settled_and_a_near_one_is_not() -> None:
    shocks = np.random.default_rng(4).standard_normal(600)
    waves = 0.06 * np.exp(np.convolve(shocks, np.ones(8) / 8.0, mode="valid")[:288])
    assert side_of_limit(waves, 95.0, 1.0) is Side.WITHIN
    assert side_of_limit(waves, 95.0, float(waves.max())) is Side.UNKNOWN
