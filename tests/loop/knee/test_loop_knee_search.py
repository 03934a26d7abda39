"""The search lands near the true knee of simulated servers in few probes, and says so when it cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from knee_searching import EXPONENTIAL, World, error_of, first_guess_rps, play
from knee_servers import BatchServer, Floats, Served, SharingServer, Sizes, arrivals_s, fifo_knee_rps

from setpoint.loop.knee.model import ServerModel
from setpoint.loop.knee.occupancy import Occupancy
from setpoint.loop.knee.probes import Count, Criterion, KneeOptions, Probe, ProbeResult, ProbeTrace, goodput, simple_trace
from setpoint.loop.knee.search import KneeSearch
from setpoint.loop.knee.twin import run_twin

# Knees of processor sharing from runs of 4,000,000 requests (benchmarks/knee/accuracy.py); that of FIFO is exact.
SHARED = World(SharingServer(EXPONENTIAL), (goodput(0.95, e2e_s=20.0),), 0.8072)
FIFO = World(SharingServer(EXPONENTIAL, most=1), (goodput(0.95, e2e_s=10.0),), fifo_knee_rps(1.0, 0.95, 10.0))
FOUR_CORES = World(SharingServer(cores=4), (goodput(0.95, e2e_s=5.0),), 3.1001)
ALIKE = World(SharingServer(Sizes("constant")), (goodput(0.95, e2e_s=5.0),), 0.5341)


def test_it_lands_within_5_percent_in_at_most_8_probes_of_at_most_600_requests() -> None:
    errors = []
    for world, searches in ((SHARED, 10), (FIFO, 6), (FOUR_CORES, 4)):
        for seed in range(searches):
            knee, probes = play(world, seed)
            assert len(probes) <= 8
            assert max(probe.requests for probe in probes) <= 600
            errors.append(error_of(knee, world))
    assert sum(abs(error) < 0.05 for error in errors) >= 0.95 * len(errors)
    assert abs(float(np.mean(errors))) < 0.02


def test_where_requests_are_alike_three_probes_are_enough() -> None:
    knee, probes = play(ALIKE, 3)
    assert len(probes) <= 4
    assert knee.settled
    assert abs(error_of(knee, ALIKE)) < 0.03


def test_planned_sizes_narrow_the_interval() -> None:
    criteria = (goodput(0.95, e2e_s=4.0),)
    told, untold = (World(BatchServer(tells_sizes=tells), criteria, 6.414) for tells in (True, False))
    with_sizes, without = play(told, 5)[0], play(untold, 5)[0]
    assert abs(error_of(with_sizes, told)) < 0.06
    widths = [math.log(knee.interval_rps[1] / knee.interval_rps[0]) for knee in (with_sizes, without)]
    assert widths[0] < widths[1]


def test_the_same_results_give_the_same_search() -> None:
    one, other = play(SHARED, 4), play(SHARED, 4)
    assert one[0].rate_rps == other[0].rate_rps
    assert one[1] == other[1]


def test_the_criterion_that_is_missed_first_limits() -> None:
    loose, tight = goodput(0.9, e2e_s=200.0), Criterion("ttft p90", 0.1, ttft_s=2.0)
    world = World(SharingServer(cores=4, most=8), (loose, tight), 3.25)
    knee, _ = play(world, 1)
    assert knee.limited_by == "ttft p90"
    assert abs(error_of(knee, world)) < 0.08
    assert "limited by ttft p90" in knee.words
    good = [point.good for point in knee.curve]
    assert all(first[1] >= later[1] - 0.02 for first, later in pairwise(good))


def test_a_limit_that_even_an_empty_server_misses_ends_the_search_after_two_probes() -> None:
    world = World(SharingServer(), (goodput(0.95, e2e_s=0.3),), 1.0)
    knee, probes = play(world, 2, start_rps=0.5)
    assert knee.rate_rps is None
    assert len(probes) == 2
    assert "missed already at" in knee.words
    assert knee.interval_rps[0] == 0.0


class Endless:
    """A server that any number of requests do not slow down."""

    def serve(self, arrival_s: Floats, rng: np.random.Generator) -> Served:
        return Served(arrival_s, arrival_s + 0.01, arrival_s + 0.1)


def test_a_server_that_is_never_slow_is_probed_in_strides_and_no_knee_is_made_up() -> None:
    world = World(Endless(), (goodput(0.95, e2e_s=1.0),), 1.0)
    knee, probes = play(world, 0, start_rps=1.0)
    rates = [probe.rate_rps for probe in probes]
    assert knee.rate_rps is None
    assert "met up to" in knee.words
    assert rates == sorted(rates)
    assert rates[-1] > 100.0
    assert knee.interval_rps[1] == math.inf


def test_with_counts_alone_the_interval_is_honest_and_wide() -> None:
    found = [play(SHARED, seed, traced=False) for seed in range(12)]
    inside = [knee.interval_rps[0] <= SHARED.knee_rps <= knee.interval_rps[1] for knee, _ in found]
    assert sum(inside) >= 10
    assert all(abs(error_of(knee, SHARED)) < 0.3 for knee, _ in found)


def test_one_probe_that_met_is_looked_for_below_the_knee_where_verdicts_are_told() -> None:
    search = KneeSearch(SHARED.options(first_guess_rps(SHARED, 0)))
    probes: list[Probe] = []
    while (probe := search.next_probe()) is not None:
        trace = SHARED.trace(probe, len(probes))
        probes.append(probe)
        ok = probe.requests - int(trace.bad.sum())
        search.observe(ProbeResult(probe.rate_rps, probe.requests, ok, met="inconclusive", trace=trace))
    knee = search.result().rate_rps
    assert knee is not None
    assert 0.55 * knee < probes[-1].rate_rps < 0.96 * knee


def test_asked_twice_it_answers_the_same_and_before_the_first_probe_it_knows_nothing() -> None:
    search = KneeSearch(SHARED.options(1.0))
    assert search.next_probe() == search.next_probe() == Probe(1.0, 200)
    assert search.result().rate_rps is None
    assert search.belief_words() == "nothing is known yet"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"start_rps": 0.0}, "start_rps"),
        ({"criteria": ()}, "criteria"),
        ({"probes_max": 1}, "probes_max"),
        ({"requests_max": 10}, "requests_max"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_options_that_cannot_be_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        KneeOptions(**({"criteria": (goodput(0.9),)} | changes))  # type: ignore[arg-type]


def test_results_that_cannot_be_are_refused() -> None:
    search = KneeSearch(SHARED.options(1.0))
    with pytest.raises(ValueError, match="cannot be"):
        search.observe(ProbeResult(1.0, 10, 11))
    with pytest.raises(ValueError, match="criteria"):
        search.observe(ProbeResult(1.0, 10, 5, counts=(Count(5, 10), Count(5, 10))))
    with pytest.raises(ValueError, match="order of arrival"):
        simple_trace(np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([2.0, 2.0]), goodput(0.9))


def crowded_trace(probe: Probe, seed: int) -> ProbeTrace:
    """Of a shared server on which a request is bad if it met more than 6 others on average, whatever its times."""
    rng = np.random.default_rng(seed)
    served = SharingServer(EXPONENTIAL).serve(arrivals_s(probe.rate_rps, probe.requests, rng), rng)
    trace = simple_trace(served.arrival_s, served.first_s, served.end_s, Criterion("gaps", 0.1))
    return replace(trace, bad=(Occupancy(trace).crowd() > 6.0)[None].astype(np.float64))


def test_what_only_the_crowd_explains_is_learned() -> None:
    def bad(rate_rps: float) -> float:
        return float(crowded_trace(Probe(rate_rps, 100_000), 1).bad.mean())

    low, high = 0.5, 0.99
    for _ in range(9):
        middle = (low + high) / 2.0
        low, high = (low, middle) if bad(middle) > 0.1 else (middle, high)
    search = KneeSearch(KneeOptions((Criterion("gaps", 0.1),), start_rps=0.2))
    seed = 0
    while (probe := search.next_probe()) is not None:
        trace, seed = crowded_trace(probe, seed), seed + 1
        search.observe(ProbeResult(probe.rate_rps, probe.requests, int((trace.bad == 0).sum()), trace=trace))
    found = search.result().rate_rps
    assert found is not None
    assert abs(found / low - 1.0) < 0.08


@dataclass(frozen=True, slots=True)
class Refusing:
    """A shared server that turns away whoever would be the seventh."""

    def trace(self, probe: Probe, seed: int) -> ProbeTrace:
        rng = np.random.default_rng(seed)
        arrival_s = arrivals_s(probe.rate_rps, probe.requests, rng)
        outcome = run_twin(ServerModel(), arrival_s, rng.exponential(1.0, probe.requests), np.full(probe.requests, 6.0))
        end_s = np.where(outcome.refused, np.nan, arrival_s + outcome.e2e_s)
        trace = simple_trace(arrival_s, end_s, end_s, Criterion("shed", 0.05))
        return replace(trace, refused=outcome.refused, complete=~outcome.refused, bad=outcome.refused[None].astype(float))


def test_refusals_are_learned_by_how_many_are_present() -> None:
    search = KneeSearch(KneeOptions((Criterion("shed", 0.05),), start_rps=0.3))
    seed = 0
    while (probe := search.next_probe()) is not None:
        trace, seed = Refusing().trace(probe, seed), seed + 1
        search.observe(ProbeResult(probe.rate_rps, probe.requests, int((~trace.refused).sum()), trace=trace))
    found = search.result().rate_rps
    assert found is not None
    # M/M/1/6: the share refused is that of the time in which it is full.
    loads = np.linspace(0.3, 1.5, 2000)
    full = loads**6 * (1.0 - loads) / (1.0 - loads**7)
    assert abs(found / float(loads[np.argmax(full > 0.05)]) - 1.0) < 0.06
