"""What the requirement asks of this server, as far as a live view can tell: limits at percentiles, spread, shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from setpoint.policy.views import RequestLimits

TTFT: Final = "ttft"
ITL: Final = "itl"
TPOT: Final = "tpot"
E2E: Final = "e2e"
QUEUE_WAIT: Final = "queue_wait"
# A request may bring an ITL limit without a percentile; then it is taken at this one.
USUAL_PERCENTILE: Final = 99.0

GapLimits = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LatencyCheck:
    """``percentile`` of ``metric`` (``ttft``, ``itl``, ``tpot``, ``e2e``, ``queue_wait``) at most ``limit_s``."""

    metric: str
    percentile: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class SpreadCheck:
    """P99 / P50 of ``metric`` at most ``limit``."""

    metric: str
    limit: float


@dataclass(frozen=True, slots=True)
class Objectives:
    """The limits a server is held to, over its requests. Without any, requests are judged by their own limits alone."""

    name: str = ""
    latency: tuple[LatencyCheck, ...] = ()
    spread: tuple[SpreadCheck, ...] = ()
    goodput_fraction_min: float | None = None
    shed_fraction_max: float | None = None

    def limits_s(self, metric: str) -> Iterator[float]:
        """The limits on ``metric``, at any percentile."""
        return (check.limit_s for check in self.latency if check.metric == metric)

    def gap_limits(self, limits: RequestLimits) -> GapLimits:
        """(limit in seconds, share of its own gaps that may be over it) of one request, least limit first.

        The objectives' own where the request is held to them, else its own limit at the usual percentile.
        """
        if limits.itl_s is None:
            return ()
        own = sorted((each.limit_s, each.percentile) for each in self.latency if each.metric == ITL)
        if not own or own[0][0] != limits.itl_s:
            own = [(limits.itl_s, USUAL_PERCENTILE)]
        return tuple((limit_s, 1.0 - percent / 100.0) for limit_s, percent in own)
