"""Arrivals as the server sees them: of the dispersion that was planned, whatever the number of client processes."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from truth_witness import Witness
from truth_world import Floats

from setpoint.measure.event_loop import run
from setpoint.measure.mock import MockOptions, MockProcess
from setpoint.measure.options import LoadOptions
from setpoint.measure.target import Target
from setpoint.measure.workers import run_load_over_workers
from setpoint.record import Phase, RequestClass
from setpoint.requirement import ArrivalProcess
from setpoint.workload.arrivals import arrival_offsets_s
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

RATE_RPS, PART_S, GAMMA_CV, WINDOW_S = 200.0, 1.5, 3.0, 0.05
# Of a Poisson process: chi-squared with 29 degrees of freedom over 29 lies within these with a probability of 0.998.
POISSON_DISPERSION = (0.37, 2.02)
WITHIN_SHARE = 0.2


def poisson_then_gamma() -> LoadPlan:
    """Half of the plan Poisson, half gamma, as two phases."""
    rng = np.random.default_rng(4)
    poisson_s = arrival_offsets_s(ArrivalProcess.POISSON, RATE_RPS, PART_S, rng)
    gamma_s = PART_S + arrival_offsets_s(ArrivalProcess.GAMMA, RATE_RPS, PART_S, rng, cv=GAMMA_CV)
    requests = [
        PlannedRequest(index, float(time_s), Phase.SUSTAINED if time_s < PART_S else Phase.BURST, "a b c", 3, 2)
        for index, time_s in enumerate(np.concatenate((poisson_s, gamma_s)))
    ]
    phases = [PhaseSpan(Phase.SUSTAINED, 0.0, PART_S), PhaseSpan(Phase.BURST, PART_S, 2 * PART_S)]
    return LoadPlan(4, phases, requests, prompt_tokens_exact=False)


def dispersion(times_s: Floats, begin_s: float) -> float:
    """Variance over mean of the counts in windows of ``WINDOW_S`` from ``begin_s`` on."""
    edges = begin_s + WINDOW_S * np.arange(round(PART_S / WINDOW_S) + 1)
    counts, _ = np.histogram(times_s, edges)
    return float(counts.var(ddof=1) / counts.mean())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_merged_arrivals_have_the_dispersion_of_their_process(workers: int, tmp_path: Path) -> None:
    plan = poisson_then_gamma()
    options = LoadOptions(watch_server=False, run_id="arrivals")
    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as mock:
        with Witness([], tmp_path) as witness:
            begun_s = monotonic()
            result = run(run_load_over_workers(Target(mock.url, "mock-model"), plan, options, workers=workers))
        known = mock.log().by_id()
    assert result.counts()[RequestClass.OK] == len(plan.requests)
    assert [row.intended_s for row in result.outcomes] == [request.intended_s for request in plan.requests]
    intended_s = np.array([request.intended_s for request in plan.requests])
    received_s = np.array([known[row.request_id].received_s for row in result.outcomes])
    assert received_s.min() > begun_s
    # One axis for all processes: what they call sent lies a moment before what the server calls received. The least of
    # these moments stands for the axis itself.
    start_s = min(received_s - np.array([row.sent_s for row in result.outcomes]))
    late_s = received_s - start_s - intended_s
    assert late_s.min() > -0.001
    # A busy machine makes arrivals late, and they come together then: what was witnessed of that is taken off again.
    held_s = witness.held_up_s(start_s + intended_s, received_s)
    late_s = np.where(late_s > 0.0, np.maximum(0.0, late_s - held_s), late_s)
    received_s = intended_s + late_s
    # What is late for another reason moves from one window into the next, but not more of them than are late.
    allowed = WITHIN_SHARE + 2.0 * float(np.percentile(late_s, 99)) / WINDOW_S
    for begin_s in (0.0, PART_S):
        assert dispersion(received_s, begin_s) == pytest.approx(dispersion(intended_s, begin_s), rel=allowed)
    low, high = POISSON_DISPERSION
    assert low < dispersion(intended_s, 0.0) < high
    assert dispersion(intended_s, PART_S) > 3.0
