"""The live view of one server: accounts of its requests, a sample every second, the requirement over the last minute.

Kept whether or not anybody watches. Everything is bounded: ten minutes of samples, a minute of bins, the newest refusals. The
clock is handed in with every tick, so a test moves it.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from setpoint.engine.request import EngineFailed
from setpoint.engine.service import EngineGauges, EngineService
from setpoint.server.live.book import Ending, LiveBook
from setpoint.server.live.checks import E2E, ITL, QUEUE_WAIT, TTFT, Objectives
from setpoint.server.live.histogram import percentile_s
from setpoint.server.live.window import (
    LEAST_SLICE_S,
    CheckState,
    Slice,
    SliceRing,
    Span,
    latency_state,
    share_state,
    spread_state,
)

WINDOW_S: Final = 60.0
CURVE_S: Final = 10.0  # a point of a curve of percentiles covers this much
SAMPLES_KEPT: Final = 600
DIGITS: Final = 5
# Totals of the engine of which a slice keeps the increase.
_ENGINE_TOTALS: Final = {
    "output_tokens": "output_tokens_total",
    "prompt_tokens": "prompt_tokens_total",
    "prefix_queries": "prefix_queries_total",
    "prefix_hits": "prefix_hits_total",
    "preemptions": "preemptions_total",
    "steps": "steps_total",
}
SAMPLE_COLUMNS: Final = (
    "at_s", "span_s", "offered", *(str(each) for each in Ending), "goodput", "ttft_p50", "ttft_p99", "itl_p50", "itl_p99",
    "e2e_p50", "e2e_p99", "waiting", "running", "unfinished", "kv", "prefix_hit_rate", "output_tokens", "prompt_tokens",
    "preemptions", "steps", "step_p50", "step_p99", "error_p50", "error_p95",
)  # fmt: skip
_CURVES: Final = (TTFT, ITL, E2E)


def _short(value: float | int | None) -> float | int | None:
    """A number as JSON may hold it, not longer than anybody reads."""
    if value is None or not isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _numbers(columns: Mapping[str, list[object]], name: str) -> list[float]:
    return [float(each) for each in columns.get(name, ()) if isinstance(each, int | float)]


@dataclass(frozen=True, slots=True)
class StepsSeen:
    """The steps of the newest slice that had any: seconds of each, how often each reason, the newest in its own words."""

    seconds: tuple[float, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    newest: Mapping[str, str] = field(default_factory=dict)

    def percentile(self, percent: float) -> float | None:
        """Of the steps' seconds, the nearest rank."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))] if ordered else None


class LiveView:
    """``tick`` it about once a second; read ``samples``, ``window`` and ``checks`` whenever you like."""

    def __init__(
        self, engine: EngineService, objectives: Objectives | None = None, about: Mapping[str, object] | None = None
    ) -> None:
        """about: what the page shows as the serving configuration, names to plain values."""
        self.objectives = objectives or Objectives()
        self.about = dict(about or {})
        self.book = LiveBook(self.objectives)
        self.steps = StepsSeen()
        self.gauges: EngineGauges | None = None
        self.kv_peak = 0.0
        self._engine = engine
        self._ring = SliceRing(WINDOW_S)
        self._kv: deque[float] = deque(maxlen=int(WINDOW_S))
        self._samples: deque[str] = deque(maxlen=SAMPLES_KEPT)
        self._taken = 0
        self._totals: dict[str, int] = {}
        self._next_step = 0
        self._started_s: float | None = None
        self._last_s = 0.0

    @property
    def up_s(self) -> float:
        """Seconds from the first tick to the last."""
        return 0.0 if self._started_s is None else self._last_s - self._started_s

    def tick(self, now_s: float) -> None:
        """Close the present slice and keep a sample of it. The first call only starts the clock."""
        self._look_at_engine()
        if self._started_s is None:
            self._started_s = self._last_s = now_s
            self._increases()
            self.book.cut()
            return
        if now_s - self._last_s < LEAST_SLICE_S:
            return
        self._ring.add(Slice(self._last_s, now_s, self._increases(), self.book.cut()))
        self._last_s = now_s
        self._samples.append(json.dumps(self._sample(), separators=(",", ":")))
        self._taken += 1

    def samples(self, since: int) -> tuple[list[str], int]:
        """Samples numbered ``since`` and later, each the JSON of a row of ``SAMPLE_COLUMNS``, and the next number."""
        first = self._taken - len(self._samples)
        kept = list(self._samples)
        return kept[max(0, since - first) :], self._taken

    def window(self, length_s: float = WINDOW_S) -> Span:
        """Sums over the newest seconds."""
        return self._ring.newest(length_s)

    def checks(self) -> list[CheckState]:
        """Every limit of the requirement over the last minute, in its order."""
        span, wanted = self.window(), self.objectives
        bounds = {metric: each.bounds_s for metric, each in self.book.latencies.items()}
        states = [
            latency_state(each, span, bounds[each.metric], all_values=each.metric == QUEUE_WAIT) for each in wanted.latency
        ]
        states += [spread_state(each, span, bounds[each.metric]) for each in wanted.spread]
        ended = sum(span.count(each) for each in Ending)
        if wanted.goodput_fraction_min is not None:
            good = span.share(Ending.OK, *Ending)
            states.append(share_state("goodput", good, ended, wanted.goodput_fraction_min, least=True))
        if wanted.shed_fraction_max is not None:
            shed = span.share(Ending.SHED, *Ending)
            states.append(share_state("shed", shed, ended, wanted.shed_fraction_max, least=False))
        return states

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if book or ring contradict themselves."""
        self.book.check_integrity()
        self._ring.check_integrity()

    def _look_at_engine(self) -> None:
        try:
            self.gauges = self._engine.gauges()
            columns, following = self._engine.step_columns(self._next_step)
        except EngineFailed:
            self.gauges = None
            self._kv.append(0.0)
            return
        self._next_step = following
        self._see_steps(columns)
        gauges = self.gauges
        used = [gauges.kv_used_blocks, *_numbers(columns, "kv_used_blocks")]
        self._kv.append(max(used) / gauges.kv_blocks if gauges.kv_blocks else 0.0)
        self.kv_peak = max(self._kv)

    def _see_steps(self, columns: Mapping[str, list[object]]) -> None:
        starts, ends = _numbers(columns, "start_s"), _numbers(columns, "end_s")
        seconds = tuple(end - start for start, end in zip(starts, ends, strict=True))
        self.book.steps(seconds)
        words = [str(each) for each in columns.get("reason", [])]
        codes = [each.partition(" ")[0] for each in words]
        self.steps = StepsSeen(seconds, Counter(codes), dict(zip(codes, words, strict=True)))

    def _increases(self) -> dict[str, int]:
        book, gauges = self.book, self.gauges
        totals = {"offered": book.offered, "invalid": book.invalid}
        totals |= {str(ending): count for ending, count in book.ended.items()}
        for metric, each in book.latencies.items():
            totals |= {f"judged_{metric}": each.judged_total, f"met_{metric}": each.met_total}
        if gauges is not None:
            totals |= {name: int(getattr(gauges, source)) for name, source in _ENGINE_TOTALS.items()}
        # Totals of an engine that was started anew begin at 0: what it has is what it gained.
        gained = {}
        for name, value in totals.items():
            before = self._totals.get(name, 0)
            gained[name] = value - before if value >= before else value
        self._totals |= totals
        return gained

    def _sample(self) -> list[float | int | None]:
        second, curve, minute = self.window(LEAST_SLICE_S), self.window(CURVE_S), self.window()
        gauges, error = self.gauges, None if self.gauges is None else self.gauges.prediction_error
        row: list[float | int | None] = [self._last_s - (self._started_s or 0.0), second.length_s, second.count("offered")]
        row += [second.count(each) for each in Ending]
        row.append(curve.share(Ending.OK, *Ending))
        for metric in _CURVES:
            limited = any(True for _ in self.objectives.limits_s(metric))
            bins = (curve.judged if limited else curve.every)[metric]
            row += [percentile_s(bins, self.book.latencies[metric].bounds_s, percent) for percent in (50.0, 99.0)]
        row += [None if gauges is None else gauges.waiting, None if gauges is None else gauges.running, self.book.unfinished]
        row += [self._kv[-1], minute.share("prefix_hits", "prefix_queries")]
        row += [second.count(name) for name in ("output_tokens", "prompt_tokens", "preemptions", "steps")]
        row += [self.steps.percentile(50.0), self.steps.percentile(99.0)]
        row += [None if error is None else error.median, None if error is None else error.p95]
        assert len(row) == len(SAMPLE_COLUMNS)
        return [_short(value) for value in row]
