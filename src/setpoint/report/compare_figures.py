"""The figures of a run that a comparison looks at, each with an interval that respects how alike neighbours are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from setpoint.record import Candidate, Phase, PhaseMeasures, RequestClass
from setpoint.report.files import Run
from setpoint.report.request_samples import Requests, latency_sample, phase_rows, read_requests
from setpoint.report.span import PhaseSpan
from setpoint.report.steady import SteadyState, steady_state
from setpoint.report.throughput import output_tokens_between
from setpoint.report.verdicts import in_focus, measures
from setpoint.requirement import LatencyMetric
from setpoint.statistics import (
    BoolArray,
    Estimate,
    FloatArray,
    finite,
    mean_interval,
    percentile,
    percentile_interval,
    ratio_interval,
    share_interval,
)

LATENCIES = (LatencyMetric.TTFT, LatencyMetric.ITL, LatencyMetric.TPOT, LatencyMetric.E2E)
PERCENTILES = (50.0, 90.0, 99.0)
COMPARED_PHASES = (Phase.SUSTAINED, Phase.BURST)
SHARES: tuple[tuple[str, tuple[RequestClass, ...], Literal["lower", "higher"]], ...] = (
    ("goodput_fraction", (RequestClass.OK,), "higher"),
    ("shed_fraction", (RequestClass.SHED,), "lower"),
    ("failed_fraction", (RequestClass.FAILED, RequestClass.DROPPED), "lower"),
)
RATE_BINS = 100
LEAST_BIN_S = 0.5


@dataclass(frozen=True, slots=True)
class FigureName:
    """Which figure, in which unit, and which way is better."""

    phase: Phase
    metric: str
    statistic: str
    unit: str
    better: Literal["lower", "higher"]


Estimator = Callable[[float], Estimate]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run as a comparison sees it: the candidate in focus, its rows by phase and all, and where each phase lay."""

    name: str
    run: Run
    candidate: Candidate
    requests: dict[Phase, Requests]
    everything: Requests
    spans: dict[Phase, PhaseSpan]
    steady: SteadyState

    @property
    def offered(self) -> int:
        """Requests offered in the compared phases."""
        return sum(len(requests) for requests in self.requests.values())

    def figures(self) -> dict[FigureName, Estimator]:
        """Every figure of the run; calling one with a confidence gives the value and its interval."""
        found: dict[FigureName, Estimator] = {}
        for phase, requests in self.requests.items():
            course = phase is not Phase.SUSTAINED or self.steady.drifting
            found |= dict(_phase_figures(phase, requests, self.everything, self.spans[phase], course=course))
        return found

    def counted(self, name: FigureName) -> tuple[int, int] | None:
        """Of a share: how many requests it counts, and of how many; ``None`` of another figure."""
        classes = next((classes for metric, classes, _ in SHARES if metric == name.metric), None)
        if classes is None:
            return None
        requests = self.requests[name.phase]
        return int(np.count_nonzero(requests.is_class(*classes))), len(requests)

    @property
    def clients(self) -> object:
        """How many clients a closed loop had; ``None`` of an open one."""
        return (self.run.report.load or {}).get("concurrency")

    def offered_rps(self, phase: Phase) -> float:
        """Requests offered a second in ``phase``."""
        return len(self.requests[phase]) / self.spans[phase].duration_s


def compared_run(name: str, run: Run) -> ComparedRun:
    """The run as a comparison sees it. Raises ``ValueError`` if it holds no requests to compare."""
    candidate = in_focus(run.report)
    if candidate is None:
        raise ValueError("no candidate was measured in it")
    table = run.requests.filter(pc.equal(run.requests["candidate"], candidate.name))
    requests: dict[Phase, Requests] = {}
    spans: dict[Phase, PhaseSpan] = {}
    for phase in COMPARED_PHASES:
        figures = measures(candidate, phase)
        rows = read_requests(phase_rows(table, phase)) if table.num_rows else None
        if figures is None or rows is None or not len(rows):
            continue
        requests[phase] = rows
        spans[phase] = _span(run, phase, rows, figures)
    if not requests:
        raise ValueError(f"it holds no requests of {candidate.name} in a sustained phase or a burst")
    steady = steady_state(table, spans.get(Phase.SUSTAINED))
    return ComparedRun(name, run, candidate, requests, read_requests(table), spans, steady)


def _span(run: Run, phase: Phase, rows: Requests, figures: PhaseMeasures) -> PhaseSpan:
    """Where the phase lay: the sustained one after the warm-up that was planned, another from its first request."""
    schedule = run.run_info.get("schedule")
    warmup_s = schedule.get("warmup_s") if isinstance(schedule, dict) else None
    first_s = float(np.nanmin(rows.intended_s))
    start_s = float(warmup_s) if phase is Phase.SUSTAINED and isinstance(warmup_s, int | float) else first_s
    load = run.report.load or {}
    # A closed loop by number has no planned warm-up: its phase begins when the clients are at work.
    by_number = "concurrency" in load and "requests" in load
    start_s = first_s if by_number else min(start_s, first_s)
    return PhaseSpan(start_s, start_s + figures.duration_s)


def _phase_figures(
    phase: Phase, requests: Requests, everything: Requests, span: PhaseSpan, *, course: bool
) -> Iterator[tuple[FigureName, Estimator]]:
    """``everything``: the requests of all phases, whose tokens count by when they came. ``course``: the latencies of the phase
    follow a course, as in a burst (``statistics.dependence``)."""
    for metric in LATENCIES:
        yield from _latency_figures(phase, requests, metric, course=course)
    for name, classes, better in SHARES:
        hits = requests.is_class(*classes)
        yield FigureName(phase, name, "", "share", better), _share(hits, course=course)
    good_s = requests.intended_s[requests.is_class(RequestClass.OK)]
    edges_s = _edges_s(span)
    good, _ = np.histogram(good_s, edges_s)
    yield FigureName(phase, "goodput", "", "/s", "higher"), _rate(good.astype(np.float64), edges_s)
    tokens = output_tokens_between(everything, edges_s)
    yield FigureName(phase, "output_tokens", "", "tokens/s", "higher"), _rate(tokens, edges_s)


def _latency_figures(
    phase: Phase, requests: Requests, metric: LatencyMetric, *, course: bool
) -> Iterator[tuple[FigureName, Estimator]]:
    """The percentiles and the spread of one latency. Failed and dropped requests are infinitely late."""
    sample = latency_sample(requests, metric, failures_infinite=True)
    if not len(sample):
        return

    def percentile_figure(p: float) -> Estimator:
        return lambda confidence: Estimate(
            percentile(sample.values, p, sample.censored),
            percentile_interval(sample.values, p, confidence, censored=sample.censored, transient=course),
        )

    for p in PERCENTILES:
        yield FigureName(phase, str(metric), f"p{p:g}", "s", "lower"), percentile_figure(p)

    def spread(confidence: float) -> Estimate:
        p50, p99 = (finite(percentile(sample.values, p, sample.censored)) for p in (50.0, 99.0))
        value = p99 / p50 if p99 is not None and p50 else None
        interval = ratio_interval(sample.values, confidence=confidence, censored=sample.censored, transient=course)
        return Estimate(value, interval)

    if metric is not LatencyMetric.TPOT:
        yield FigureName(phase, str(metric), "spread", "", "lower"), spread


def _share(hits: BoolArray, *, course: bool) -> Estimator:
    return lambda confidence: Estimate(float(hits.mean()), share_interval(hits, confidence, transient=course))


def _edges_s(span: PhaseSpan) -> FloatArray:
    """Up to ``RATE_BINS`` consecutive stretches of the span."""
    bins = max(1, min(RATE_BINS, int(span.duration_s / LEAST_BIN_S)))
    return np.linspace(span.start_s, span.end_s, bins + 1)


def _rate(amounts: FloatArray, edges_s: FloatArray) -> Estimator:
    """What came a second, from the amounts in consecutive stretches of time."""
    rates = amounts / np.diff(edges_s)
    return lambda confidence: Estimate(float(rates.mean()), mean_interval(rates, confidence))
