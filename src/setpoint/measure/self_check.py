"""The client's account of itself, and whether a run may be believed.

A run is invalid when the client's own error exceeds ``CLIENT_ERROR_SHARE`` of the tightest limit of the SLOs:

- of TTFT and E2E: the lag of its sends behind the plan (P99, of the worst phase) plus the lag of its event loop (P99),
  by which every stamp may be late, plus the wait for a connection limit that the user did not ask for;
- of ITL and TPOT: the lag of its event loop.

It is invalid too when the sends had not the plan's rate or dispersion (``fidelity``), when requests were left unsent,
when the core of a client process was full, when a worker process ended early, and when nothing answered at all. Without
a limit to compare with, ``DEFAULT_LIMIT_S`` stands for it. ``SEND_FLOOR_S`` and ``STAMP_FLOOR_S`` are what timers and a
shared machine always cost: an error below them does not spoil a run, however tight the limit, but is warned of
(``client_account``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import psutil

from setpoint.measure.event_loop import LagMonitor
from setpoint.measure.fidelity import ArrivalFidelity, arrival_fidelity
from setpoint.measure.histogram import LogHistogram
from setpoint.measure.outcome import RequestOutcome
from setpoint.record import CONVERSATION_OVER, Phase, RequestClass, Validity
from setpoint.requirement import LatencyMetric, Slos

if TYPE_CHECKING:
    from setpoint.workload.plan import PhaseSpan

CLIENT_ERROR_SHARE = 0.10
DEFAULT_LIMIT_S = 0.5
SEND_FLOOR_S = 0.010
STAMP_FLOOR_S = 0.005
UNSENT_SHARE_MAX = 0.01
CPU_SHARE_MAX = 0.90
PHASE_ROWS_MIN = 20

_FROM_SEND = (LatencyMetric.TTFT, LatencyMetric.E2E)
_BETWEEN_STAMPS = (LatencyMetric.ITL, LatencyMetric.TPOT)
_POOL_WAIT = "wait for a free connection"
_FIX_POOL = "Its connections ran out: give the limit you want to measure with (--max-in-flight), or lower the rate."
_FIX = "Give the client a core of its own, spread it over more processes (--workers), or lower the rate."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCheck:
    """How the client fared. Lags in seconds; shares of one core.

    send_lag: intended time to the moment the client took the request up; a connection limit or a slow connect is not in
    it. hold: that moment to the bytes on the socket, of which pool_wait is the wait for a connection limit and connect
    the opening of a connection. loop_lag: lateness of the event loop's timers. held_back counts requests that waited for
    a connection limit. cpu_s: of the client's threads, reading of the answers included; cpu_share: of the busiest of
    them while the load ran. machine_cpu_share: of all cores, everybody included. workers: how many processes sent.
    failures: why workers ended early. loop_lags: the histogram behind loop_lag.
    """

    send_lag_p50_s: float | None
    send_lag_p99_s: float | None
    send_lag_max_s: float | None
    hold_p99_s: float | None
    loop_lag_p50_s: float | None
    loop_lag_p99_s: float | None
    loop_lag_max_s: float | None
    cpu_s: float
    cpu_share: float
    machine_cpu_share: float
    tokens_per_cpu_s: float | None
    connections_opened: int
    in_flight_peak: int
    held_back: int
    pool_wait_p99_s: float | None = None
    connect_p99_s: float | None = None
    workers: int = 1
    failures: tuple[str, ...] = ()
    loop_lags: LogHistogram | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ClientError:
    """The client's part in one latency: at most ``error_s`` of it (P99), where ``bound_s`` would be let pass.

    of: the latency. stated: whether ``limit_s`` is the tightest limit of the SLOs; otherwise it stands in for one.
    parts_s: what the error is the sum of, in words.
    """

    of: LatencyMetric
    stated: bool
    limit_s: float
    error_s: float
    bound_s: float
    parts_s: dict[str, float]

    @property
    def too_large(self) -> bool:
        """Whether it spoils the run."""
        return self.error_s > self.bound_s

    @property
    def fair(self) -> str:
        """Where the bound comes from, in words."""
        stands_in = "" if self.stated else " that is usual, for none is stated"
        limit = f"{self.of.value.upper()} limit of {self.limit_s * 1e3:.0f} ms{stands_in}"
        share = f"{CLIENT_ERROR_SHARE:.0%} of the {limit}"
        return share if self.bound_s <= CLIENT_ERROR_SHARE * self.limit_s else f"more than {share}"


class CpuMeter:
    """CPU time of the calling thread and of the machine from construction on."""

    def __init__(self) -> None:
        self._thread_s = time.thread_time()
        self._wall_s = time.monotonic()
        self._machine = psutil.cpu_times()

    def thread_s(self) -> float:
        """CPU seconds of this thread since the start."""
        return time.thread_time() - self._thread_s

    def thread_share(self) -> float:
        """CPU seconds of this thread per second since the start, over one second at least."""
        return self.thread_s() / max(1.0, time.monotonic() - self._wall_s)

    def machine_share(self) -> float:
        """Busy share of all cores since the start."""
        now = psutil.cpu_times()
        total = sum(now) - sum(self._machine)
        idle = now.idle - self._machine.idle + getattr(now, "iowait", 0.0) - getattr(self._machine, "iowait", 0.0)
        return min(1.0, max(0.0, 1.0 - idle / total)) if total > 0 else 0.0


def client_check(
    rows: Sequence[RequestOutcome],
    lag: LagMonitor,
    *,
    cpu_s: float,
    cpu_share: float,
    machine_cpu_share: float,
    connections_opened: int,
    in_flight_peak: int,
    held_back: int,
    workers: int = 1,
    failures: tuple[str, ...] = (),
) -> ClientCheck:
    """Put the account of one client, or of several, together from the rows and the meters."""
    loop_lags = lag.lag_s
    lags = _differences(rows, "intended_s", "dispatched_s")
    tokens = sum(row.output_tokens for row in rows)
    return ClientCheck(
        send_lag_p50_s=_percentile(lags, 50),
        send_lag_p99_s=_percentile(lags, 99),
        send_lag_max_s=max(lags) if lags else None,
        hold_p99_s=_percentile(_differences(rows, "dispatched_s", "sent_s"), 99),
        loop_lag_p50_s=loop_lags.percentile(50),
        loop_lag_p99_s=loop_lags.percentile(99),
        loop_lag_max_s=loop_lags.max_s if loop_lags.n else None,
        cpu_s=cpu_s,
        cpu_share=cpu_share,
        machine_cpu_share=machine_cpu_share,
        tokens_per_cpu_s=tokens / cpu_s if tokens and cpu_s > 0 else None,
        connections_opened=connections_opened,
        in_flight_peak=in_flight_peak,
        held_back=held_back,
        pool_wait_p99_s=_percentile(pool_waits(rows), 99),
        connect_p99_s=_percentile(_differences(rows, "connect_started_s", "connected_s"), 99),
        workers=workers,
        failures=failures,
        loop_lags=loop_lags,
    )


def judge_client(
    client: ClientCheck,
    rows: Sequence[RequestOutcome],
    slos: Slos,
    *,
    limited: bool = False,
    phases: Sequence[PhaseSpan] = (),
) -> Validity:
    """Whether the rows may be believed: the rules are in the head of this module.

    limited: the user set a limit of requests in flight, so that what it holds back is not the client's fault.
    phases: where arrivals are compared with the plan; without them they are not.
    """
    reasons = [f"{failure}; they count as dropped." for failure in client.failures]
    reasons += [_too_large(error) for error in client_errors(client, rows, slos, limited=limited) if error.too_large]
    for span, fidelity in fidelity_by_phase(rows, phases):
        reasons += [f"In the {span.phase.value} phase {fault}: the client distorted the load." for fault in fidelity.reasons]
    if client.cpu_share > CPU_SHARE_MAX:
        reasons.append(f"The client used {client.cpu_share:.0%} of its core, so it was a bottleneck itself. {_FIX}")
    unsent = sum(is_unsent(row) for row in rows)
    if unsent > UNSENT_SHARE_MAX * len(rows) and not limited and not client.failures:
        reasons.append(f"The client did not send {unsent} of {len(rows)} requests before the end of the run.")
    if not rows:
        reasons.append("The plan held no request.")
    elif all(row.status is None for row in rows):
        error = next((row.error for row in rows if row.error), "no error was reported")
        reasons.append(f"Not one request got an answer from the server: {error}.")
    return Validity(valid=not reasons, reasons=reasons)


def client_errors(
    client: ClientCheck, rows: Sequence[RequestOutcome], slos: Slos, *, limited: bool = False
) -> list[ClientError]:
    """The client's part in latencies from the intended send, and in gaps between tokens."""
    loop_s = client.loop_lag_p99_s or 0.0
    from_send = {"lag of sends": _worst_send_lag_s(rows), "lag of its event loop": loop_s}
    if not limited:
        from_send[_POOL_WAIT] = client.pool_wait_p99_s or 0.0
    return [
        _client_error(slos, _FROM_SEND, SEND_FLOOR_S, from_send),
        _client_error(slos, _BETWEEN_STAMPS, STAMP_FLOOR_S, {"lag of its event loop": loop_s}),
    ]


def fidelity_by_phase(
    rows: Sequence[RequestOutcome], phases: Sequence[PhaseSpan], *, on_the_wire: bool = False
) -> list[tuple[PhaseSpan, ArrivalFidelity]]:
    """Arrivals of each phase against the plan: as the client took them up, or as they went ``on_the_wire``.

    Requests that were left out because an earlier turn of their conversation failed are no arrivals.
    """
    there = [row for row in rows if row.request_class is not RequestClass.DROPPED or is_unsent(row)]
    intended_s = np.array([row.intended_s for row in there])
    went = [row.sent_s if on_the_wire else row.dispatched_s for row in there]
    went_s = np.array([np.nan if time_s is None else time_s for time_s in went])
    return [(span, arrival_fidelity(intended_s, went_s, span.start_s, span.end_s)) for span in phases if span.duration_s > 0]


def pool_waits(rows: Iterable[RequestOutcome]) -> list[float]:
    """How long each request that was taken up waited for a connection to be free or to be opened for it."""
    waits = []
    for row in rows:
        begun_s = row.sent_s if row.connect_started_s is None else row.connect_started_s
        if begun_s is not None and row.dispatched_s is not None:
            waits.append(begun_s - row.dispatched_s)
    return waits


def is_unsent(row: RequestOutcome) -> bool:
    """Whether the client failed to send it; a turn whose conversation broke off is not the client's fault."""
    return row.request_class is RequestClass.DROPPED and row.error != CONVERSATION_OVER


def _client_error(slos: Slos, metrics: Sequence[LatencyMetric], floor_s: float, parts_s: dict[str, float]) -> ClientError:
    limits = [(limit_s, metric) for metric in metrics if (limit_s := slos.limit_s(metric)) is not None]
    limit_s, metric = min(limits, default=(DEFAULT_LIMIT_S, metrics[0]))
    bound_s = max(floor_s, CLIENT_ERROR_SHARE * limit_s)
    return ClientError(metric, bool(limits), limit_s, sum(parts_s.values()), bound_s, parts_s)


def _too_large(error: ClientError) -> str:
    parts = " + ".join(f"{name} {part_s * 1e3:.1f} ms" for name, part_s in error.parts_s.items() if part_s > 0)
    fix = _FIX_POOL if 2.0 * error.parts_s.get(_POOL_WAIT, 0.0) > error.error_s else _FIX
    return (
        f"The client's own error in {error.of.value.upper()} is {error.error_s * 1e3:.1f} ms (P99: {parts}); "
        f"{error.bound_s * 1e3:.1f} ms would be let pass ({error.fair}). {fix}"
    )


def _worst_send_lag_s(rows: Sequence[RequestOutcome]) -> float:
    """P99 of the lag of sends in the phase where it is largest, so that a short burst does not hide in a long run."""
    by_phase: dict[Phase, list[float]] = {}
    for row in rows:
        if row.dispatched_s is not None and row.phase is not Phase.WARMUP:
            by_phase.setdefault(row.phase, []).append(row.dispatched_s - row.intended_s)
    enough = [lags for lags in by_phase.values() if len(lags) >= PHASE_ROWS_MIN] or list(by_phase.values())
    return max((_percentile(lags, 99) or 0.0 for lags in enough), default=0.0)


def _differences(rows: Iterable[RequestOutcome], earlier: str, later: str) -> list[float]:
    """``later`` minus ``earlier`` of every row that has both."""
    pairs = ((getattr(row, earlier), getattr(row, later)) for row in rows)
    return [end_s - begin_s for begin_s, end_s in pairs if begin_s is not None and end_s is not None]


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(np.array(values), percent)) if len(values) else None
