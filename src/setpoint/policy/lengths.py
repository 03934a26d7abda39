"""How long answers get, learned from those that ended: tokens emitted as a share of the cap, and what is left given what came.

Formula: with the sorted shares F of ended requests, a request of cap c that has emitted e is expected to emit
``F[i + q (n - i)] c - e`` more, i the number of shares that e has already passed: the q-quantile of the remaining length given
survival (the empirical conditional distribution). Requests are learned from by class and by the power of two of their cap,
for a caller who asks for 4096 tokens and one who asks for 16 are different callers. Before anything is known an answer is taken
for as long as its cap, but no longer than ``PRIOR_TOKENS``: who names no cap gets the whole context as one, and does not mean
it. ``PRIORS`` imaginary requests of about that length stand beside the real ones until ``PRIORS_UNTIL`` of those have ended, so
that the first answers to end (the short ones) do not set the tone.

Defaults: the newest 256 ended requests a group; a group is ``known`` from 8 on; 512 tokens before anything is. When it is
wrong: an answer's length that hangs on the prompt's content is only known on average; after a change of callers the old sample
stays until 256 new ones have ended; the first long answers of callers who mean their large cap are foreseen too short until
they pass it.
"""

from __future__ import annotations

from collections import deque
from math import inf

import numpy as np
import numpy.typing as npt

from setpoint.policy.views import Columns, FloatColumn, IntColumn

SAMPLES = 256
PRIOR_TOKENS = 512
PRIORS = 4
PRIORS_UNTIL = 24
TYPICAL = 0.5
LONG = 0.9
MOST_GROUPS = 64
MOST_ASKED = 8
LEAST_KNOWN = 8


class OutputLengths:
    """Learned quantiles of the output length. Learns from ``ended``; everything else only reads."""

    def __init__(self) -> None:
        self._shares: dict[tuple[int, int], deque[float]] = {}
        self._sorted: dict[tuple[int, int], FloatColumn] = {}
        # What was asked for of late: a plan asks several times for the same columns.
        self._asked: deque[tuple[IntColumn, IntColumn, float, FloatColumn]] = deque(maxlen=MOST_ASKED)

    def ended(self, request_class: int, *, cap_tokens: int, emitted_tokens: int) -> None:
        """An answer came to its own end (not cancelled) after ``emitted_tokens``."""
        group = (request_class, cap_tokens.bit_length())
        if group not in self._shares and len(self._shares) >= MOST_GROUPS:
            return
        samples = self._shares.setdefault(group, deque(maxlen=SAMPLES))
        samples.append(emitted_tokens / max(1, cap_tokens))
        self._sorted.pop(group, None)
        self._asked.clear()

    def expected(self, request_class: int, cap_tokens: int, quantile: float = TYPICAL) -> int:
        """Quantile of the whole length of an answer with this cap; before anything is learned the cap, up to ``PRIOR_TOKENS``.
        At least 1."""
        shares = self._of((request_class, cap_tokens.bit_length()))
        if shares is None:
            return max(1, min(cap_tokens, PRIOR_TOKENS))
        return max(1, round(float(shares[min(len(shares) - 1, int(quantile * len(shares)))]) * cap_tokens))

    def remaining(self, columns: Columns, quantile: float = TYPICAL) -> FloatColumn:
        """Tokens each request is expected to emit yet, given what it has emitted. Shape (requests,), each at least 1."""
        for cap_tokens, emitted_tokens, asked, left in self._asked:
            if cap_tokens is columns.cap_tokens and emitted_tokens is columns.emitted_tokens and asked == quantile:
                return left
        left = self._remaining(columns, quantile)
        left.flags.writeable = False
        self._asked.append((columns.cap_tokens, columns.emitted_tokens, quantile, left))
        return left

    def _remaining(self, columns: Columns, quantile: float) -> FloatColumn:
        most: FloatColumn = np.maximum(columns.cap_tokens - columns.emitted_tokens, 1).astype(np.float64)
        if not len(columns):
            return most
        # One that is longer than was thought may get as long as its cap.
        short = columns.emitted_tokens < PRIOR_TOKENS
        left: FloatColumn = np.where(short, np.minimum(most, PRIOR_TOKENS - columns.emitted_tokens), most)
        if not self._shares:
            return left
        groups = _groups(columns)
        if (groups == groups[0]).all():
            shares = self._of(divmod(int(groups[0]), 64))
            return left if shares is None else _given(shares, quantile, columns.cap_tokens, columns.emitted_tokens, most)
        for group in set(groups.tolist()):
            shares = self._of(divmod(group, 64))
            if shares is not None:
                here = groups == group
                left[here] = _given(shares, quantile, columns.cap_tokens[here], columns.emitted_tokens[here], most[here])
        return left

    def known(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Whether ``LEAST_KNOWN`` answers of a request's group have ended, so that its remaining length is more than its cap.
        Shape (requests,)."""
        groups = _groups(columns)
        known = [64 * a + b for (a, b), shares in self._shares.items() if len(shares) >= LEAST_KNOWN]
        return np.isin(groups, known)

    def _of(self, group: tuple[int, int]) -> FloatColumn | None:
        samples = self._shares.get(group)
        if samples is None:
            return None
        kept = self._sorted.get(group)
        if kept is None:
            priors = PRIORS if len(samples) < PRIORS_UNTIL else 0
            # Of the smallest cap of the group the share that comes to PRIOR_TOKENS; up to twice as many of the largest.
            prior = min(1.0, PRIOR_TOKENS / 2 ** (group[1] - 1))
            kept = np.array(sorted([*samples, *[prior] * priors]), dtype=np.float64)
            self._sorted[group] = kept
        return kept


def _groups(columns: Columns) -> IntColumn:
    """A number for the class and the power of two of the cap of each. Shape (requests,)."""
    return np.asarray(columns.request_class * 64 + np.frexp(columns.cap_tokens.astype(np.float64))[1], dtype=np.int64)


def _given(shares: FloatColumn, quantile: float, caps: IntColumn, emitted: IntColumn, most: FloatColumn) -> FloatColumn:
    """The formula at the head for requests of one group, at least 1 and at most ``most``. Shapes (requests,)."""
    passed = np.searchsorted(shares, emitted / np.maximum(caps, 1), side="right")
    index = np.minimum(passed + (quantile * (len(shares) - passed)).astype(np.int64), len(shares) - 1)
    expected = np.where(passed < len(shares), shares[index] * caps - emitted, inf)
    return np.asarray(np.minimum(np.maximum(expected, 1.0), most), dtype=np.float64)
