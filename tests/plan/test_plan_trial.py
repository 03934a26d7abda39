"""Trials through the simulator: what of the load is simulated, by whom it is served, and whether it is kept up with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_world import CHAT, requirement, serving, shape

from setpoint.hardware.step_time import step_timer
from setpoint.loop.closer_look import looked_at
from setpoint.loop.simulation.figures import phase_requests
from setpoint.plan.fluid import capacity
from setpoint.plan.limits import BACKLOG, limits_of
from setpoint.plan.search import Arm, Search
from setpoint.plan.simulated_trial import GAP_FACTORS, run_trial, samples_of, system_of
from setpoint.plan.sketch import sketch_of
from setpoint.plan.topology import Serving
from setpoint.plan.trial import Job, Trial
from setpoint.plan.trial_load import offered_load
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase, Verdict
from setpoint.report.figures import severity
from setpoint.requirement import Requirement
from setpoint.simulate.load import Load, nothing_shared
from setpoint.simulate.offered import load_of_profile
from setpoint.simulate.run import SimulatedSystem, simulate
from setpoint.simulate.sequences import Kind
from setpoint.simulate.timing import LineTimer

H100 = shape("h100-sxm")
TIMER = step_timer(H100.deployment)
SMALL = serving(running=32)
LIMITS = "slo:\n  ttft: {p95: 500ms}\n  itl: {p95: 50ms}\n"


class Direct:
    """Runs every trial as it comes."""

    def __init__(self, asked: Requirement) -> None:
        self._asked = asked

    def run(self, jobs: Sequence[Job], done: Callable[[int], None]) -> list[Trial]:
        """See ``trial.Runner``."""
        return [run_trial(self._asked, job, looked_at) for job in jobs]


def searching(asked: Requirement, serves: Serving = SMALL) -> tuple[Search, Arm]:
    """A search that simulates, and one arm of it."""
    load = sketch_of(asked.profile)
    most = capacity(TIMER, load, serves, H100.kv_tokens).rate_rps
    return Search(Direct(asked), limits_of(asked), load, 40.0, 0), Arm(H100, serves, TIMER, most)


def job(rate_rps: float = 10.0, requests: int = 100, **more: object) -> Job:
    """A job on one H100."""
    return Job(H100, SMALL, rate_rps, requests, 20, 0, **more)  # type: ignore[arg-type]


def offered(load: Load, phase: Phase) -> int:
    """How many requests a phase has."""
    places = [place for place, span in enumerate(load.phases) if span.phase is phase]
    return int(np.isin(load.phase, places).sum())


def seconds(load: Load, phase: Phase) -> float:
    """How long a phase is."""
    return sum(span.end_s - span.start_s for span in load.phases if span.phase is phase)


@pytest.mark.parametrize("slo", ["", "slo: {itl: {p95: 500ms}}\n", "slo: {itl: {p95: 500ms}, goodput_fraction: 90%}\n"])
def test_what_no_limit_sees_is_seen_by_the_queue(slo: str) -> None:
    """Gaps are as short as ever where requests wait without end: the load has to be kept up with all the same."""
    asked = requirement(CHAT, **{LIMITS: slo})
    search, arm = searching(asked)
    calm, over = (search.job(arm, factor * arm.capacity_rps, 200, full=True) for factor in (0.7, 1.4))
    held, missed = search.simulate("both", [calm, over])
    assert held.worst <= 1.0
    assert missed.worst > 1.0
    for trial, verdict in ((held, Verdict.MET), (missed, Verdict.MISSED)):
        assert trial.slo is not None
        (check,) = [check for check in trial.slo.checks if check.metric == BACKLOG]
        assert check.verdict is verdict


def test_without_limits_the_knee_is_what_the_replica_carries() -> None:
    search, arm = searching(requirement(CHAT, **{LIMITS: ""}))
    search.measure([arm])
    knee_rps = arm.curve(search.limits).knee_rps()
    assert 0.8 * arm.capacity_rps < knee_rps < 1.35 * arm.capacity_rps


def test_batches_that_fill_are_no_backlog() -> None:
    search, arm = searching(requirement(CHAT, **{LIMITS: ""}), serving(BatchingMode.STATIC, running=16))
    (trial,) = search.simulate("one", [search.job(arm, 0.5 * arm.capacity_rps, 200)])
    assert trial.worst <= 1.0


def test_a_static_batch_that_is_begun_over_several_steps_is_no_backlog() -> None:
    text = {LIMITS: "", "prompt_tokens: 500": "prompt_tokens: 4000"}
    search, arm = searching(requirement(CHAT, **text), serving(BatchingMode.STATIC, running=32))
    held, missed = search.simulate("two", [search.job(arm, load * arm.capacity_rps, 400) for load in (0.5, 1.4)])
    assert held.worst <= 1.0
    assert missed.worst > 1.0, "what a static batch leaves over is a backlog"


@pytest.mark.parametrize(("think", "rate_rps"), [("20s", 10.0), ("60s", 100.0), ("0s", 10.0)])
def test_conversations_bring_the_whole_load(think: str, rate_rps: float) -> None:
    """Sessions begin at a fifth of the rate, and their turns come later than the measured phase is long."""
    asked = requirement(CHAT, **{"output_tokens: 200": f"output_tokens: 200\n  sessions: {{turns: 5, think_time: {think}}}"})
    load = offered_load(asked, job(rate_rps, 300, answer_s=2.0))
    assert offered(load, Phase.SUSTAINED) == pytest.approx(300, rel=0.4)
    assert offered(load, Phase.WARMUP) < 2500


def test_long_conversations_are_a_few_at_least() -> None:
    text = {"output_tokens: 200": "output_tokens: 20\n  sessions: {turns: 90, added_tokens: 10}"}
    load = offered_load(requirement(CHAT, **text), job(1.0, 50, answer_s=1.0))
    assert offered(load, Phase.SUSTAINED) > 200


def test_a_long_pattern_is_simulated_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setpoint.plan.trial_load.MOST_PATTERN_REQUESTS", 600)
    steps = "{process: step, steps: [{rate: 1/s, duration: 1h}, {rate: 9/s, duration: 1h}]}"
    load = offered_load(requirement(CHAT, **{"{rate: 40/s}": steps}), job(20.0, 100))
    assert seconds(load, Phase.SUSTAINED) == pytest.approx(30.0)
    span = next(span for span in load.phases if span.phase is Phase.SUSTAINED)
    first, second = np.histogram(load.sent_s, bins=2, range=(span.start_s, span.end_s))[0]
    assert first + second == pytest.approx(600, rel=0.2)
    assert second / first == pytest.approx(9.0, rel=0.5)


def test_patterns_are_never_cut() -> None:
    steps = "{process: step, steps: [{rate: 1/s, duration: 4s}, {rate: 9/s, duration: 4s}]}"
    asked = requirement(CHAT, **{"{rate: 40/s}": steps})
    for requests, patterns in ((40, 3), (100, 3), (300, 8)):
        assert seconds(offered_load(asked, job(5.0, requests)), Phase.SUSTAINED) == pytest.approx(8.0 * patterns)


def test_the_last_answers_come_from_a_full_replica() -> None:
    """Without others that arrive later, half of what is measured decodes in a replica that empties."""
    asked = requirement(CHAT, **{LIMITS: "slo: {e2e: {p20: 10s}}\n"})
    search, arm = searching(asked)
    wanted = search.job(arm, 0.85 * arm.capacity_rps, 60)
    assert wanted.cool_down_s == pytest.approx(min(wanted.answer_s, 60 / wanted.rate_rps))
    load = offered_load(asked, wanted)
    assert load.phases[-1].phase is Phase.RECOVERY
    assert load.followed == len(load) - offered(load, Phase.RECOVERY)
    full, emptying = (run_trial(asked, each) for each in (wanted, replace(wanted, cool_down_s=0.0)))
    place = [limit.metric for limit in limits_of(asked)].index("e2e")
    assert full.excess[place, full.excess.shape[1] // 2] > emptying.excess[place, emptying.excess.shape[1] // 2]


def test_beyond_capacity_nobody_follows() -> None:
    search, arm = searching(requirement())
    assert search.job(arm, 1.5 * arm.capacity_rps, 60).cool_down_s == 0.0
    assert search.job(arm, 1.2 * arm.capacity_rps, 60).cool_down_s > 0.0, "what is beyond the balance may still hold"


def test_requests_beyond_the_context_fail() -> None:
    asked = requirement(CHAT, **{LIMITS: "slo: {e2e: {p50: 100s}}\n"})
    assert system_of(job()).context_tokens == H100.deployment.model.context_tokens
    fits, does_not = (
        run_trial(asked, replace(job(), serving=replace(SMALL, context_tokens=tokens))).worst for tokens in (700, 500)
    )
    assert fits <= 1.0
    assert does_not > 1e3


def test_a_cache_that_is_off_finds_nothing() -> None:
    text = {"prompt_tokens: 500": "prompt_tokens: 4000\n  shared_prefix_tokens: 3600"}
    asked = requirement(CHAT, **text)
    off = replace(job(4.0, 40), serving=replace(SMALL, prefix_caching=False))
    assert offered_load(asked, off).named is nothing_shared
    cached, uncached = (run_trial(asked, each).latency_s for each in (replace(off, serving=SMALL), off))
    assert cached < 0.7 * uncached


def test_every_limit_on_gaps_decides_who_is_good() -> None:
    """So many gaps of a request may be over each of two limits, in the search as in the checks of a report."""
    limits = "slo: {itl: {p50: 30ms, p95: 40ms}, goodput_fraction: 90%}\n"
    asked = requirement(CHAT, **{LIMITS: limits, "prompt_tokens: 500": "prompt_tokens: 1000", "40/s": "4/s"})
    times: dict[str, Any] = {"warmup_s": 0.0, "sustained_s": 15.0, "recovery_s": 0.0, "drain_s": 1e6}
    load = load_of_profile(asked.profile, Kind(), seed=0, **times)
    config = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=2048, max_waiting=1 << 20)
    counted = tuple(sorted(slo.limit_s * factor for slo in asked.slo.latency for factor in GAP_FACTORS))
    done = simulate(load, SimulatedSystem(LineTimer(8e-3, 5e-5, 1e-4), 20_000, 16, config), gap_limits_s=counted)
    mine = samples_of(done, 0, asked).severity(asked.slo) <= 1.0
    judged = severity(phase_requests(done, Phase.SUSTAINED), asked.slo) <= 1.0
    assert mine.tolist() == judged.tolist()
    only_first = asked.slo.model_copy(update={"latency": asked.slo.latency[:1]})
    assert judged.sum() < (severity(phase_requests(done, Phase.SUSTAINED), only_first) <= 1.0).sum()


def test_shared_prefixes_are_met_before_anything_is_measured() -> None:
    shared = "prompt_tokens: 500\n  shared_prefix_tokens: 400\n  prefix_groups: "
    warm = []
    for groups in (1, 300, 5000):
        search, arm = searching(requirement(CHAT, **{"prompt_tokens: 500": f"{shared}{groups}"}))
        warm.append(search.job(arm, 0.2 * arm.capacity_rps, 400).warmup_requests)
    assert warm[0] < 100
    assert warm[1:] == [900, 2000]
    few = search.job(arm, 0.2 * arm.capacity_rps, 100)
    assert few.warmup_requests == 500, "five times what is measured"
