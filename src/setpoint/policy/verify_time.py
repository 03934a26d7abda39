"""What a step of drafts takes beyond the step-time model: kernels have tiers that a line cannot follow.

On a CPU a step of 4 tokens of one sequence may take 16 ms, one of 5 tokens 24 ms, and one of 16 tokens 25 ms. For steps that
only decode, the logarithm of measured over predicted seconds is kept by (sequences, draft tokens) and added to the
model's prediction; between known numbers of draft tokens it is interpolated, and a number of sequences never seen takes the
nearest that was. The model follows the machine's speed, so the table holds only the shape of its steps.

``DraftTime`` is the drafter's own cost: ``d0 * rounds + d1 * drafted + d2 * read`` tokens, non-negative least squares over
recent steps. Where they are all alike (always as many requests, drafts of one length) only the sum is known, not its parts.
When it is wrong: until a shape was seen; the warm-up of the engine shows it the usual ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Final

import numpy as np

from setpoint.policy.decisions import StepResult, StepWork
from setpoint.policy.step_time import StepTimeModel, non_negative_least_squares
from setpoint.policy.views import FloatColumn, IntColumn

FIRST_STEP, LATER_STEP = 0.7, 0.2
SLOWEST_RATE: Final = 0.1
EXACT: Final = 16
COARSE: Final = 4
DECAY: Final = 0.98
RIDGE: Final = 1e-3
LEAST_S: Final = 1e-9
LEAST_APART: Final = 0.01
"""Least eigenvalue of the correlations of rounds, drafted and read tokens with which each has a price of its own: below it the
noise of single steps makes prices wrong by more than about a seventh."""


class VerifyTime:
    """Predicts steps of ``sequences`` decodes with draft tokens beside them. ``model`` is shared, and taught elsewhere."""

    def __init__(self, model: StepTimeModel) -> None:
        self._model = model
        self._rows: dict[int, dict[int, tuple[float, int]]] = {}
        self._last_tokens = -1

    def predict_s(self, sequences: int, context_tokens: int, extra: IntColumn) -> FloatColumn:
        """Seconds of a step with ``extra`` draft tokens in all, a change of its number of tokens not counted: [len(extra)].

        context_tokens: KV that the sequences hold together.
        """
        c0, c1, c2, c3, c4 = self._model.coefficients
        mean = context_tokens / max(1, sequences)
        tokens = sequences + extra
        line = c0 + c1 * tokens + c2 * sequences + c3 * (context_tokens + tokens) + c4 * tokens * mean
        row = self._row(sequences)
        if not row:
            return np.asarray(line, dtype=np.float64)
        known = sorted(row)
        residual = np.interp(extra, known, [row[each][0] for each in known])
        return np.asarray(line * np.exp(residual))

    @property
    def each_change_s(self) -> float:
        """What a step of another number of tokens than the last costs more."""
        return self._model.change_s

    def change_s(self, tokens: IntColumn) -> FloatColumn:
        """What each of these numbers of tokens costs more for not being that of the last step."""
        return np.where(tokens == self._last_tokens, 0.0, self._model.change_s)

    def observe(self, work: StepWork, seconds: float, drafted: int) -> None:
        """Learn from a step, before the model does. Only steps without prompts say something here.

        Of a step of no time only the shape is noted, for the next.
        """
        changed = work.tokens != self._last_tokens
        self._last_tokens = work.tokens
        if work.tokens != work.sequences + drafted or seconds < LEAST_S:
            return
        expected_s = self._model.predict_s(work) + (self._model.change_s if changed else 0.0)
        row = self._rows.setdefault(work.sequences, {})
        extra = _rounded(drafted)
        residual, count = row.get(extra, (0.0, 0))
        most = FIRST_STEP if count < 4 else LATER_STEP
        error = log(seconds / max(expected_s, LEAST_S)) - residual
        row[extra] = (residual + max(SLOWEST_RATE, 1.0 / (count + 1.5)) * max(-most, min(most, error)), count + 1)

    def _row(self, sequences: int) -> dict[int, tuple[float, int]]:
        row = self._rows.get(sequences)
        # A row that only knows steps without drafts says nothing of tiers.
        if row is not None and len(row) > 2:
            return row
        rich = [each for each, cells in self._rows.items() if len(cells) > 2]
        if not rich:
            return row or {}
        return self._rows[min(rich, key=lambda each: abs(log(each / max(1, sequences))))]


class DraftTime:
    """Seconds that drafting takes, from its rounds (longest draft), the tokens of all drafts, and tokens read before."""

    def __init__(self) -> None:
        self._gram = np.zeros((3, 3))
        self._moment = np.zeros(3)
        self._coefficients = np.zeros(3)

    @property
    def coefficients_s(self) -> tuple[float, ...]:
        """Seconds a round, a drafted token and a token read."""
        return tuple(self._coefficients.tolist())

    @property
    def told_s(self) -> tuple[float, ...] | None:
        """``coefficients_s``, or ``None`` where recent steps were too much alike to tell them apart."""
        size = np.sqrt(np.diag(self._gram))
        if not size.all():
            return None
        least = np.linalg.eigvalsh(self._gram / np.outer(size, size))[0]
        return self.coefficients_s if least >= LEAST_APART else None

    def predict_s(self, rounds: IntColumn, drafted: IntColumn, read: IntColumn) -> FloatColumn:
        """Seconds of drafting, shapes as given."""
        first, second, third = self._coefficients
        return np.asarray(first * rounds + second * drafted + third * read, dtype=np.float64)

    def observe(self, rounds: int, drafted: int, read: int, seconds: float) -> None:
        """Learn from one drafting."""
        work = np.array([rounds, drafted, read], dtype=np.float64)
        self._gram = DECAY * self._gram + np.outer(work, work)
        self._moment = DECAY * self._moment + work * seconds
        self._coefficients = non_negative_least_squares(self._gram + np.eye(3) * RIDGE, self._moment)

    def learn(self, result: StepResult, behind: Mapping[int, int], reads: Sequence[int]) -> None:
        """Learn from a step. ``behind``: tokens to be read of texts, by request. ``reads``: who was only read for."""
        read = sum(behind.get(request_id, 0) for request_id in (*result.drafted, *reads))
        self.observe(max(result.drafted.values(), default=1), sum(result.drafted.values()), read, result.draft_s)


def _rounded(extra: int) -> int:
    return extra if extra <= EXACT else COARSE * round(extra / COARSE)
