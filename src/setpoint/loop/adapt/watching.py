"""The quantities that are watched for drift, fed from the engine's records."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from statistics import median

from setpoint.engine.request import RequestStats
from setpoint.loop.adapt.drift import Drift, Stream, distribution_bound, rate_bound
from setpoint.loop.adapt.profile import WHOLE, Asked
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import Sample, StepTimeModel
from setpoint.policy.views import FloatColumn

Bound = Callable[[FloatColumn, FloatColumn], float]

RECENT, RECENT_GAPS, RECENT_BLOCKS = 32, 64, 20
LEAST_REFERENCE = 64
BLOCK_S = 4.0
LEAST_BLOCK_STEPS = 8
LEAST_SLOWDOWN = 0.15
"""A change of step time below this decides nothing, however sure it is."""
STEP_TIME = "step_time"
ARRIVALS = ("arrival_gaps", "arrival_rate")
TESTS: dict[str, tuple[str, Bound]] = {
    "prompt_tokens": ("prompt_tokens", distribution_bound),
    "uncached_tokens": ("uncached_tokens", distribution_bound),
    "output_tokens": ("output_tokens", distribution_bound),
    "streaming": ("streaming", distribution_bound),
    "arrival_gaps": ("arrival_gaps", distribution_bound),
    "arrival_rate": ("arrival_gaps", rate_bound),
    STEP_TIME: (STEP_TIME, distribution_bound),
}
"""What is tested: on which stream, by which bound."""


class StepSpeed:
    """Seconds of steps against a model that learns no more: the median of ln(measured / predicted) for each ``BLOCK_S``.

    The model is fitted on the steps it is given to begin with (``policy/step_time.py``); blocks, because steps of one moment
    share that moment's neighbours on the machine and are no independent samples.
    """

    def __init__(self, samples: list[Sample]) -> None:
        self._model = StepTimeModel()
        for work, seconds in samples:
            self._model.observe(work, seconds)
        self._block: list[float] = []
        self._began_s: float | None = None
        self._last_tokens = -1

    def step(self, work: StepWork, start_s: float, end_s: float) -> tuple[float, float] | None:
        """One step; gives moment and median of a block that is complete."""
        predicted_s = self._model.predict_s(work)
        predicted_s += self._model.change_s if work.tokens != self._last_tokens else 0.0
        self._last_tokens = work.tokens
        full = None
        if self._began_s is not None and start_s - self._began_s >= BLOCK_S:
            if len(self._block) >= LEAST_BLOCK_STEPS:
                full = (start_s, median(self._block))
            self._block, self._began_s = [], None
        if self._began_s is None:
            self._began_s = start_s
        if predicted_s > 0 and end_s > start_s:
            self._block.append(log((end_s - start_s) / predicted_s))
        return full


class DriftWatch:
    """All streams. ``look`` every ``look_s`` gives the drifts that were found and begins those streams anew."""

    def __init__(self, *, false_alarms_per_hour: float, look_s: float) -> None:
        self.level = false_alarms_per_hour * look_s / 3600.0 / len(TESTS)
        self._streams = {
            "prompt_tokens": Stream(RECENT, LEAST_REFERENCE),
            "uncached_tokens": Stream(RECENT, LEAST_REFERENCE),
            "output_tokens": Stream(RECENT, LEAST_REFERENCE),
            "streaming": Stream(RECENT, LEAST_REFERENCE),
            "arrival_gaps": Stream(RECENT_GAPS, LEAST_REFERENCE),
            STEP_TIME: Stream(RECENT_BLOCKS, LEAST_REFERENCE // 2),
        }
        self._speed: StepSpeed | None = None
        self._last_s: float | None = None

    def asked(self, request: Asked) -> None:
        """A request came."""
        self._streams["prompt_tokens"].add(request.at_s, float(request.prompt_tokens))
        self._streams["uncached_tokens"].add(request.at_s, float(request.uncached_tokens))
        if self._last_s is not None:
            self._streams["arrival_gaps"].add(request.at_s, request.at_s - self._last_s)
        self._last_s = request.at_s

    def ended(self, stats: RequestStats) -> None:
        """A request is over."""
        if stats.finish_reason in WHOLE:
            self._streams["output_tokens"].add(stats.ended_s, float(stats.output_tokens))
            self._streams["streaming"].add(stats.ended_s, float(stats.streaming))

    def machine(self, samples: list[Sample]) -> None:
        """Hold steps against these from now on."""
        self._speed = StepSpeed(samples)
        self._streams[STEP_TIME].restart(float("inf"))

    def step(self, work: StepWork, start_s: float, end_s: float) -> None:
        """The engine made a step."""
        block = None if self._speed is None else self._speed.step(work, start_s, end_s)
        if block is not None:
            self._streams[STEP_TIME].add(*block)

    def look(self, now_s: float) -> list[Drift]:
        """The quantities that changed, each told once; each of its streams is compared with what came after the change."""
        found = []
        for quantity, (name, bound) in TESTS.items():
            samples = self._streams[name].both
            if samples is None:
                continue
            chance = bound(*samples)
            after, before = float(samples[0].mean()), float(samples[1].mean())
            if chance > self.level or (quantity == STEP_TIME and abs(after - before) < LEAST_SLOWDOWN):
                continue
            stream = self._streams[name]
            since_s = stream.changed_at_s()
            stream.restart(since_s)
            found.append(Drift(quantity, since_s, now_s, before, after, chance))
        return found
