"""Figures while the run goes on: cheap, approximate, for the eyes only. The report is made from the recorded rows."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from setpoint.measure.histogram import LogHistogram
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.sse import StreamReader
from setpoint.record import Phase, RequestClass
from setpoint.requirement import LatencyMetric, Slos

RATE_WINDOW_S = 5.0
STRETCHES_MAX = 1024
_RATE_SAMPLES_MAX = 64


@dataclass(frozen=True, slots=True)
class LiveSamples:
    """What the latencies and the goodput of a ``Progress`` come from, so that those of several processes can be added."""

    ttft_s: LogHistogram
    itl_s: LogHistogram
    judged: int
    good: int


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a run. Latencies and goodput are of the current phase only, ``None`` while nothing is known.

    done counts ended requests of all phases; waiting those held back by a limit of the client.
    goodput_fraction: of requests that ended or gave a first token, those within the per-request limits as far as is known.
    """

    phase: Phase
    elapsed_s: float
    total_s: float
    offered: int
    sent: int
    done: int
    in_flight: int
    waiting: int
    shed: int
    failed: int
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    itl_p50_s: float | None
    itl_p95_s: float | None
    goodput_fraction: float | None
    output_tokens_per_s: float
    draining: bool = False
    finished: bool = False
    samples: LiveSamples | None = field(default=None, repr=False, compare=False)


class RunningFigures:
    """Takes token times and outcomes as they are read; starts anew with each phase, so that phases never mix."""

    def __init__(self, slos: Slos) -> None:
        self._limits = {metric: slos.limit_s(metric) for metric in (LatencyMetric.TTFT, LatencyMetric.TPOT, LatencyMetric.E2E)}
        self.shed = 0
        self.failed = 0
        self.tokens = 0
        self._rate: deque[tuple[float, int]] = deque(maxlen=_RATE_SAMPLES_MAX)
        self.start_phase(Phase.WARMUP)

    def start_phase(self, phase: Phase) -> None:
        """Forget the latencies of the phase before."""
        self.phase = phase
        self.ttft_s = LogHistogram()
        self._itl_s = LogHistogram()
        self._stretches: list[array[float]] = []
        self._judged = 0
        self._good = 0
        # Streams that began and whose end is not known yet: whether the first token came in time.
        self._begun: dict[StreamReader, bool] = {}
        self._begun_well = 0

    def take_tokens(self, reader: StreamReader, known: int, phase: Phase, intended_at_s: float) -> None:
        """Tokens that ``reader`` read beyond the ``known`` first ones; ``intended_at_s`` on the clock."""
        times_s = reader.event_times_s
        self.tokens += len(times_s) - known
        if phase is not self.phase or len(times_s) == known:
            return
        if known == 0:
            ttft_s = max(0.0, times_s[0] - intended_at_s)
            limit_s = self._limits[LatencyMetric.TTFT]
            self.ttft_s.add(ttft_s)
            self._begun[reader] = limit_s is None or ttft_s <= limit_s
            self._begun_well += self._begun[reader]
        self._stretches.append(times_s[max(0, known - 1) :])
        if len(self._stretches) >= STRETCHES_MAX:
            self._count_gaps()

    def _count_gaps(self) -> None:
        """Count the gaps within the stretches of tokens taken since the last count, all at once."""
        if not self._stretches:
            return
        times_s = np.concatenate([np.frombuffer(stretch) for stretch in self._stretches])
        ends = np.cumsum([len(stretch) for stretch in self._stretches])
        self._stretches.clear()
        self._itl_s.add_many(np.delete(np.diff(times_s), ends[:-1] - 1))

    @property
    def itl_s(self) -> LogHistogram:
        """The gaps between tokens in this phase."""
        self._count_gaps()
        return self._itl_s

    def take_outcome(self, row: RequestOutcome, counted_tokens: int, reader: StreamReader | None = None) -> None:
        """A request ended; ``counted_tokens`` of it were taken before, from ``reader``."""
        if reader is not None:
            self._begun_well -= self._begun.pop(reader, False)
        self.tokens += max(0, row.output_tokens - counted_tokens)
        self.shed += row.request_class is RequestClass.SHED
        self.failed += row.request_class is RequestClass.FAILED
        if row.phase is self.phase:
            self._judged += 1
            self._good += self._is_good(row)

    def _is_good(self, row: RequestOutcome) -> bool:
        if row.request_class is not RequestClass.OK:
            return False
        values = {LatencyMetric.TTFT: row.ttft_s, LatencyMetric.TPOT: row.tpot_s, LatencyMetric.E2E: row.e2e_s}
        for metric, limit_s in self._limits.items():
            value_s = values[metric]
            if limit_s is not None and value_s is not None and value_s > limit_s:
                return False
        return True

    @property
    def samples(self) -> LiveSamples:
        """What the live figures come from; the histograms are the ones in use, not copies."""
        return LiveSamples(self.ttft_s, self.itl_s, self._judged + len(self._begun), self._good + self._begun_well)

    @property
    def goodput_fraction(self) -> float | None:
        """Share of requests of this phase within the per-request limits, the streams under way judged by their beginning."""
        judged = self._judged + len(self._begun)
        return (self._good + self._begun_well) / judged if judged else None

    def tokens_per_s(self, now_s: float) -> float:
        """Output tokens read per second over the last ``RATE_WINDOW_S``; call it a few times a second."""
        self._rate.append((now_s, self.tokens))
        while len(self._rate) > 2 and now_s - self._rate[0][0] > RATE_WINDOW_S:
            self._rate.popleft()
        first_s, first_tokens = self._rate[0]
        return (self.tokens - first_tokens) / (now_s - first_s) if now_s > first_s else 0.0
