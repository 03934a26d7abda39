"""What became of every request, as columns: the only thing a simulation keeps of a request that is over."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from setpoint.policy.views import FloatColumn, IntColumn


class Ending(IntEnum):
    """How a request ended. ``WAITS``: it was still there when the simulation ended."""

    WAITS = 0
    SERVED = 1
    REFUSED = 2
    SHED = 3
    IMPOSSIBLE = 4


class Ledger:
    """Columns of one length, NaN where a moment never came. Seconds on the simulation's clock, in the engine.

    ended_s: of a refusal when it was made. tokens: output tokens that came. gap_s: the largest gap. late_gaps: by limit of
    ``GapAccount.limits_s``, how many gaps were longer, shape (limits, requests). replica: where it was sent.
    """

    def __init__(self, requests: int, limits: int) -> None:
        self.ending: IntColumn = np.zeros(requests, dtype=np.int8)
        self.replica: IntColumn = np.zeros(requests, dtype=np.int16)
        self.joined_s: FloatColumn = np.full(requests, np.nan)
        self.first_s: FloatColumn = np.full(requests, np.nan)
        self.last_s: FloatColumn = np.full(requests, np.nan)
        self.ended_s: FloatColumn = np.full(requests, np.nan)
        self.retry_after_s: FloatColumn = np.full(requests, np.nan)
        self.tokens: IntColumn = np.zeros(requests, dtype=np.int32)
        self.cached_tokens: IntColumn = np.zeros(requests, dtype=np.int32)
        self.preemptions: IntColumn = np.zeros(requests, dtype=np.int16)
        self.gap_s: FloatColumn = np.full(requests, np.nan)
        self.late_gaps: IntColumn = np.zeros((limits, requests), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.ending)
