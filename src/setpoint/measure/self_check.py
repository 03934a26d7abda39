"""The client's account of itself, and whether a run may be believed.

A run is invalid when the client's own error exceeds ``CLIENT_ERROR_SHARE`` of what the SLOs limit: its lag behind the
arrival list against the tightest TTFT or E2E limit, its event loop's lag (every stamp may be late by it) against the
tightest ITL or TPOT limit; when it left requests unsent; when its core was full; or when nothing answered at all.
Without a limit to compare with, ``DEFAULT_LIMIT_S`` stands for it. ``FLOOR_S`` is what timers and a shared machine
always cost: below it nothing is objected to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from setpoint.measure.event_loop import LagMonitor
from setpoint.measure.outcome import RequestOutcome
from setpoint.record import RequestClass, Validity
from setpoint.requirement import LatencyMetric, Slos

CLIENT_ERROR_SHARE = 0.10
DEFAULT_LIMIT_S = 0.5
FLOOR_S = 0.010
UNSENT_SHARE_MAX = 0.01
CPU_SHARE_MAX = 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCheck:
    """How the client fared. Lags in seconds; shares of one core.

    send_lag: intended time to the moment the client took the request up; a connection limit or a slow connect is not in
    it. hold: that moment to the bytes on the socket. loop_lag: lateness of the event loop's timers. held_back counts
    requests that waited for a connection limit. cpu_s: of the client's thread, reading of the answers included;
    cpu_share: of that thread while the load ran. machine_cpu_share: of all cores, everybody included.
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
) -> ClientCheck:
    """Put the client's account together from the rows and the meters."""
    lags = [row.dispatched_s - row.intended_s for row in rows if row.dispatched_s is not None]
    holds = [row.sent_s - row.dispatched_s for row in rows if row.sent_s is not None and row.dispatched_s is not None]
    tokens = sum(row.output_tokens for row in rows)
    return ClientCheck(
        send_lag_p50_s=_percentile(lags, 50),
        send_lag_p99_s=_percentile(lags, 99),
        send_lag_max_s=max(lags) if lags else None,
        hold_p99_s=_percentile(holds, 99),
        loop_lag_p50_s=lag.lag_s.percentile(50),
        loop_lag_p99_s=lag.lag_s.percentile(99),
        loop_lag_max_s=lag.lag_s.max_s if lag.lag_s.n else None,
        cpu_s=cpu_s,
        cpu_share=cpu_share,
        machine_cpu_share=machine_cpu_share,
        tokens_per_cpu_s=tokens / cpu_s if tokens and cpu_s > 0 else None,
        connections_opened=connections_opened,
        in_flight_peak=in_flight_peak,
        held_back=held_back,
    )


def judge_client(client: ClientCheck, rows: Sequence[RequestOutcome], slos: Slos, *, limited: bool = False) -> Validity:
    """Whether the rows may be believed: the rules are in the head of this module.

    limited: the user set a limit of requests in flight, so that unsent requests are not the client's fault.
    """
    reasons = []
    send_bound_s = _bound_s(slos, LatencyMetric.TTFT, LatencyMetric.E2E)
    if client.send_lag_p99_s is not None and client.send_lag_p99_s > send_bound_s:
        reasons.append(
            f"The client took requests up {client.send_lag_p99_s * 1e3:.1f} ms late (P99); "
            f"{send_bound_s * 1e3:.1f} ms would be fair. Give it a core of its own or lower the rate."
        )
    stamp_bound_s = _bound_s(slos, LatencyMetric.ITL, LatencyMetric.TPOT)
    if client.loop_lag_p99_s is not None and client.loop_lag_p99_s > stamp_bound_s:
        reasons.append(
            f"The client's event loop was {client.loop_lag_p99_s * 1e3:.1f} ms late (P99), and so are the token times; "
            f"{stamp_bound_s * 1e3:.1f} ms would be fair. Give it a core of its own or lower the rate."
        )
    if client.cpu_share > CPU_SHARE_MAX:
        reasons.append(f"The client used {client.cpu_share:.0%} of its core, so it was a bottleneck itself.")
    unsent = sum(row.request_class is RequestClass.DROPPED for row in rows)
    if unsent > UNSENT_SHARE_MAX * len(rows) and not limited:
        reasons.append(f"The client did not send {unsent} of {len(rows)} requests before the end of the run.")
    if not rows:
        reasons.append("The plan held no request.")
    elif all(row.status is None for row in rows):
        error = next((row.error for row in rows if row.error), "no error was reported")
        reasons.append(f"Not one request got an answer from the server: {error}.")
    return Validity(valid=not reasons, reasons=reasons)


def _bound_s(slos: Slos, *metrics: LatencyMetric) -> float:
    """The client error that is let pass for the tightest limit among ``metrics``."""
    limits = [limit_s for metric in metrics if (limit_s := slos.limit_s(metric)) is not None]
    return max(FLOOR_S, CLIENT_ERROR_SHARE * min(limits, default=DEFAULT_LIMIT_S))


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(np.array(values), percent)) if len(values) else None
