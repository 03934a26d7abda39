"""What a user asserts of a run: one claim about one figure of one phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from setpoint.record import Phase
from setpoint.requirement import LatencyMetric

Kind = Literal["percentile", "mean", "max", "spread", "fraction", "count", "stalled", "rate"]
Sense = Literal["at_most", "at_least"]


@dataclass(frozen=True, slots=True)
class Assertion:
    """One claim about one phase: ``text`` as typed, ``limit`` in SI units.

    metric: a latency (``ttft``, ``itl``, ``tpot``, ``e2e``, ``queue_wait``, ``max_gap``) for the kinds percentile, mean,
    max and spread; ``goodput`` or a class for fraction and count; ``goodput_rps``, ``requests_per_s``,
    ``output_tokens_per_s`` or ``prompt_tokens_per_s`` for rate; empty for stalled. percentile: of the kind percentile.
    gap_s: of the kind stalled, the gap that counts as a stall.
    """

    text: str
    phase: Phase
    kind: Kind
    metric: str
    sense: Sense
    limit: float
    percentile: float | None = None
    gap_s: float | None = None

    @property
    def statistic(self) -> str:
        """The statistic as a check records it."""
        match self.kind:
            case "percentile":
                return f"p{self.percentile:g}"
            case "spread":
                return self.metric
            case "stalled":
                return f"{self.gap_s:g}s"
            case "mean" | "max":
                return self.kind
            case _:
                return "min" if self.sense == "at_least" else "max"

    @property
    def name(self) -> str:
        """The metric as a check records it."""
        match self.kind:
            case "spread":
                return "spread"
            case "stalled":
                return "stalled_fraction"
            case "fraction":
                return f"{self.metric}_fraction"
            case "count":
                return f"{self.metric}_count"
            case _:
                return self.metric

    @property
    def sees_failures(self) -> bool:
        """Whether a request that failed makes this claim less true."""
        if self.kind == "mean":
            return False
        if self.kind in ("percentile", "max", "spread"):
            return self.metric in (LatencyMetric.TTFT, LatencyMetric.E2E)
        return self.metric in ("goodput", "failed", "goodput_rps", "ok")
