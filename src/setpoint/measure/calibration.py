"""What a client process on this machine is good to, measured against the built-in mock.

Streams of a known schedule are asked for at rising rates until what is reported differs from what the mock really did:
the P99 of TTFT by more than ``TTFT_DISTORTION_MAX_S`` or the P99 of the gaps by more than ``ITL_DISTORTION_MAX_S``. The
highest rate before that is the capacity, or, if that is less, what fills a core with everything included: once in
tokens/s (long answers) and once in requests/s (short ones). It takes ten to twenty seconds and is kept in the user's
cache directory for this machine and version.

The mock runs beside the client, as a server on the same machine would, and takes a core for itself: on one core the
figure is of the pair. A machine that is busy meanwhile is found less able than it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.capacity import (
    ITL_DISTORTION_MAX_S,
    TTFT_DISTORTION_MAX_S,
    Capacity,
    cached_capacity,
    keep_capacity,
    machine_and_versions,
)
from setpoint.measure.client import run_load
from setpoint.measure.event_loop import collector_paused, run
from setpoint.measure.mock import MockLog, MockOptions, MockProcess
from setpoint.measure.options import LoadOptions
from setpoint.measure.result import LoadResult
from setpoint.measure.self_check import CPU_SHARE_MAX
from setpoint.measure.target import Target
from setpoint.record import Phase, RequestClass
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

TTFT_S, ITL_S = 0.02, 0.004
LONG_TOKENS, SHORT_TOKENS = 80, 2
FIRST_TOKENS_PER_S, FIRST_REQUESTS_PER_S = 6_000.0, 300.0
MEASURED_S, DRAIN_S = 0.4, 5.0
PROMPT_WORDS = 200
# The second rate tried is the one at which the first one's cost would come to this share of a core.
GUESS_SHARE = 0.75
STEP = 1.25
RATES_MAX, TRIES = 7, 2
# So many times the allowed distortion.
HOPELESS = 6.0
LEAD_S = 0.1
# Below this share of the rate that was asked for, it was the mock that could not.
DELIVERED_SHARE_MIN = 0.9


@dataclass(frozen=True, slots=True)
class Probe:
    """One rate tried: what was asked for and delivered (units per second), and how far the report was off (s).

    cpu_share: of one core, by the client while the load ran. per_cpu_s: units served per CPU second, the reading of the
    answers included, most of which a short probe puts off to its end and a long run cannot.
    """

    asked_per_s: float
    delivered_per_s: float
    ttft_distortion_s: float
    itl_distortion_s: float
    cpu_share: float
    per_cpu_s: float
    all_served: bool

    @property
    def good(self) -> bool:
        """Whether the client told the truth at this rate."""
        close = self.ttft_distortion_s <= TTFT_DISTORTION_MAX_S and self.itl_distortion_s <= ITL_DISTORTION_MAX_S
        return close and self.all_served

    @property
    def hopeless(self) -> bool:
        """Whether it was so far off that no passing disturbance explains it."""
        off = max(self.ttft_distortion_s / TTFT_DISTORTION_MAX_S, self.itl_distortion_s / ITL_DISTORTION_MAX_S)
        return off > HOPELESS or not self.all_served

    @property
    def kept_up(self) -> bool:
        """Whether the rate that was asked for came about."""
        return self.delivered_per_s >= DELIVERED_SHARE_MIN * self.asked_per_s


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search: the probe to go by, and how it bounds the capacity (``Capacity.tokens_bound``)."""

    probe: Probe
    bound: str

    def sustained(self) -> tuple[float, str]:
        """Units per second that can be kept up, and how they bound the capacity: not above ``CPU_SHARE_MAX`` of a core."""
        full_per_s = CPU_SHARE_MAX * self.probe.per_cpu_s
        if self.bound != "less than" and full_per_s < self.probe.delivered_per_s:
            return full_per_s, ""
        return self.probe.delivered_per_s, self.bound


def client_capacity(*, recalibrate: bool = False, say: Callable[[str], None] | None = None) -> Capacity:
    """The capacity kept from before, or, without one or on ``recalibrate``, a newly measured one, which is then kept.

    say: told of each probe. Raises ``MockError`` if the mock does not start. Not to be called from a running event loop.
    """
    kept = None if recalibrate else cached_capacity()
    if kept is not None:
        return kept
    found = calibrate(say)
    keep_capacity(found)
    return found


def calibrate(say: Callable[[str], None] | None = None) -> Capacity:
    """Measure now, ten to twenty seconds. ``say`` is told of each probe. Raises ``MockError`` if the mock does not start.

    Not to be called from a running event loop.
    """
    with MockProcess(MockOptions(ttft_s=TTFT_S, itl_s=ITL_S)) as mock:
        probe_rate(mock, 50.0, SHORT_TOKENS)  # What is slow only once is not what is looked for.

        def of_tokens(tokens_per_s: float) -> Probe:
            return probe_rate(mock, tokens_per_s / LONG_TOKENS, LONG_TOKENS, unit_tokens=LONG_TOKENS)

        def of_requests(requests_per_s: float) -> Probe:
            return probe_rate(mock, requests_per_s, SHORT_TOKENS)

        long = find_highest(of_tokens, FIRST_TOKENS_PER_S, _teller(say, "tokens/s"))
        short = find_highest(of_requests, FIRST_REQUESTS_PER_S, _teller(say, "requests/s"))
    tokens_per_s, tokens_bound = long.sustained()
    requests_per_s, requests_bound = short.sustained()
    return Capacity(
        tokens_per_s=tokens_per_s,
        requests_per_s=requests_per_s,
        measured_unix_s=time.time(),
        tokens_bound=tokens_bound,
        requests_bound=requests_bound,
        ttft_distortion_s=max(long.probe.ttft_distortion_s, short.probe.ttft_distortion_s),
        itl_distortion_s=long.probe.itl_distortion_s,
        on=machine_and_versions(),
    )


def find_highest(
    attempt: Callable[[float], Probe], first_per_s: float, tell: Callable[[Probe], None] = lambda probe: None
) -> Found:
    """The highest rate at which a probe is good, to within a factor ``STEP``, in at most ``RATES_MAX`` rates.

    After ``first_per_s`` comes a guess from its cost, then steps up while the probes are good, or down until one is. A
    rate is bad if it fails ``TRIES`` times, since once may be the machine's doing, or is ``hopeless``.
    """

    def judged(rate_per_s: float) -> Probe:
        for _ in range(TRIES):
            probe = attempt(rate_per_s)
            tell(probe)
            if probe.good or probe.hopeless:
                break
        return probe

    best: Probe | None = None
    lowest_bad: Probe | None = None
    rate_per_s = first_per_s
    for _ in range(RATES_MAX):
        probe = judged(rate_per_s)
        if probe.good:
            if not probe.kept_up:
                return Found(probe, "at least")
            best = probe if best is None or probe.asked_per_s > best.asked_per_s else best
        elif lowest_bad is None or probe.asked_per_s < lowest_bad.asked_per_s:
            lowest_bad = probe
        following_per_s = _next_rate(first_per_s, best, lowest_bad)
        if following_per_s is None:
            break
        rate_per_s = following_per_s
    if best is None:
        assert lowest_bad is not None
        return Found(lowest_bad, "less than")
    near = lowest_bad is not None and lowest_bad.asked_per_s <= best.asked_per_s * STEP * 1.01
    return Found(best, "" if near else "at least")


def _next_rate(first_per_s: float, best: Probe | None, lowest_bad: Probe | None) -> float | None:
    """The rate to try next, ``None`` when the answer is near enough."""
    if best is None:
        return None if lowest_bad is None else lowest_bad.asked_per_s / 2.0
    if lowest_bad is None:
        if best.asked_per_s > first_per_s:
            return best.asked_per_s * STEP
        return best.asked_per_s * max(STEP, GUESS_SHARE / max(best.cpu_share, 0.01))
    if lowest_bad.asked_per_s <= best.asked_per_s * STEP * 1.01:
        return None
    down_per_s = lowest_bad.asked_per_s / STEP
    return down_per_s if down_per_s > best.asked_per_s * 1.01 else None


def probe_rate(mock: MockProcess, requests_per_s: float, tokens: int, *, unit_tokens: int = 1) -> Probe:
    """Ask for a constant rate and compare the report with the mock's log, once the streams under way are full in number."""
    warm_up_s = 0.1 + TTFT_S + tokens * ITL_S
    mock.reset_log()
    plan = _plan(requests_per_s, tokens, warm_up_s)
    options = LoadOptions(drain_s=DRAIN_S, run_id="calibration", watch_server=False)
    with collector_paused():
        start_s = monotonic() + LEAD_S
        result = run(run_load(Target(mock.url, mock.options.model), plan, options, start_s=start_s))
    ttft_s, itl_s = _distortions(result, mock.log(), start_s)
    events_s = np.concatenate(
        [row.token_times_s if unit_tokens > 1 else np.array([row.sent_s or 0.0]) for row in result.outcomes]
    )
    inside = (events_s >= warm_up_s) & (events_s < warm_up_s + MEASURED_S)
    return Probe(
        asked_per_s=requests_per_s * unit_tokens,
        delivered_per_s=float(inside.sum()) / MEASURED_S,
        ttft_distortion_s=ttft_s,
        itl_distortion_s=itl_s,
        cpu_share=result.client.cpu_share,
        per_cpu_s=events_s.size / result.client.cpu_s,
        all_served=all(row.request_class is RequestClass.OK for row in result.outcomes),
    )


def _plan(requests_per_s: float, tokens: int, warm_up_s: float) -> LoadPlan:
    end_s = warm_up_s + MEASURED_S
    prompt = " ".join(["word"] * PROMPT_WORDS)
    times_s = np.arange(0.0, end_s, 1.0 / requests_per_s)
    requests = [
        PlannedRequest(index, float(at_s), Phase.WARMUP if at_s < warm_up_s else Phase.SUSTAINED, prompt, PROMPT_WORDS, tokens)
        for index, at_s in enumerate(times_s)
    ]
    phases = [PhaseSpan(Phase.WARMUP, 0.0, warm_up_s), PhaseSpan(Phase.SUSTAINED, warm_up_s, end_s)]
    return LoadPlan(seed=0, phases=phases, requests=requests, prompt_tokens_exact=False)


def _distortions(result: LoadResult, log: MockLog, start_s: float) -> tuple[float, float]:
    """How far the P99 of TTFT and of the gaps of the measured requests are from what the mock did, in seconds.

    The client's part in a TTFT is how late it sent and how late it stamped the first token; what the mock took to read
    the request is not. Both clocks are ``CLOCK_MONOTONIC``.
    """
    truth = log.by_id()
    true_ttfts_s, added_s = [], []
    seen_gaps_s, true_gaps_s = [np.empty(0)], [np.empty(0)]
    for row in result.outcomes:
        true = truth.get(row.request_id)
        if row.phase is not Phase.SUSTAINED or row.first_token_s is None or row.sent_s is None or true is None:
            continue
        times_s = true.token_times_s
        true_ttfts_s.append(float(times_s[0]) - true.received_s)
        added_s.append(row.sent_s - row.intended_s + start_s + row.first_token_s - float(times_s[0]))
        seen_gaps_s.append(np.diff(row.token_times_s))
        true_gaps_s.append(np.diff(times_s))
    if not true_ttfts_s:
        return float("inf"), float("inf")
    ttfts_s = np.array(true_ttfts_s)
    gaps_off_s = _p99_difference(np.concatenate(seen_gaps_s), np.concatenate(true_gaps_s))
    return _p99_difference(ttfts_s + np.array(added_s), ttfts_s), gaps_off_s


def _p99_difference(seen: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    if not seen.size or not true.size:
        return 0.0
    return abs(float(np.percentile(seen, 99)) - float(np.percentile(true, 99)))


def _teller(say: Callable[[str], None] | None, unit: str) -> Callable[[Probe], None]:
    def tell(probe: Probe) -> None:
        if say is not None:
            say(
                f"{probe.delivered_per_s:,.0f} {unit}: TTFT P99 off by {probe.ttft_distortion_s * 1e3:.1f} ms, "
                f"ITL P99 by {probe.itl_distortion_s * 1e3:.1f} ms, {probe.cpu_share:.0%} of a core"
            )

    return tell
