"""The tails that intervals are made of, against exact sums and printed tables."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.statistics.binomial import count_at, probability_up_to
from setpoint.statistics.student import student_probability_above, student_quantile


@pytest.mark.parametrize(("n", "q"), [(12, 0.5), (40, 0.9), (368, 0.99), (1000, 0.05)])
def test_the_binomial_tail_is_that_of_the_exact_sum(n: int, q: float) -> None:
    exact = 0.0
    for k in range(n + 1):
        exact += math.comb(n, k) * q**k * (1.0 - q) ** (n - k)
        assert probability_up_to(k, n, q) == pytest.approx(exact, abs=1e-3)


@given(st.floats(0.2, 5000.0), st.floats(0.005, 0.995), st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8))
def test_the_binomial_tail_rises_from_0_to_1_for_sizes_that_are_not_whole(n: float, q: float, places: list[float]) -> None:
    found = [probability_up_to(place * (n + 1.0) - 1.0, n, q) for place in sorted(places)]
    assert all(0.0 <= probability <= 1.0 for probability in found)
    assert all(b >= a - 2e-3 for a, b in pairwise(found))
    assert probability_up_to(n, n, q) == 1.0


@given(st.floats(2.0, 5000.0), st.floats(0.05, 0.95), st.floats(-1.9, 1.9))
def test_count_at_is_the_inverse(n: float, q: float, z: float) -> None:
    k = count_at(z, n, q)
    if k is not None:
        assert 0.0 <= k <= n - 1.0
        assert probability_up_to(k, n, q) == pytest.approx(0.5 * math.erfc(-z / math.sqrt(2.0)), abs=3e-3)


@pytest.mark.parametrize(
    ("level", "degrees", "printed"),
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 3, 3.182), (0.975, 6, 2.447), (0.99, 6, 3.143), (0.995, 30, 2.750)],
)
def test_students_quantiles_are_those_of_the_tables(level: float, degrees: float, printed: float) -> None:
    assert student_quantile(level, degrees) == pytest.approx(printed, rel=0.006)


def test_students_tail_and_quantile_agree() -> None:
    assert student_quantile(0.975, math.inf) == pytest.approx(1.959964, abs=1e-6)
    for level in (0.6, 0.9, 0.99, 0.999):
        assert student_probability_above(student_quantile(level, 6), 6) == pytest.approx(1.0 - level, rel=0.01)
    with pytest.raises(ValueError, match="even"):
        student_probability_above(1.0, 3)
