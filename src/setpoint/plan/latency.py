"""The one latency that candidates are compared by where latency is what is wanted."""

from __future__ import annotations

from setpoint.requirement import RequestProfile

PERCENT = 95.0


def latency_metric(profile: RequestProfile) -> str:
    """TTFT, or E2E where nothing streams; compared at P95, as the objective ``min_latency`` is everywhere."""
    return "ttft" if profile.streaming else "e2e"
