"""What every step did and why, kept in a bounded ring for whoever asks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from itertools import islice

from setpoint.policy.decisions import Reason

RING_STEPS = 1 << 12


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step; the names are the columns of ``record.columns.STEP_COLUMNS``.

    drafts: requests with a draft. drafted, accepted: draft tokens verified and accepted. draft_s: seconds that drafting took
    before ``start_s``.
    """

    step: int
    start_s: float
    end_s: float
    predicted_s: float | None
    prefill_tokens: int
    decode_tokens: int
    sequences: int
    kv_tokens_read: int
    attention_products: int
    running: int
    waiting: int
    kv_used_blocks: int
    kv_blocks: int
    prefill_budget_tokens: int
    preempted: int
    shed: int
    reason: Reason
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    draft_s: float = 0.0


class StepRing:
    """The newest ``RING_STEPS`` steps."""

    def __init__(self, most: int = RING_STEPS) -> None:
        self._steps: deque[StepRecord] = deque(maxlen=most)
        self.total = 0
        self.seconds_total = 0.0

    def append(self, record: StepRecord) -> None:
        """Add one step, dropping the oldest when full."""
        self._steps.append(record)
        self.total += 1
        self.seconds_total += record.end_s - record.start_s

    def columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        """Steps numbered ``since`` and later as columns (reasons in words), and the number of the next step."""
        kept = list(self._steps)
        total = kept[-1].step + 1 if kept else 0
        first = total - len(kept)
        chosen = list(islice(kept, max(0, since - first), None))
        names = [field.name for field in fields(StepRecord)]
        table: dict[str, list[object]] = {name: [getattr(step, name) for step in chosen] for name in names}
        table["reason"] = [str(step.reason) for step in chosen]
        return table, total
