"""The client's account of itself for ``report.json`` (``validity.client``): every figure its verdict was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.capacity import Capacity, cached_capacity
from setpoint.measure.fidelity import ArrivalFidelity
from setpoint.measure.self_check import (
    CLIENT_ERROR_SHARE,
    CPU_SHARE_MAX,
    ClientCheck,
    ClientError,
    client_errors,
    fidelity_by_phase,
)
from setpoint.requirement import LatencyMetric, Slos

if TYPE_CHECKING:
    from setpoint.measure.outcome import RequestOutcome
    from setpoint.measure.result import LoadResult

CPU_SHARE_WARNING = 0.70
MACHINE_SHARE_WARNING = 0.95
HELD_BACK_SHARE_WARNING = 0.01
WHOLE_SHARE_WARNING = 0.05
_GAPS_READ_MAX = 2_000_000
FEWEST_TOKENS = 3
"""Two tokens may well come together."""


def client_account(result: LoadResult, *, slos: Slos | None = None, capacity: Capacity | None = None) -> dict[str, Any]:
    """How the client fared, as JSON-able values; times in seconds, ``None`` where unknown.

    slos: what its error is compared with, by default those of the options. capacity: what a worker on this machine is
    good to, by default what a calibration of it left.
    """
    slos = result.options.slos if slos is None else slos
    capacity = cached_capacity() if capacity is None else capacity
    client, rows, limit = result.client, result.outcomes, result.options.max_in_flight
    errors = client_errors(client, rows, slos, limited=limit is not None)
    arrivals = fidelity_by_phase(rows, result.phases)
    on_the_wire = fidelity_by_phase(rows, result.phases, on_the_wire=True)
    load = _peak_load(rows, client.workers)
    return {
        "workers": client.workers,
        "failures": list(client.failures),
        "send_lag_s": {"p50": client.send_lag_p50_s, "p99": client.send_lag_p99_s, "max": client.send_lag_max_s},
        "loop_lag_s": {"p50": client.loop_lag_p50_s, "p99": client.loop_lag_p99_s, "max": client.loop_lag_max_s},
        "hold_s": {"p99": client.hold_p99_s, "pool_wait_p99": client.pool_wait_p99_s, "connect_p99": client.connect_p99_s},
        "cpu": {
            "seconds": client.cpu_s,
            "busiest_core_share": client.cpu_share,
            "headroom_share": max(0.0, 1.0 - client.cpu_share),
            "machine_share": client.machine_cpu_share,
            "output_tokens_per_cpu_s": client.tokens_per_cpu_s,
        },
        "connections": {
            "opened": client.connections_opened,
            "in_flight_peak": client.in_flight_peak,
            "limit": result.options.in_flight_limit,
            "max_in_flight": limit,
            "requests_held_back": client.held_back,
        },
        "error_share_allowed": CLIENT_ERROR_SHARE,
        "errors": [_error_fields(error) for error in errors],
        "arrivals": [
            {"phase": span.phase.value, "start_s": span.start_s, "end_s": span.end_s}
            | fidelity.as_dict()
            | {"on_the_wire": {"faithful": wire.faithful, "reasons": list(wire.reasons), "lag_p99_s": wire.lag_p99_s}}
            for (span, fidelity), (_, wire) in zip(arrivals, on_the_wire, strict=True)
        ],
        "load_per_worker": load,
        "capacity": None if capacity is None else capacity.as_dict(),
        "warnings": [
            *whole_warnings(rows),
            *_error_warnings(errors, rows),
            *_resource_warnings(client, len(rows)),
            *_wire_warnings([(span.phase.value, wire) for span, wire in on_the_wire], limit),
            *_capacity_warnings(load, capacity),
        ],
    }


def whole_warnings(rows: list[RequestOutcome]) -> list[str]:
    """Streams that came all at once: by a server that does not stream, or through a proxy that holds answers back."""
    streams = [row for row in rows if row.streaming and row.completed and row.token_times_s.size >= FEWEST_TOKENS]
    whole = sum(not np.ptp(row.token_times_s) for row in streams)
    if whole <= WHOLE_SHARE_WARNING * len(streams):
        return []
    warning = (
        f"{whole} of {len(streams)} streams came in one piece, so ITL, TPOT and stalls say nothing of them, and their TTFT is "
        "their E2E: does the server stream, and does a proxy hold answers back?"
    )
    return [warning]


def _error_fields(error: ClientError) -> dict[str, Any]:
    return {
        "of": error.of.value,
        "limit_s": error.limit_s,
        "limit_stated": error.stated,
        "error_p99_s": error.error_s,
        "error_share_of_limit": error.error_s / error.limit_s,
        "bound_s": error.bound_s,
        "too_large": error.too_large,
        "parts_s": dict(error.parts_s),
    }


def _error_warnings(errors: list[ClientError], rows: list[RequestOutcome]) -> list[str]:
    """Errors that do not spoil the run, but are large beside a tight limit, or beside what was measured without one."""
    warnings = []
    for error in errors:
        compared_s, what = error.limit_s, "limit"
        if not error.stated:
            measured_s = _measured_p99_s(rows, error.of)
            if measured_s is None:
                continue
            compared_s, what = measured_s, "measured P99"
        if not error.too_large and error.error_s > CLIENT_ERROR_SHARE * compared_s:
            warnings.append(
                f"The client's own error in {error.of.value.upper()} is up to {error.error_s * 1e3:.1f} ms (P99), "
                f"{error.error_s / compared_s:.0%} of the {what} of {compared_s * 1e3:.1f} ms."
            )
    return warnings


def _measured_p99_s(rows: list[RequestOutcome], metric: LatencyMetric) -> float | None:
    """Rough P99 of TTFT (E2E where nothing streams) or of the gaps, for comparison only."""
    if metric is LatencyMetric.ITL:
        pieces, read = [], 0
        for row in rows:
            pieces.append(np.diff(row.token_times_s))
            read += row.token_times_s.size
            if read > _GAPS_READ_MAX:
                break
        values = np.concatenate(pieces) if pieces else np.empty(0)
    else:
        seen = [row.ttft_s if row.streaming else row.e2e_s for row in rows]
        values = np.array([value for value in seen if value is not None])
    return float(np.percentile(values, 99)) if values.size and values.any() else None


def _resource_warnings(client: ClientCheck, offered: int) -> list[str]:
    warnings = []
    if CPU_SHARE_WARNING < client.cpu_share <= CPU_SHARE_MAX:
        warnings.append(f"The client used {client.cpu_share:.0%} of its core: there is little headroom; add --workers.")
    if client.machine_cpu_share > MACHINE_SHARE_WARNING:
        warnings.append(
            f"All cores of the client's machine together were {client.machine_cpu_share:.0%} busy: "
            "what ran beside the client slowed it, or was slowed by it."
        )
    if client.held_back > HELD_BACK_SHARE_WARNING * offered:
        wait = "" if client.pool_wait_p99_s is None else f", by {client.pool_wait_p99_s * 1e3:.0f} ms (P99)"
        warnings.append(
            f"{client.held_back} of {offered} requests waited in the client for its limit of requests in flight{wait}; "
            "latencies from the intended send include that wait."
        )
    return warnings


def _wire_warnings(phases: list[tuple[str, ArrivalFidelity]], limit: int | None) -> list[str]:
    cause = f"because at most {limit} may be in flight" if limit else "because connections were slow to open or ran out"
    return [f"In the {phase} phase {reason} on the wire, {cause}." for phase, fidelity in phases for reason in fidelity.reasons]


def _peak_load(rows: list[RequestOutcome], workers: int) -> dict[str, float]:
    """Requests and output tokens per second and worker in the busiest second."""

    def busiest(times_s: NDArray[np.float64]) -> float:
        return float(np.bincount(times_s[times_s >= 0].astype(np.int64)).max()) if (times_s >= 0).any() else 0.0

    sent_s = np.array([row.sent_s for row in rows if row.sent_s is not None])
    tokens_s = np.concatenate([row.token_times_s for row in rows]) if rows else np.empty(0)
    return {"requests_per_s": busiest(sent_s) / workers, "output_tokens_per_s": busiest(tokens_s) / workers}


def _capacity_warnings(load: dict[str, float], capacity: Capacity | None) -> list[str]:
    if capacity is None:
        return []
    share = capacity.share(tokens_per_s=load["output_tokens_per_s"], requests_per_s=load["requests_per_s"])
    if share <= 1.0:
        return []
    busiest = f"{load['output_tokens_per_s']:,.0f} tokens/s and {load['requests_per_s']:,.0f} requests/s per worker"
    return [f"The busiest second had {busiest}, {share:.1f} times its capacity ({capacity.words()}); add --workers."]
