"""Every gap between two tokens, accounted for without a list of them.

All streams that decode get their next token at the end of the same step, so a step makes one gap, as many times as there are
such streams. Gaps are counted in bins a 1/``BINS_A_DOUBLING`` of an octave wide (0.07 %), by phase; the largest gap of a
request is the largest of a suffix of steps, and how many of its gaps were late is a difference of two counts.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from setpoint.policy.views import FloatColumn, IntColumn

BINS_A_DOUBLING = 1024
LEAST_GAP_S = 2.0**-20
BINS = 36 * BINS_A_DOUBLING
BUFFER = 1 << 14
TRIM_AT = 4096


class GapCounts:
    """Counts of gaps by bin for one phase, the sum of the gaps and the largest."""

    def __init__(self) -> None:
        self.counts: IntColumn = np.zeros(BINS + 1, dtype=np.int64)
        self.sum_s = 0.0
        self.most_s = 0.0

    @property
    def total(self) -> int:
        """All gaps."""
        return int(self.counts.sum())

    def add(self, gaps_s: FloatColumn, weights: IntColumn) -> None:
        """``gaps_s`` occurred ``weights`` times each. Shapes (gaps,)."""
        place = np.log2(np.maximum(gaps_s, LEAST_GAP_S) / LEAST_GAP_S) * BINS_A_DOUBLING
        bins = np.minimum(place.astype(np.int64) + 1, BINS)
        bins[gaps_s < LEAST_GAP_S] = 0
        self.counts += np.bincount(bins, weights=weights, minlength=BINS + 1).astype(np.int64)
        some = weights > 0
        if some.any():
            self.sum_s += float(gaps_s @ weights)
            self.most_s = max(self.most_s, float(gaps_s[some].max()))

    def take(self, other: GapCounts) -> None:
        """Add what ``other`` counted."""
        self.counts += other.counts
        self.sum_s += other.sum_s
        self.most_s = max(self.most_s, other.most_s)

    def percentile(self, percent: float) -> float | None:
        """By nearest rank, the middle of its bin; ``None`` without gaps."""
        total = self.total
        if not total:
            return None
        rank = min(max(int(np.ceil(total * percent / 100 - 1e-9)), 1), total)
        return min(self.most_s, float(bin_s(int(np.searchsorted(np.cumsum(self.counts), rank)))))


def bin_s(place: int) -> float:
    """The middle of a bin, in seconds; bin 0 has gaps of no time."""
    return 0.0 if place == 0 else LEAST_GAP_S * float(2.0 ** ((place - 0.5) / BINS_A_DOUBLING))


class SuffixMost:
    """The largest gap of the steps after a given one: a stack whose values fall."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[float] = []

    def add(self, step: int, gap_s: float) -> None:
        """Up to and including ``step``, and after the step added last, the largest gap was ``gap_s``."""
        values = self._values
        while values and values[-1] <= gap_s:
            values.pop()
            self._steps.pop()
        values.append(gap_s)
        self._steps.append(step)

    def after(self, step: int) -> float:
        """The largest gap of the steps after ``step``; 0 if there is none."""
        place = bisect_left(self._steps, step + 1)
        return self._values[place] if place < len(self._values) else 0.0

    def trim(self, step: int) -> None:
        """Nobody will ask for steps up to ``step`` again."""
        if len(self._steps) > TRIM_AT:
            place = bisect_left(self._steps, step + 1)
            del self._steps[:place], self._values[:place]


class GapAccount:
    """All gaps by phase, tokens by phase of time, and the suffix maxima.

    ``limits_s``: the gaps that are late if they are longer; ``late``: steps so far whose gap was, by limit. spans: for each
    phase of time its beginning and end, for tokens that count for it.
    """

    def __init__(self, phases: int, limits_s: tuple[float, ...], spans: tuple[tuple[float, float], ...]) -> None:
        self.counts = [GapCounts() for _ in range(phases)]
        self.limits_s = limits_s
        self.late = [0] * len(limits_s)
        self.most = SuffixMost()
        self.spans = spans
        self.tokens = [0] * len(spans)
        self._limits = np.array(limits_s)
        self._gaps = np.empty(BUFFER)
        self._ends = np.empty(BUFFER)
        self._weights = np.zeros((phases, BUFFER), dtype=np.int64)
        self._emitted = np.zeros(BUFFER, dtype=np.int64)
        self._size = 0

    def steps(self, gaps_s: FloatColumn, ends_s: FloatColumn, streams: list[int], emitted: int, step: int) -> None:
        """Steps up to number ``step``, a gap for ``streams[phase]`` streams and ``emitted`` tokens each. Shapes (steps,)."""
        size = len(gaps_s)
        if size + self._size > BUFFER:
            self.flush()
        if size > BUFFER:
            half = size // 2
            self.steps(gaps_s[:half], ends_s[:half], streams, emitted, step - size + half)
            self.steps(gaps_s[half:], ends_s[half:], streams, emitted, step)
            return
        window = slice(self._size, self._size + size)
        self._gaps[window] = gaps_s
        self._ends[window] = ends_s
        self._emitted[window] = emitted
        for phase, count in enumerate(streams):
            self._weights[phase, window] = count
        self._size += size
        most_s = float(gaps_s.max())
        for place, limit_s in enumerate(self.limits_s):
            if most_s > limit_s:
                self.late[place] += int(np.count_nonzero(gaps_s > limit_s))
        self.most.add(step, most_s)

    def few(self, gaps_s: list[float], ends_s: list[float], streams: list[int], emitted: int, step: int) -> None:
        """``steps`` for a few of them."""
        size = len(gaps_s)
        if size + self._size > BUFFER:
            self.flush()
        window = slice(self._size, self._size + size)
        self._gaps[window], self._ends[window], self._emitted[window] = gaps_s, ends_s, emitted
        for phase, count in enumerate(streams):
            self._weights[phase, window] = count
        self._size += size
        most_s = max(gaps_s)
        for place, limit_s in enumerate(self.limits_s):
            if most_s > limit_s:
                self.late[place] += sum(gap_s > limit_s for gap_s in gaps_s)
        self.most.add(step, most_s)

    def step(self, gap_s: float, end_s: float, streams: list[int], emitted: int, step: int) -> None:
        """``steps`` for a single one."""
        if self._size == BUFFER:
            self.flush()
        place, self._size = self._size, self._size + 1
        self._gaps[place] = gap_s
        self._ends[place] = end_s
        self._emitted[place] = emitted
        for phase, count in enumerate(streams):
            self._weights[phase, place] = count
        for number, limit_s in enumerate(self.limits_s):
            self.late[number] += gap_s > limit_s
        self.most.add(step, gap_s)

    def together(self, end_s: float, streams: list[int], emitted: int) -> None:
        """Tokens that came with another one of their stream: gaps of no time, ``streams[phase]`` of them."""
        if self._size == BUFFER:
            self.flush()
        place, self._size = self._size, self._size + 1
        self._gaps[place] = 0.0
        self._ends[place], self._emitted[place] = end_s, emitted
        for phase, count in enumerate(streams):
            self._weights[phase, place] = count

    def one(self, gap_s: float, phase: int) -> None:
        """A gap of a single stream that stood still in between."""
        if self._size == BUFFER:
            self.flush()
        place, self._size = self._size, self._size + 1
        self._gaps[place] = gap_s
        self._ends[place] = self._emitted[place] = 0
        self._weights[:, place] = 0
        self._weights[phase, place] = 1

    def emitted_at(self, moment_s: float, tokens: int = 1) -> None:
        """Tokens that came at a moment and are part of no step given to ``steps``."""
        for place, (start_s, end_s) in enumerate(self.spans):
            if start_s <= moment_s < end_s:
                self.tokens[place] += tokens

    def flush(self) -> None:
        """Count what is buffered."""
        size, self._size = self._size, 0
        if not size:
            return
        gaps, ends = self._gaps[:size], self._ends[:size]
        for phase, counts in enumerate(self.counts):
            weights = self._weights[phase, :size]
            if weights.any():
                counts.add(gaps, weights)
        for place, (start_s, end_s) in enumerate(self.spans):
            inside = (ends >= start_s) & (ends < end_s)
            self.tokens[place] += int(self._emitted[:size][inside].sum())

    def take(self, other: GapAccount) -> None:
        """Add what ``other`` counted; both flushed, of the same phases and limits."""
        for mine, its in zip(self.counts, other.counts, strict=True):
            mine.take(its)
        self.tokens = [mine + its for mine, its in zip(self.tokens, other.tokens, strict=True)]
