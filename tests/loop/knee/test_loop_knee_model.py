"""The fitted server: what it is told apart by, and that its twin does what the equations of queues say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knee_searching import EXPONENTIAL
from knee_servers import BatchServer, Floats, Server, SharingServer, Sizes, arrivals_s

from setpoint.loop.knee.families import fitting_family
from setpoint.loop.knee.model import Evidence, ServerModel, Works, fit_model
from setpoint.loop.knee.occupancy import Occupancy
from setpoint.loop.knee.probes import goodput, simple_trace
from setpoint.loop.knee.sizes import work_source
from setpoint.loop.knee.steady import learn_habit
from setpoint.loop.knee.twin import run_twin

ANY = goodput(0.9, e2e_s=1e9)


def occupancy(server: Server, rate_rps: float, seed: int, n: int = 600) -> Occupancy:
    rng = np.random.default_rng(seed)
    served = server.serve(arrivals_s(rate_rps, n, rng), rng)
    return Occupancy(simple_trace(served.arrival_s, served.first_s, served.end_s, ANY))


def evidence(server: Server, *rates_rps: float) -> Evidence:
    probes = [occupancy(server, rate_rps, seed) for seed, rate_rps in enumerate(rates_rps)]
    return Evidence(probes, [1.0] * len(probes))


@pytest.mark.parametrize("sizes", [EXPONENTIAL, Sizes(), Sizes("constant")])
def test_processor_sharing_is_recognised_whatever_the_sizes(sizes: Sizes) -> None:
    seen = evidence(SharingServer(sizes), 0.5, 0.8, 0.85)
    assert fit_model(seen) == ServerModel(1.0, 1.0, None)
    assert seen.works(ServerModel()).work.mean() == pytest.approx(1.0, abs=0.08)


def test_cores_a_bound_and_first_come_first_served_are_told_apart() -> None:
    four = fit_model(evidence(SharingServer(cores=4), 2.0, 3.2, 3.4))
    assert (four.free, four.slope) == (4.0, 0.25)
    bounded = fit_model(evidence(SharingServer(cores=4, most=8), 3.0, 3.4, 6.0))
    assert (bounded.free, bounded.slope, bounded.most) == (4.0, 0.25, 8)
    assert fit_model(evidence(SharingServer(EXPONENTIAL, most=1), 0.5, 0.8, 1.5)).most == 1


def test_the_step_time_of_a_batch_is_seen_from_outside() -> None:
    # A step of 12 ms and 1.5 ms a request: each further one slows all by 1.5 / 13.5.
    found = fit_model(evidence(BatchServer(prompt_s=0.001), 4.0, 8.0, 12.0, 40.0))
    assert found.slope == pytest.approx(1.5 / 13.5, rel=0.15)
    assert found.most == pytest.approx(32, abs=2)


def test_works_under_the_true_model_are_those_that_were_served() -> None:
    rng = np.random.default_rng(3)
    work = rng.exponential(1.0, 300)
    arrival_s = arrivals_s(0.9, 300, rng)
    model = ServerModel(2.0, 0.4, 5)
    outcome = run_twin(model, arrival_s, work)
    end_s = arrival_s + outcome.e2e_s
    trace = simple_trace(arrival_s, arrival_s, end_s, ANY)
    assert Evidence([Occupancy(trace)], [1.0]).works(model).work == pytest.approx(work, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    free=st.floats(1.0, 6.0),
    slope=st.floats(0.0, 1.2),
    most=st.one_of(st.none(), st.integers(1, 6)),
    rate_rps=st.floats(0.1, 5.0),
)
def test_the_twin_serves_everybody_and_never_faster_than_alone(
    seed: int, free: float, slope: float, most: int | None, rate_rps: float
) -> None:
    rng = np.random.default_rng(seed)
    arrival_s, work = arrivals_s(rate_rps, 80, rng), rng.exponential(1.0, 80)
    outcome = run_twin(ServerModel(free, slope, most), arrival_s, work)
    assert np.isfinite(outcome.e2e_s).all()
    assert (outcome.e2e_s >= work * (1.0 - 1e-9)).all()
    assert (outcome.crowd >= 1.0 - 1e-6).all()
    # Little's law over the whole run: the area under the number present is the sum of the stays.
    end_s = arrival_s + outcome.e2e_s
    moments = np.sort(np.concatenate((arrival_s, end_s)))
    present = [((arrival_s <= t) & (end_s > t)).sum() for t in (moments[:-1] + moments[1:]) / 2]
    assert float(np.dot(np.diff(moments), present)) == pytest.approx(float(outcome.e2e_s.sum()), rel=1e-6)


def test_the_twin_of_one_exponential_server_has_the_times_of_the_textbook() -> None:
    rng = np.random.default_rng(1)
    n, load = 200_000, 0.7
    arrival_s, work = arrivals_s(load, n, rng), rng.exponential(1.0, n)
    shared = run_twin(ServerModel(), arrival_s, work).e2e_s[n // 20 :]
    in_turn = run_twin(ServerModel(1.0, 1.0, 1), arrival_s, work).e2e_s[n // 20 :]
    assert shared.mean() == pytest.approx(1.0 / (1.0 - load), rel=0.05)
    assert in_turn.mean() == pytest.approx(1.0 / (1.0 - load), rel=0.05)
    assert float((in_turn > 8.0).mean()) == pytest.approx(math.exp(-(1.0 - load) * 8.0), abs=0.01)


def test_refused_requests_are_not_in_the_server() -> None:
    arrival_s, work = np.arange(10.0) * 0.01, np.ones(10)
    outcome = run_twin(ServerModel(), arrival_s, work, refuse_from=np.full(10, 3.0))
    assert int(outcome.refused.sum()) == 7
    assert outcome.met.max() == 3.0
    assert outcome.e2e_s[:3] == pytest.approx([2.97, 2.99, 2.98], abs=0.02)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200))
def test_a_habit_never_falls_and_keeps_the_mean(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    crowd, value = rng.integers(1, 30, n).astype(float), rng.random(n)
    habit = learn_habit(crowd, value, np.ones(n))
    levels = habit.at(np.arange(0.0, 40.0))
    assert (np.diff(levels) >= -1e-12).all()
    assert float(habit.at(crowd).mean()) == pytest.approx(float(value.mean()), abs=1e-9)


def samples(kind: str, n: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    if kind == "weibull":
        return rng.weibull(2.0, n)
    if kind == "mixture":
        return np.where(rng.random(n) < 0.8, 1.0, 6.0) * rng.lognormal(0.0, 0.2, n)
    return Sizes(kind).draw(n, rng)


@pytest.mark.parametrize("kind", ["exponential", "lognormal", "weibull", "mixture"])
def test_a_family_is_taken_only_where_the_works_fit_it(kind: str) -> None:
    found = [fitting_family(samples(kind, 3000, seed), np.ones(3000)) for seed in range(10)]
    # An exponential distribution is a Weibull distribution too.
    names = {kind, "weibull"} if kind == "exponential" else {kind}
    right = [family is not None and family.name in names for family in found]
    if kind == "mixture":
        assert found == [None] * 10
    else:
        assert sum(right) >= 7


def test_planned_sizes_are_used_where_they_explain_the_works_and_only_there() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.lognormal(3.0, 0.8, (2000, 1))
    weight = np.ones(2000)

    def make(n: int, own: np.random.Generator) -> Floats:
        return np.full((n, 1), 50.0)

    explained = work_source(Works(0.3 + 0.02 * sizes[:, 0] * rng.lognormal(0.0, 0.05, 2000), weight), sizes, make)
    assert explained.cv < 0.1
    assert explained.draw(1000, rng).mean() == pytest.approx(1.3, rel=0.02)
    unrelated = work_source(Works(rng.exponential(1.0, 2000), weight), sizes, make)
    assert unrelated.sizes is None
    assert unrelated.cv > 0.8
