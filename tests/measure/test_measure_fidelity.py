"""Arrival fidelity: figures of known processes, what counts as a difference, and how often chance is called unusual."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from setpoint.measure.fidelity import FALSE_ALARM, arrival_fidelity, arrival_figures, declared_fit, window_for
from setpoint.requirement import ArrivalProcess
from setpoint.workload.arrivals import arrival_offsets_s

Draw = Callable[[float, np.random.Generator], NDArray[np.float64]]


def draw_of(process: ArrivalProcess, rate_rps: float = 20.0, cv: float = 1.0) -> Draw:
    return lambda duration_s, rng: arrival_offsets_s(process, rate_rps, duration_s, rng, cv=cv)


PROCESSES = {
    "constant": (draw_of(ArrivalProcess.CONSTANT), 0.0),
    "poisson": (draw_of(ArrivalProcess.POISSON), 1.0),
    "gamma": (draw_of(ArrivalProcess.GAMMA, cv=2.0), 2.0),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_figures_of_known_processes(name: str) -> None:
    draw, cv = PROCESSES[name]
    figures = arrival_figures(draw(2000.0, np.random.default_rng(1)), 0.0, 2000.0, window_s=5.0)
    assert figures.rate_rps == pytest.approx(20.0, rel=0.1)
    assert figures.gap_cv == pytest.approx(cv, rel=0.05, abs=1e-6)
    # Windows of 100 arrivals: within four standard errors, sqrt(2 / 400), of CV squared.
    assert figures.dispersion == pytest.approx(cv**2, rel=0.3, abs=0.02)


def test_few_arrivals_have_a_rate_but_no_shape() -> None:
    figures = arrival_figures([0.1, 0.4, 0.9], 0.0, 1.0)
    assert (figures.n, figures.rate_rps) == (3, 3.0)
    assert (figures.gap_cv, figures.dispersion, figures.window_s) == (None, None, None)
    with pytest.raises(ValueError, match="is empty"):
        arrival_figures([], 1.0, 1.0)


def test_windows_hold_ten_arrivals_or_as_many_as_twenty_windows_leave() -> None:
    assert window_for(20.0, 100.0) == 0.5
    assert window_for(1000.0, 100.0) == 0.05
    assert window_for(20.0, 4.0) == 0.2
    assert window_for(20.0, 1.9) is None
    assert window_for(1000.0, 0.9) is None
    assert window_for(0.0, 1.0) is None


def test_arrivals_that_all_come_at_once_have_no_gaps_to_speak_of() -> None:
    assert arrival_figures(np.full(50, 0.5), 0.0, 10.0).gap_cv is None


@given(st.lists(st.floats(0.0, 100.0), max_size=200), st.randoms(use_true_random=False))
def test_what_goes_out_as_planned_is_faithful_in_any_order(times_s: list[float], order: object) -> None:
    shuffled = list(times_s)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    fidelity = arrival_fidelity(shuffled, shuffled, 0.0, 100.5)
    assert fidelity.faithful
    assert fidelity.planned == fidelity.realised == arrival_fidelity(times_s, times_s, 0.0, 100.5).planned
    assert fidelity.unsent == 0


def test_a_millisecond_of_lag_is_faithful_and_shown() -> None:
    planned_s = draw_of(ArrivalProcess.POISSON)(60.0, np.random.default_rng(2))
    lags_s = np.random.default_rng(3).exponential(0.001, planned_s.size)
    fidelity = arrival_fidelity(planned_s, planned_s + lags_s, 0.0, 60.0)
    assert fidelity.faithful
    assert fidelity.lag_p50_s == pytest.approx(np.percentile(lags_s, 50))
    assert fidelity.lag_p99_s == pytest.approx(np.percentile(lags_s, 99))
    assert fidelity.lag_max_s == pytest.approx(lags_s.max())


def test_a_client_that_stops_and_catches_up_changes_the_dispersion() -> None:
    planned_s = draw_of(ArrivalProcess.CONSTANT, 100.0)(20.0, np.random.default_rng(0))
    stopped_s = np.where(planned_s % 2.0 < 1.0, np.floor(planned_s) + 1.0, planned_s)
    fidelity = arrival_fidelity(planned_s, stopped_s, 0.0, 20.0)
    assert not fidelity.faithful
    assert any("sends have an index of dispersion of" in reason for reason in fidelity.reasons)


def test_gaps_are_judged_where_they_are_longer_than_jitter() -> None:
    planned_s = np.arange(0.0, 60.0, 0.1)
    pairs_s = np.repeat(planned_s[1::2], 2)
    assert any("gaps between sends have a CV of 1.00" in reason for reason in pairs(planned_s, pairs_s))
    # The same at 2,000 requests/s: pairs every millisecond are what timers give, and no server's step would notice.
    assert pairs(planned_s / 200, pairs_s / 200) == ()


def pairs(planned_s: NDArray[np.float64], sent_s: NDArray[np.float64]) -> tuple[str, ...]:
    return arrival_fidelity(planned_s, sent_s, 0.0, float(planned_s[-1]) + 1e-9).reasons


def test_requests_that_were_never_sent_lower_the_rate() -> None:
    planned_s = np.arange(0.0, 100.0, 0.1)
    sent_s = np.where(np.arange(planned_s.size) % 10 == 0, np.nan, planned_s)
    fidelity = arrival_fidelity(planned_s, sent_s, 0.0, 100.0)
    assert fidelity.unsent == 100
    assert fidelity.reasons[0] == "9 requests/s were sent where 10 were planned"
    assert fidelity.as_dict()["faithful"] is False


def test_what_spills_into_the_next_span_counts_where_the_server_saw_it() -> None:
    planned_s = np.concatenate([np.arange(0.0, 10.0, 0.01), np.arange(10.0, 30.0, 0.1)])
    sent_s = np.where(planned_s < 10.0, planned_s * 1.5, planned_s)
    fidelity = arrival_fidelity(planned_s, sent_s, 10.0, 30.0)
    assert fidelity.planned.n == 200
    assert fidelity.realised.n == 200 + 333
    assert fidelity.lag_max_s == 0.0
    assert "26.65 requests/s were sent where 10 were planned" in fidelity.reasons


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="must be the same"):
        arrival_fidelity([1.0], [1.0, 2.0], 0.0, 3.0)


@pytest.mark.parametrize("name", PROCESSES)
def test_draws_of_the_declared_process_are_seldom_called_unusual(name: str) -> None:
    """Each figure of a true draw is unusual with probability 0.2 %: of 12 in 4 lists, two by chance in 1 of 4,000."""
    draw, _ = PROCESSES[name]
    assert pytest.approx(0.002) == FALSE_ALARM
    called = [declared_fit(draw(15.0, np.random.default_rng(seed)), 15.0, draw).unusual for seed in range(100, 104)]
    assert sum(len(unusual) for unusual in called) <= 1


def test_ten_workers_with_one_seed_are_no_poisson_process() -> None:
    """Each arrival comes ten times: the right rate, eleven times the dispersion or so."""
    one = draw_of(ArrivalProcess.POISSON, 2.0)(30.0, np.random.default_rng(5))
    fit = declared_fit(np.repeat(one, 10), 30.0, draw_of(ArrivalProcess.POISSON))
    assert any("index of dispersion" in sentence for sentence in fit.unusual)
    assert any("CV of the gaps" in sentence for sentence in fit.unusual)


def test_gamma_arrivals_of_another_cv_are_told_apart() -> None:
    declared = draw_of(ArrivalProcess.GAMMA, cv=2.0)
    planned = draw_of(ArrivalProcess.POISSON)(30.0, np.random.default_rng(6))
    fit = declared_fit(planned, 30.0, declared)
    assert any("CV of the gaps of the plan is" in sentence for sentence in fit.unusual)
    assert fit.gap_cv is not None
    assert fit.gap_cv[0] < 2.0 < fit.gap_cv[1]


def test_only_the_first_part_of_a_long_list_is_looked_at() -> None:
    rate_rps, seen_s = 500.0, []

    def draw(duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        seen_s.append(duration_s)
        return arrival_offsets_s(ArrivalProcess.POISSON, rate_rps, duration_s, rng)

    planned = arrival_offsets_s(ArrivalProcess.POISSON, rate_rps, 100.0, np.random.default_rng(7))
    declared_fit(planned, 100.0, draw)
    assert seen_s == [pytest.approx(100.0 * 2_000_000 / 999 / planned.size)] * 999


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("rate_rps", "duration_s"), [(5.0, 20.0), (200.0, 5.0), (2000.0, 3.0)])
def test_a_healthy_client_is_not_called_unfaithful(name: str, rate_rps: float, duration_s: float) -> None:
    """Lags of half a millisecond and a pause of 10 ms every second: none of 3,200 such lists was called unfaithful."""
    process, cv = ArrivalProcess(name), 2.0 if name == "gamma" else 1.0
    rng = np.random.default_rng(9)
    for _ in range(10):
        planned_s = arrival_offsets_s(process, rate_rps, duration_s, rng, cv=cv)
        sent_s = planned_s + rng.exponential(0.0005, planned_s.size)
        pauses_s = np.arange(duration_s) + rng.uniform(0.0, 0.9)
        ends_s = pauses_s[np.clip(np.searchsorted(pauses_s, sent_s) - 1, 0, None)] + 0.01
        paused = (sent_s < ends_s) & (sent_s > ends_s - 0.01)
        fidelity = arrival_fidelity(planned_s, np.where(paused, ends_s, sent_s), 0.0, duration_s)
        assert fidelity.reasons == ()
