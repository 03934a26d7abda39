"""What a step gives a sequence, and what the loop counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from setpoint.engine.request import FinishReason
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import Admit, Reject


@dataclass(frozen=True, slots=True)
class Emission:
    """What a sequence gained: a token, an end, or both. ``retry_after_s`` comes with ``SHED``."""

    sequence: Sequence
    token: int | None = None
    finish_reason: FinishReason | None = None
    message: str = ""
    retry_after_s: float | None = None


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    shed: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    admissions: dict[tuple[str, str], int] = field(default_factory=dict)

    def admission(self, decision: Admit | Reject) -> None:
        """Count a decision by what it was and its reason's code."""
        key = ("reject" if isinstance(decision, Reject) else "admit", decision.reason.code)
        self.admissions[key] = self.admissions.get(key, 0) + 1
