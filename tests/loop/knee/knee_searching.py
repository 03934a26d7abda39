"""A search played to its end against a simulated server."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from knee_servers import Server, Sizes, arrivals_s

from setpoint.loop.knee.probes import (
    Count,
    Criterion,
    Knee,
    KneeOptions,
    Probe,
    ProbeResult,
    ProbeTrace,
    gamma_gaps,
    poisson_gaps,
    simple_trace,
)
from setpoint.loop.knee.search import KneeSearch

START = (1.0 / 8.0, 4.0)
"""The first guess is off by a factor between these, all alike on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class World:
    """A server, what is asked of it, how bursty its arrivals are, and its true knee."""

    server: Server
    criteria: tuple[Criterion, ...]
    knee_rps: float
    cv: float = 1.0

    def trace(self, probe: Probe, seed: int) -> ProbeTrace:
        """What a client sees of one probe."""
        rng = np.random.default_rng(seed)
        served = self.server.serve(arrivals_s(probe.rate_rps, probe.requests, rng, self.cv), rng)
        traces = [simple_trace(served.arrival_s, served.first_s, served.end_s, one) for one in self.criteria]
        bad, weight = (np.concatenate(rows) for rows in zip(*((one.bad, one.weight) for one in traces), strict=True))
        return replace(traces[0], bad=bad, weight=weight, sizes=served.sizes)

    def options(self, start_rps: float) -> KneeOptions:
        """As a user would leave them; planned sizes are told where the server knows any."""
        gaps = poisson_gaps if self.cv == 1.0 else gamma_gaps(self.cv)
        return KneeOptions(self.criteria, start_rps=start_rps, gaps=gaps, sizes=getattr(self.server, "draw_sizes", None))


def first_guess_rps(world: World, seed: int) -> float:
    """A guess at the knee that is off by a random factor."""
    low, high = (math.log(end) for end in START)
    return world.knee_rps * math.exp(np.random.default_rng(seed).uniform(low, high))


def play(world: World, seed: int, *, traced: bool = True, start_rps: float | None = None) -> tuple[Knee, list[Probe]]:
    """The knee found and the probes it took."""
    search = KneeSearch(world.options(start_rps or first_guess_rps(world, seed)))
    probes: list[Probe] = []
    while (probe := search.next_probe()) is not None:
        trace = world.trace(probe, 1000 * seed + len(probes))
        probes.append(probe)
        counts = tuple(Count(float(bad.sum()), float(probe.requests)) for bad in trace.bad)
        ok = probe.requests - int(trace.bad.max(axis=0).sum())
        search.observe(ProbeResult(probe.rate_rps, probe.requests, ok, counts=counts, trace=trace if traced else None))
        search.check_integrity()
    return search.result(), probes


def error_of(knee: Knee, world: World) -> float:
    """How far off the knee is, relative to the true one; infinite if none was found."""
    return math.inf if knee.rate_rps is None else knee.rate_rps / world.knee_rps - 1.0


EXPONENTIAL = Sizes("exponential")
