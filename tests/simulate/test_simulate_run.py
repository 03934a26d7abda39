"""Laws of simulated systems: more of anything does not hurt, nothing is lost, and a seed decides everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase
from setpoint.simulate.ledger import Ending
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.naming import SharedPrefixes
from setpoint.simulate.router import Routing
from setpoint.simulate.run import Simulated, SimulatedSystem, simulate
from setpoint.simulate.timing import LineTimer, Noise, Overheads

TIMER = LineTimer(8e-3, 5e-5, 1e-4, 4e-8)
CONTINUOUS = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=1024, max_waiting=1 << 20)
SYSTEM = SimulatedSystem(TIMER, 4000, 16, CONTINUOUS)
NOISE = Noise(np.array([1.0, 1.1, 0.9, 1.0, 3.0] * 20), np.array([1.0, 2.0] * 50), 10)


def poisson(rate_rps: float, requests: int, seed: int = 0, *, prompt: int = 200, output: int = 80) -> Load:
    """Lengths that differ, arrivals at random."""
    dice = np.random.default_rng(seed)
    sent_s = np.cumsum(dice.exponential(1 / rate_rps, requests))
    prompts, outputs = (
        dice.integers(prompt // 2, prompt * 3 // 2, requests),
        dice.integers(output // 2, output * 3 // 2, requests),
    )
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, float(sent_s[-1])),)
    return Load(sent_s, prompts, outputs, outputs, phases, np.zeros(requests, dtype=np.int64))


def ttft_s(done: Simulated, percent: float) -> float:
    """Of the served."""
    return float(np.nanpercentile(done.ledger.first_s - done.load.sent_s, percent))


def e2e_s(done: Simulated, percent: float) -> float:
    """Of the served."""
    return float(np.nanpercentile(done.ledger.last_s - done.load.sent_s, percent))


@pytest.mark.parametrize("mode", list(BatchingMode))
def test_a_seed_decides_everything(mode: BatchingMode) -> None:
    system = replace(SYSTEM, configuration=CONTINUOUS.model_copy(update={"mode": mode}), noise=NOISE, replicas=2)
    load = poisson(12, 200)
    first, second, other = (simulate(load, system, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.ledger.last_s, second.ledger.last_s)
    assert first.gaps.counts[0].counts.tobytes() == second.gaps.counts[0].counts.tobytes()
    assert (first.ledger.last_s != other.ledger.last_s).any()


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.floats(4, 40))
def test_a_faster_machine_is_late_less_often(seed: int, rate_rps: float) -> None:
    """Sample path by sample path in the mean: with the same arrivals, half the time of every step cannot wait longer."""
    load = poisson(rate_rps, 300, seed)
    slow, fast = (simulate(load, replace(SYSTEM, timer=scaled(factor))) for factor in (1.0, 0.5))
    for percent in (50, 90, 99):
        assert e2e_s(fast, percent) <= e2e_s(slow, percent) * 1.001
        assert ttft_s(fast, percent) <= ttft_s(slow, percent) * 1.001


def scaled(factor: float) -> LineTimer:
    """Bandwidth, operations and all else the more."""
    return LineTimer(TIMER.base_s * factor, TIMER.token_s * factor, TIMER.sequence_s * factor, TIMER.kv_token_s * factor)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.floats(10, 40))
def test_more_memory_preempts_no_more(seed: int, rate_rps: float) -> None:
    """Where the cache binds, four times as much means fewer preemptions and no longer answers."""
    load = poisson(rate_rps, 300, seed)
    small, large = (simulate(load, replace(SYSTEM, kv_blocks=blocks)) for blocks in (250, 1000))
    assert large.ledger.preemptions.sum() <= small.ledger.preemptions.sum()
    assert e2e_s(large, 99) <= e2e_s(small, 99) * 1.05


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.floats(10, 60), st.sampled_from(list(Routing)))
def test_more_replicas_do_not_hurt(seed: int, rate_rps: float, routing: Routing) -> None:
    load = poisson(rate_rps, 300, seed)
    one, four = (simulate(load, replace(SYSTEM, replicas=replicas, routing=routing)) for replicas in (1, 4))
    assert e2e_s(four, 99) <= e2e_s(one, 99) * 1.01
    assert ttft_s(four, 99) <= ttft_s(one, 99) * 1.05


def test_replicas_share_the_requests_and_the_fewest_outstanding_wait_least() -> None:
    load = poisson(60, 900, output=200)
    turn, fewest = (simulate(load, replace(SYSTEM, replicas=3, routing=routing)) for routing in Routing)
    assert np.bincount(turn.ledger.replica).tolist() == [300, 300, 300]
    assert min(np.bincount(fewest.ledger.replica)) > 200
    assert e2e_s(fewest, 99) <= e2e_s(turn, 99)
    assert turn.gaps.counts[0].total == int((load.output_tokens - 1).sum()) == fewest.gaps.counts[0].total


def test_tokens_count_where_they_came_and_shared_prefixes_are_found() -> None:
    load = poisson(5, 200)
    shared = SharedPrefixes(np.zeros(200, dtype=np.int64), np.full(200, 96))
    halves = tuple(PhaseOfLoad(Phase.SUSTAINED, start_s, end_s) for start_s, end_s in ((0.0, 20.0), (20.0, 1e6)))
    done, cached = simulate(replace(load, phases=halves), SYSTEM), simulate(replace(load, named=shared), SYSTEM)
    assert sum(done.gaps.tokens) == load.output_tokens.sum()
    over, begun = done.ledger.last_s < 20.0, done.ledger.first_s < 20.0
    assert load.output_tokens[over].sum() <= done.gaps.tokens[0] <= load.output_tokens[begun].sum()
    assert set(cached.ledger.cached_tokens.tolist()) == {0, 96}
    assert ttft_s(cached, 50) < ttft_s(done, 50)


def test_what_is_under_way_when_the_drain_is_over_waits_for_ever() -> None:
    load = replace(poisson(400, 300, output=400), drain_s=1.0)
    done = simulate(load, SYSTEM)
    waits = done.ledger.ending == Ending.WAITS
    assert waits.any()
    assert np.isnan(done.ledger.ended_s[waits]).all()
    assert done.end_s <= load.phases[0].end_s + 1.0 + 1.0


def test_overheads_are_before_and_between() -> None:
    load = poisson(2, 50)
    plain = simulate(load, SYSTEM)
    late = simulate(load, replace(SYSTEM, overheads=Overheads(between_s=2e-3, receive_s=0.01)))
    assert ttft_s(late, 50) == pytest.approx(ttft_s(plain, 50) + 0.01, rel=0.2)
    assert late.gaps.counts[0].sum_s > plain.gaps.counts[0].sum_s


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sent_s": np.array([1.0, 0.5])}, "order of time"),
        ({"output_tokens": np.array([0, 1])}, "at least one token"),
        ({"cap_tokens": np.array([1, 1])}, "longer than what its request asks for"),
        ({"prompt_tokens": np.array([1])}, "one length"),
    ],
)
def test_a_load_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    two = np.array([2, 2])
    load = Load(np.array([0.0, 1.0]), two, two, two, (PhaseOfLoad(Phase.SUSTAINED, 0.0, 2.0),), np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match=words):
        simulate(replace(load, **change), SYSTEM)
    with pytest.raises(ValueError, match="replicas is 0"):
        simulate(load, replace(SYSTEM, replicas=0))


def test_the_peak_of_the_cache_has_those_who_end_in_it() -> None:
    """A request whose answer is complete with its prompt never holds blocks between two steps."""
    load = poisson(1, 1, prompt=200, output=2)
    one = replace(load, prompt_tokens=np.array([100]), output_tokens=np.array([1]), cap_tokens=np.array([1]))
    assert simulate(one, SYSTEM).peak_kv * SYSTEM.kv_blocks == pytest.approx(7)  # 100 tokens in blocks of 16
    longer = replace(one, output_tokens=np.array([30]), cap_tokens=np.array([30]))
    assert simulate(longer, SYSTEM).peak_kv * SYSTEM.kv_blocks == pytest.approx(9)  # 129 tokens: the last is not computed


def test_who_is_followed_ends_as_if_all_were() -> None:
    load = poisson(30, 300)
    whole, part = simulate(load, SYSTEM), simulate(replace(load, followed=200), SYSTEM)
    for name in ("ending", "first_s", "last_s", "tokens", "gap_s"):
        np.testing.assert_array_equal(getattr(part.ledger, name)[:200], getattr(whole.ledger, name)[:200])
    assert (part.ledger.ending[200:] == Ending.WAITS).any()
    assert part.end_s < whole.end_s


def test_nothing_to_do_takes_no_time() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, 5.0),)
    done = simulate(Load(np.zeros(0), nothing, nothing, nothing, phases, nothing), SYSTEM)
    assert (done.steps, done.end_s, done.peak_kv) == (0, 0.0, 0.0)
