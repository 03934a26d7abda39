"""The engine's own records as what the loop wants to know; each is read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from setpoint.engine.request import RequestStats
from setpoint.loop.adapt.profile import Asked, asked_in
from setpoint.policy.decisions import StepWork

MOST_STEPS = 4096
WORK_COLUMNS = (
    "start_s",
    "end_s",
    "prefill_tokens",
    "decode_tokens",
    "sequences",
    "kv_tokens_read",
    "attention_products",
)
STEP_COLUMNS = (*WORK_COLUMNS, "running", "draft_s")


class Records(Protocol):
    """The part of ``engine.service.EngineService`` that remembers."""

    def ended_requests(self, since: int) -> tuple[list[RequestStats], int]: ...

    def step_columns(self, since: int) -> tuple[dict[str, list[object]], int]: ...

    def decision_columns(self, since: int) -> tuple[dict[str, list[object]], int]: ...


class Reader:
    """Reads on from where it was; what is in the rings at the start is passed over."""

    def __init__(self, records: Records) -> None:
        self._records = records
        _, self._next_ended = records.ended_requests(0)
        _, self._next_step = records.step_columns(0)
        _, self._next_decision = records.decision_columns(0)

    def read(self) -> tuple[list[Asked], list[RequestStats], list[tuple[StepWork, float, float]]]:
        """Requests that asked, requests that ended, and steps with start and end, since the last call."""
        decisions, self._next_decision = self._records.decision_columns(self._next_decision)
        ended, self._next_ended = self._records.ended_requests(self._next_ended)
        steps, self._next_step = self._records.step_columns(self._next_step)
        return asked_in(decisions), ended, _works(steps)

    def newest_steps(self) -> dict[str, np.ndarray]:
        """Columns of the newest ``MOST_STEPS`` steps, as numbers."""
        columns, _ = self._records.step_columns(max(0, self._next_step - MOST_STEPS))
        return {name: np.array(columns[name], dtype=np.float64) for name in STEP_COLUMNS}


def _works(columns: Mapping[str, Sequence[object]]) -> list[tuple[StepWork, float, float]]:
    table = [np.array(columns[name], dtype=np.float64).tolist() for name in WORK_COLUMNS]
    return [
        (StepWork(int(prefill + decode), int(sequences), int(read), int(products)), start_s, end_s)
        for start_s, end_s, prefill, decode, sequences, read, products in zip(*table, strict=True)
    ]
