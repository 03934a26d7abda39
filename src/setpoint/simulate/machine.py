"""How long steps take on a machine that was measured: the step-time model, and how far off it was at each moment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import StepTimeModel

FloatColumn = npt.NDArray[np.float64]
BUSY_GAP_S = 0.25  # a longer pause between two steps is not the loop at work: it waited for something


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """Steps in order of time, as columns of one length. ``running``: requests that were in the engine when it ended."""

    start_s: FloatColumn
    end_s: FloatColumn
    prefill_tokens: FloatColumn
    decode_tokens: FloatColumn
    sequences: FloatColumn
    kv_tokens_read: FloatColumn
    attention_products: FloatColumn
    running: FloatColumn

    def __len__(self) -> int:
        return len(self.start_s)

    def work(self, place: int) -> StepWork:
        """What one of the steps computed."""
        return StepWork(
            tokens=int(self.prefill_tokens[place] + self.decode_tokens[place]),
            sequences=int(self.sequences[place]),
            kv_tokens_read=int(self.kv_tokens_read[place]),
            attention_products=int(self.attention_products[place]),
        )


@dataclass(slots=True)
class MeasuredMachine:
    """Seconds of a step at a moment: the model's, times how much slower than the model the machine was just then.

    The factor is that of the measured step that ran at the moment, or last before it: a neighbour that took a core for a
    second slows down whatever is computed in that second, under any policy. Nothing is drawn by chance.
    Formula: ``policy/step_time.py``, fitted on the measured steps. ``between_s``: the loop's own time between two steps.
    """

    model: StepTimeModel
    moments_s: FloatColumn
    slowness: FloatColumn
    between_s: float
    _last_tokens: int = field(default=-1, init=False)

    def step_s(self, work: StepWork, now_s: float) -> float:
        """Seconds that ``work`` takes if it begins at ``now_s`` and follows the work of the call before."""
        predicted_s = _predicted_s(self.model, work, self._last_tokens)
        self._last_tokens = work.tokens
        if not len(self.moments_s):
            return predicted_s
        place = int(np.searchsorted(self.moments_s, now_s, side="right")) - 1
        return predicted_s * float(self.slowness[max(0, place)])


def fitted_machine(steps: MeasuredSteps) -> MeasuredMachine:
    """The machine that ``steps`` were measured on."""
    model = StepTimeModel()
    seconds = steps.end_s - steps.start_s
    work = [steps.work(place) for place in range(len(steps))]
    for each, took_s in zip(work, seconds.tolist(), strict=True):
        model.observe(each, took_s)
    before = [-1, *(each.tokens for each in work)][: len(work)]
    predicted = np.array([_predicted_s(model, each, last) for each, last in zip(work, before, strict=True)], dtype=np.float64)
    slowness = seconds / np.maximum(predicted, 1e-9)
    gaps = steps.start_s[1:] - steps.end_s[:-1]
    busy = gaps[(steps.running[:-1] > 0) & (gaps >= 0) & (gaps < BUSY_GAP_S)]
    between_s = float(np.median(busy)) if len(busy) else 0.0
    return MeasuredMachine(model, steps.start_s, slowness, between_s)


def _predicted_s(model: StepTimeModel, work: StepWork, last_tokens: int) -> float:
    return model.predict_s(work) + (model.change_s if work.tokens != last_tokens else 0.0)
