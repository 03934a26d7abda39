"""Drift is found soon, and falsely no more often than is stated."""

from __future__ import annotations

from math import e

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.request import FinishReason, RequestStats
from setpoint.loop.adapt.drift import Stream, distance, distribution_bound, rate_bound
from setpoint.loop.adapt.profile import Asked
from setpoint.loop.adapt.watching import BLOCK_S, RECENT, STEP_TIME, TESTS, DriftWatch, StepSpeed
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import Sample

LOOK_S = 2.0
values = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=40)


class Traffic:
    """Independent requests and steps without end; ``watch`` sees them."""

    def __init__(
        self, watch: DriftWatch, seed: int, *, rate_rps: float = 2.0, prompt: float = 50.0, output: float = 80.0
    ) -> None:
        self.watch, self.dice = watch, np.random.default_rng(seed)
        self.rate_rps, self.prompt, self.output, self.slowness = rate_rps, prompt, output, 1.0
        self.now_s, self.next_s, self.block_s, self.serial, self.alarms = 0.0, 0.0, 0.0, 0, 0

    def until(self, end_s: float) -> list[tuple[float, str]]:
        """Drifts as (moment told, quantity)."""
        found = []
        while self.now_s < end_s:
            self.now_s += LOOK_S
            while self.next_s < self.now_s:
                self._request(self.next_s)
                self.next_s += float(self.dice.exponential(1 / self.rate_rps))
            while self.block_s < self.now_s:
                # As ``StepSpeed`` gives them, one a block.
                self.watch._streams[STEP_TIME].add(self.block_s, float(np.log(self.slowness) + 0.05 * self.dice.normal()))
                self.block_s += BLOCK_S
            found += [(drift.at_s, drift.quantity) for drift in self.watch.look(self.now_s)]
        return found

    def _request(self, at_s: float) -> None:
        prompt, output = (max(1, int(mean * self.dice.lognormal(0, 0.5))) for mean in (self.prompt, self.output))
        cached = int(prompt * self.dice.uniform(0, 0.5))
        self.serial += 1
        self.watch.asked(Asked(f"r{self.serial}", at_s, prompt, prompt - cached, 512))
        streaming = bool(self.dice.uniform() < 0.7)
        self.watch.ended(RequestStats("r", at_s, at_s, at_s, at_s, prompt, cached, output, 0, FinishReason.STOP, streaming))


def test_the_bounds_are_bounds_and_not_empty_ones() -> None:
    """Of samples of one distribution at most 5 % are told apart at 5 %; of those that differ, most are."""
    dice, tries, level = np.random.default_rng(1), 3000, 0.05
    gaps = [(dice.exponential(1, RECENT), dice.exponential(1, 100)) for _ in range(tries)]
    for bound in (distribution_bound, rate_bound):
        false = sum(bound(first, second) <= level for first, second in gaps) / tries
        assert 0 < false <= level
        assert np.mean([bound(4 * first, second) <= 1e-4 for first, second in gaps]) > 0.5


@given(values, values)
def test_a_distance_is_that_of_distribution_functions(first: list[float], second: list[float]) -> None:
    one, other = np.array(first), np.array(second)
    every = np.unique(np.concatenate((one, other)))
    wanted = max(abs((one <= value).mean() - (other <= value).mean()) for value in every)
    assert distance(one, other) == pytest.approx(wanted)
    assert distance(one, other) == pytest.approx(distance(other, one))
    assert 0 <= distribution_bound(one, other) <= 1
    n, m = len(one), len(other)
    assert distribution_bound(one, other) == pytest.approx(min(1.0, e * np.exp(-2 * wanted**2 * n * m / (n + m))))


@pytest.mark.parametrize(("stated", "hours", "rate_rps"), [(60.0, 1, 2.0), (60.0, 2, 0.3), (0.05, 2, 2.0)])
def test_stationary_traffic_alarms_no_more_often_than_is_stated(stated: float, hours: int, rate_rps: float) -> None:
    alarms = 0
    for seed in range(hours):  # an hour of its own each, so that no one reference decides all
        watch = DriftWatch(false_alarms_per_hour=stated, look_s=LOOK_S)
        alarms += len(Traffic(watch, seed, rate_rps=rate_rps).until(3600.0))
    assert alarms <= stated * hours
    if stated < 1:
        assert alarms == 0


@pytest.mark.parametrize(
    ("change", "quantity", "within_s"),
    [
        ({"prompt": 500.0}, "prompt_tokens", 16),
        ({"output": 12.0}, "output_tokens", 16),
        ({"rate_rps": 6.0}, "arrival_rate", 20),
        ({"rate_rps": 0.5}, "arrival_rate", 80),
        ({"slowness": 1.5}, STEP_TIME, 80),
    ],
)
def test_a_change_is_found_soon_told_once_and_dated_well(change: dict[str, float], quantity: str, within_s: float) -> None:
    watch = DriftWatch(false_alarms_per_hour=0.05, look_s=LOOK_S)
    traffic = Traffic(watch, 3)
    assert traffic.until(600.0) == []
    for name, value in change.items():
        setattr(traffic, name, value)
    found = traffic.until(1200.0)
    first = {name: at_s for at_s, name in reversed(found)}
    assert quantity in first or (quantity == "arrival_rate" and "arrival_gaps" in first)
    assert found[0][0] - 600.0 <= within_s
    assert len(found) <= len(TESTS)


@given(st.integers(12, 30), st.integers(40, 80))
def test_where_the_recent_samples_began_to_differ_is_dated(after: int, before: int) -> None:
    stream = Stream(RECENT, 16)
    first = before + RECENT - after
    for at in range(before + RECENT):
        stream.add(float(at), 7 * at % 20 + 100.0 * (at >= first))
    # The last before it may happen to be the largest of those before it.
    assert first - 2 <= stream.changed_at_s() <= first


def test_a_restarted_stream_compares_with_what_came_after_the_change() -> None:
    stream = Stream(4, 2)
    for at in range(10):
        stream.add(at, 0.0)
    assert stream.both is not None
    stream.restart(8.0)
    assert stream.both is None
    for at in range(10, 14):
        stream.add(at, 1.0)
    both = stream.both
    assert both is not None
    assert both[0].tolist() == [1.0] * 4
    assert both[1].tolist() == [0.0] * 2


def test_steps_are_held_against_the_machine_they_were_told_of() -> None:
    works = [StepWork(count, count, 100 * count, 100 * count) for count in (1, 2, 4, 8)] * 8
    samples: list[Sample] = [(work, 5e-3 + 1e-3 * work.tokens) for work in works]
    speed = StepSpeed(samples)
    found = []
    for number in range(2000):
        work = works[number % len(works)]
        start_s = 0.02 * number
        found.append(speed.step(work, start_s, start_s + 2 * (5e-3 + 1e-3 * work.tokens)))
    blocks = [each for each in found if each is not None]
    assert len(blocks) >= 2000 * 0.02 / BLOCK_S - 2
    assert all(abs(ratio - np.log(2)) < 0.1 for _, ratio in blocks)
