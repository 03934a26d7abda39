"""What a knee search asks for and what it is told: criteria, probes, results. Data only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from setpoint.statistics import BoolArray, FloatArray

PROBES_MAX = 64
REQUESTS_MIN, REQUESTS_MAX = 50, 200_000

GapMaker = Callable[[int, np.random.Generator], FloatArray]
"""Draws ``n`` gaps between arrivals with a mean of 1."""

SizeMaker = Callable[[int, np.random.Generator], FloatArray]
"""Draws the planned sizes of ``n`` new requests, shape ``[n, features]``, as ``ProbeTrace.sizes`` has them."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """At most the share ``allowed`` of the samples may be bad, in the long run.

    ``ttft_s`` and ``e2e_s``: a request later than either is bad; infinite where the criterion does not limit it. What
    else makes a request bad (its gaps, an error) is told by ``ProbeTrace.bad`` and learned as a function of the load.
    counts_refused: whether a refused request is a bad sample; otherwise it is no sample.
    """

    name: str
    allowed: float
    ttft_s: float = math.inf
    e2e_s: float = math.inf
    counts_refused: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.allowed < 1.0:
            raise ValueError(f"allowed is {self.allowed}; a share above 0 and below 1 is needed")


def goodput(least: float, *, ttft_s: float = math.inf, e2e_s: float = math.inf) -> Criterion:
    """At least the share ``least`` of the offered requests within every limit."""
    return Criterion("goodput", 1.0 - least, ttft_s, e2e_s)


def poisson_gaps(n: int, rng: np.random.Generator) -> FloatArray:
    """Exponential gaps."""
    return rng.exponential(1.0, n)


def gamma_gaps(cv: float) -> GapMaker:
    """Gamma gaps with coefficient of variation ``cv``; above 1 requests come in clumps."""
    shape = cv**-2
    return lambda n, rng: rng.gamma(shape, 1.0 / shape, n)


def constant_gaps(n: int, rng: np.random.Generator) -> FloatArray:
    """All gaps alike."""
    return np.ones(n)


@dataclass(frozen=True, slots=True)
class KneeOptions:
    """What is searched for and how much may be spent.

    start_rps: the first guess. least_rps, most_rps: no probe goes beyond. probes_max, requests_max: at most so many
    probes of at most so many requests. scout_requests: requests of a probe that only has to find the region.
    tolerance: the search is settled once the half width of the knee's 95 % interval is below this share of it.
    gaps: the arrival process at rate 1, for the steady state behind a probe. sizes: the planned sizes of requests to come.
    """

    criteria: tuple[Criterion, ...]
    start_rps: float = 1.0
    least_rps: float = 1e-3
    most_rps: float = 1e5
    probes_max: int = 8
    requests_max: int = 600
    scout_requests: int = 200
    tolerance: float = 0.05
    gaps: GapMaker = poisson_gaps
    sizes: SizeMaker | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.criteria:
            raise ValueError("criteria: a knee needs at least one limit")
        if not 0.0 < self.least_rps <= self.start_rps <= self.most_rps < math.inf:
            raise ValueError(
                f"start_rps is {self.start_rps:g}; it must be above 0 and from least_rps ({self.least_rps:g}) to "
                f"most_rps ({self.most_rps:g})"
            )
        if not 2 <= self.probes_max <= PROBES_MAX:
            raise ValueError(f"probes_max is {self.probes_max}; allowed: 2 to {PROBES_MAX}")
        if not REQUESTS_MIN <= self.requests_max <= REQUESTS_MAX:
            raise ValueError(f"requests_max is {self.requests_max}; allowed: {REQUESTS_MIN} to {REQUESTS_MAX}")
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance is {self.tolerance}; a share above 0 and below 1 is needed")


@dataclass(frozen=True, slots=True)
class Probe:
    """Offer ``requests`` requests at ``rate_rps`` to an idle server, in the arrival process of the options."""

    rate_rps: float
    requests: int


@dataclass(frozen=True, slots=True)
class ProbeTrace:
    """Every request of a probe, from its first one on, in the order of arrival. Shapes ``[n]``, seconds on one axis.

    arrival_s: intended send. first_s: first token; NaN if it never came. end_s: last token or whatever ended it; NaN if
    it was still running at ``cutoff_s``. complete: it ended with a whole answer. refused: turned away at once (429, 503),
    or never sent: it was not in the server.
    bad: shape ``[criteria, n]``, between 0 and 1: whether each request, or which share of its samples, is bad.
    weight: shape ``[criteria, n]``: how many samples of the criterion the request holds (1; its gaps; 0 for none).
    sizes: shape ``[n, features]``: what was planned for each request (its prompt and output tokens); optional.
    """

    arrival_s: FloatArray
    first_s: FloatArray
    end_s: FloatArray
    cutoff_s: float
    complete: BoolArray
    refused: BoolArray
    bad: FloatArray
    weight: FloatArray
    sizes: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        columns = (self.first_s, self.end_s, self.complete, self.refused, self.bad[0], self.weight[0])
        shapes = {column.shape for column in columns}
        if n == 0 or shapes != {(n,)} or self.bad.shape != self.weight.shape:
            raise ValueError("a trace needs at least one request and columns of one length")
        if np.any(np.diff(self.arrival_s) < 0):
            raise ValueError("a trace needs its requests in the order of arrival")


def simple_trace(arrival_s: FloatArray, first_s: FloatArray, end_s: FloatArray, criterion: Criterion) -> ProbeTrace:
    """A trace in which nothing was refused and nothing failed, judged by the time limits of one criterion."""
    bad = ~((first_s - arrival_s <= criterion.ttft_s) & (end_s - arrival_s <= criterion.e2e_s))
    complete = ~np.isnan(end_s)
    return ProbeTrace(
        arrival_s=arrival_s,
        first_s=first_s,
        end_s=end_s,
        cutoff_s=float(np.nanmax(np.concatenate((arrival_s, end_s)))),
        complete=complete,
        refused=np.zeros(len(arrival_s), dtype=np.bool_),
        bad=bad[None].astype(np.float64),
        weight=np.ones((1, len(arrival_s))),
    )


@dataclass(frozen=True, slots=True)
class Count:
    """Samples of one criterion in one probe: how many, how many of them bad; ``effective_n`` independent ones."""

    bad: float
    samples: float
    effective_n: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe showed. ``offered`` and ``ok`` count requests; with several criteria ``counts`` has one for each.

    met: the verdict on the probe alone, for the record; the search decides by its own intervals. trace: the requests
    themselves, which say far more than counts: with a trace of every probe the search models the server.
    """

    rate_rps: float
    offered: int
    ok: int
    met: str = ""
    counts: tuple[Count, ...] = ()
    trace: ProbeTrace | None = None

    def count(self, criterion: int) -> Count:
        """The samples of one criterion."""
        return self.counts[criterion] if self.counts else Count(self.offered - self.ok, self.offered)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The share of good samples by each criterion that the fitted server would show in the long run at a rate."""

    rate_rps: float
    good: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Knee:
    """What is known of the knee. ``rate_rps`` is ``None`` if every probe met, or every probe missed, the requirement.

    interval_rps: 95 %; an end that no probe bounds is 0 or infinite. settled: the interval is within the tolerance.
    limited_by: the criterion that is missed first. words: one or two sentences for people. curve: of the fitted server,
    empty where there is none.
    """

    rate_rps: float | None
    interval_rps: tuple[float, float]
    settled: bool
    limited_by: str
    words: str
    probes: tuple[ProbeResult, ...] = field(repr=False, default=())
    curve: tuple[CurvePoint, ...] = field(repr=False, default=())
