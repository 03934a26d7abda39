"""What a simulation says of a phase: who ended when, whether a backlog grew, and that nothing at all can be said too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from setpoint.loop.simulation.figures import gap_limits_s, growing, judged, phase_figures, phase_requests
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase, RequestClass, Verdict
from setpoint.requirement import Requirement, parse_requirement
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.run import SimulatedSystem, simulate
from setpoint.simulate.timing import LineTimer, Overheads

CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=1024, max_waiting=1 << 20)
SYSTEM = SimulatedSystem(LineTimer(8e-3, 5e-5, 1e-4), 4000, 16, CONFIG, overheads=Overheads(refuse_s=0.01))


def needed(slo: str = "") -> Requirement:
    """A requirement whose profile plays no part."""
    profile = "{prompt_tokens: 9, output_tokens: 9, arrival: {rate: 1/s}}"
    return parse_requirement(f"name: x\nprofile: {profile}\n{slo}", "file")


def load_of(requests: int, *, too_long: float = 0.0, drain_s: float = float("inf")) -> Load:
    """Requests 0.1 s apart, of which a share has prompts that the model does not take."""
    sent_s = np.arange(requests, dtype=np.float64) * 0.1
    prompts = np.where(np.arange(requests) % 100 < 100 * too_long, 1000, 50)
    outputs = np.full(requests, 20)
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, max(1.0, requests * 0.1)),)
    return Load(sent_s, prompts, outputs, outputs, phases, np.zeros(requests, dtype=np.int64), drain_s=drain_s)


@pytest.mark.parametrize("drain_s", [60.0, float("inf")])
def test_who_is_impossible_has_ended_at_once(drain_s: float) -> None:
    """It is in the system no longer than it takes to say so: a third of them are no backlog that grows."""
    done = simulate(load_of(400, too_long=0.3, drain_s=drain_s), replace(SYSTEM, context_tokens=500))
    requests = phase_requests(done)
    failed = requests.is_class(RequestClass.FAILED)
    assert failed.sum() == 120
    # Seen when the step under way has ended.
    assert (requests.end_s - requests.intended_s)[failed].max() < 0.1
    assert not growing(done)


def test_of_no_requests_nothing_is_said() -> None:
    done = simulate(load_of(0), SYSTEM)
    assert not growing(done)
    figures = phase_figures(done, Phase.SUSTAINED, needed().slo)
    assert (figures.offered, figures.goodput_fraction, figures.ttft_s.n) == (0, None, 0)
    for slo in ("", "slo: {ttft: {p95: 1s}, itl: {p99: 50ms}, goodput_fraction: 90%}\n"):
        limited = needed(slo)
        done = simulate(load_of(0), SYSTEM, gap_limits_s=gap_limits_s(limited))
        assert judged(done, limited).verdict is Verdict.INCONCLUSIVE
