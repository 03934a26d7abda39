"""Load curves: excess over load and stretch, knee; and the headroom that follows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.plan.curve import LEAST_INTERPOLATED, STRETCHES, CurvePoint, Floats, LoadCurve
from setpoint.plan.headroom import CELLS, Uncertainty, headroom, met_probability

CAPACITY_RPS, SERVICE_S = 10.0, 0.1


def waiting_s(rate_rps: float) -> float:
    """Mean response time of an M/M/1 queue of 10/s."""
    return 1.0 / (CAPACITY_RPS - rate_rps) if rate_rps < CAPACITY_RPS else 100.0 * rate_rps


def curve_of(limit_s: float, rates: Floats | None = None, ttft: tuple[int, ...] = ()) -> LoadCurve:
    """The curve of that queue with one limit on its response time, which is one on TTFT if its place is in ``ttft``."""
    loads = np.linspace(0.5, 14.0, 60) if rates is None else rates
    return LoadCurve([CurvePoint(rate, waiting_s(rate) / limit_s * STRETCHES[None, :]) for rate in loads.tolist()], 1, ttft)


def test_the_knee_is_where_the_limit_is_reached() -> None:
    # 1 / (10 - x) = 0.5 s at x = 8.
    assert curve_of(0.5).knee_rps() == pytest.approx(8.0, rel=0.02)


def test_slower_steps_are_a_stretched_replica() -> None:
    """A queue whose service takes s times as long has its knee where 1 / (10 / s - x) reaches the limit."""
    for stretch in (0.8, 1.1, 1.5):
        assert curve_of(0.5).knee_rps(stretch) == pytest.approx(CAPACITY_RPS / stretch - 2.0, rel=0.03)


def test_a_limit_that_is_doubled_moves_the_knee() -> None:
    assert curve_of(0.5).knee_rps(1.0, [2.0]) == pytest.approx(9.0, rel=0.02)


def test_without_limits_every_load_holds() -> None:
    curve = LoadCurve([CurvePoint(1.0, np.zeros((0, len(STRETCHES)))), CurvePoint(2.0, np.zeros((0, len(STRETCHES))))], 0)
    assert curve.knee_rps() == pytest.approx(4.0)


def test_a_curve_needs_a_point() -> None:
    with pytest.raises(ValueError, match="needs a point"):
        LoadCurve([], 1)


def test_excess_never_falls_beyond_the_last_point() -> None:
    falling = LoadCurve([CurvePoint(1.0, 4.0 * STRETCHES[None, :]), CurvePoint(2.0, 2.0 * STRETCHES[None, :])], 1)
    assert falling.excess(np.array([2.0, 4.0, 16.0]), np.ones(3)).tolist() == pytest.approx([2.0, 2.0, 2.0])


def test_a_share_of_nothing_does_not_draw_the_knee_to_the_load_that_misses() -> None:
    """Between 10/s with no refusals and 15/s with four times as many as allowed the knee is somewhere in between."""
    shares = {10.0: 0.0, 15.0: 4.0}
    curve = LoadCurve([CurvePoint(rate, np.full((1, len(STRETCHES)), share)) for rate, share in shares.items()], 1)
    assert 10.5 < curve.knee_rps() < 13.0
    assert curve.of_limit(0, 10.0) == pytest.approx(LEAST_INTERPOLATED)


def test_single_point_curve_knows_its_stretch() -> None:
    one = LoadCurve([CurvePoint(1.0, 0.5 * STRETCHES[None, :])], 1)
    assert one.excess(np.array([1.0]), np.array([1.5]))[0] == pytest.approx(0.75, rel=1e-3)


@given(
    limit_s=st.floats(0.15, 2.0),
    rate=st.floats(0.6, 13.0),
    more=st.floats(1.0, 1.5),
    sigma=st.floats(0.0, 0.5),
    load=st.floats(0.0, 0.3),
)
def test_more_load_or_a_tighter_limit_is_never_more_probable(
    limit_s: float, rate: float, more: float, sigma: float, load: float
) -> None:
    uncertainty = Uncertainty(sigma, load)
    base = met_probability(curve_of(limit_s), rate, uncertainty)
    assert 0.0 <= met_probability(curve_of(limit_s), rate * more, uncertainty) <= base
    assert met_probability(curve_of(limit_s / more), rate, uncertainty) <= base


def test_at_the_knee_the_odds_are_even() -> None:
    curve = curve_of(0.5)
    assert met_probability(curve, curve.knee_rps(), Uncertainty(0.2, 0.1)) == pytest.approx(0.5, abs=0.05)


def test_without_uncertainty_the_answer_is_yes_or_no() -> None:
    assert met_probability(curve_of(0.5), 7.9, Uncertainty(0.0, 0.0)) == 1.0
    assert met_probability(curve_of(0.5), 8.2, Uncertainty(0.0, 0.0)) == 0.0


def test_probability_agrees_with_the_normal_distribution() -> None:
    """With error in the load alone the limit holds while the load is below the knee: Phi(ln(knee / rate) / sigma)."""
    curve = curve_of(0.5)
    expected = 0.5 * math.erfc(-math.log(curve.knee_rps() / 7.0) / 0.1 / math.sqrt(2))
    assert met_probability(curve, 7.0, Uncertainty(0.0, 0.1)) == pytest.approx(expected, abs=0.02)


def test_a_point_inside_its_error_bar_is_said_to_be() -> None:
    near, far = (headroom(curve_of(0.5), rate, Uncertainty(0.15, 0.05)) for rate in (7.6, 3.0))
    assert near.within_error
    assert not near.sure(0.5)
    assert near.knee_distance == pytest.approx(8.0 / 7.6 - 1, abs=0.03)
    assert not far.within_error
    assert far.sure(0.95)
    assert near.if_measured > near.met_probability


@given(rate=st.floats(0.01, 8.0), error=st.floats(0.0, 2.0), load=st.floats(0.0, 0.3))
def test_an_error_that_is_a_guess_makes_nothing_sure(rate: float, error: float, load: float) -> None:
    found = headroom(curve_of(2.0), rate, Uncertainty(error, load, guess=True))
    assert found.within_error
    assert not found.sure(0.0)


def test_an_error_that_was_measured_is_no_guess_however_large() -> None:
    found = headroom(curve_of(2.0), 0.6, Uncertainty(0.5, 0.02))
    assert not found.within_error
    assert found.sure(0.9)


@given(limit_s=st.floats(0.15, 2.0), rate=st.floats(0.6, 13.0), sigma=st.floats(0.0, 0.5), error=st.floats(0.0, 1.0))
def test_an_error_of_ttft_touches_limits_on_ttft_alone_and_them_by_what_it_has_beyond_steps(
    limit_s: float, rate: float, sigma: float, error: float
) -> None:
    doubt = Uncertainty(sigma, 0.1)
    more = replace(doubt, ttft_error=error)
    steps_alone = met_probability(curve_of(limit_s), rate, doubt)
    assert met_probability(curve_of(limit_s), rate, more) == steps_alone
    limited = curve_of(limit_s, ttft=(0,))
    found = met_probability(limited, rate, more)
    if error <= sigma:
        assert found == steps_alone
    else:
        assert found >= steps_alone / 2, "a TTFT within its limit is at least as likely shorter than predicted as longer"
        if limited.met(rate):
            assert found <= steps_alone + 3 / CELLS, "what is predicted to hold is no surer for knowing it less well"


def test_probability_of_ttft_agrees_with_the_normal_distribution() -> None:
    curve = curve_of(0.5, ttft=(0,))
    expected = 0.5 * math.erfc(math.log(curve.of_limit(0, 7.0)) / 0.4 / math.sqrt(2))
    assert met_probability(curve, 7.0, Uncertainty(0.0, 0.0, 0.4)) == pytest.approx(expected, abs=0.02)


def test_a_ttft_that_may_be_longer_than_its_limit_is_inside_the_error_bar() -> None:
    """Seen: a TTFT known to 48 % was judged by the 21 % to which steps are known."""
    doubt = Uncertainty(0.02, 0.02, 0.5)
    ttft, other = headroom(curve_of(0.5, ttft=(0,)), 7.0, doubt), headroom(curve_of(0.5), 7.0, doubt)
    assert (ttft.within_error, other.within_error) == (True, False)
    assert ttft.met_probability < 0.9 < other.met_probability
    assert ttft.if_measured == pytest.approx(other.met_probability)
