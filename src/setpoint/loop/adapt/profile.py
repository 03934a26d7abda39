"""What the traffic of late is like, from the engine's own records: one row a request, joined by its name when it ends.

Prompts, their cached part and arrivals are known when a request asks, whatever becomes of it; the length of an answer when it
ends. Until then it is taken to be that of the ended request with the nearest prompt. A refused request that asks again under
its name counts once; several that were let in under one name (the prompts of one request, a client that names all alike) count
each, and their ends are taken in order. When it is wrong: short answers end first, so for the first seconds after a change
answers look short.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from setpoint.engine.request import FinishReason, RequestStats
from setpoint.policy.views import IntColumn

KEPT_REQUESTS = 1024
WHOLE = (FinishReason.STOP, FinishReason.LENGTH)
LEAST_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came. ``uncached_tokens``: of its prompt, those that no cached block covered then.

    admitted: whether it was let in.
    """

    name: str
    at_s: float
    prompt_tokens: int
    uncached_tokens: int
    cap_tokens: int
    request_class: int = 0
    admitted: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """Traffic: arrivals a second, the coefficient of variation of their gaps, and requests as columns of one length.

    arrivals: how many the rate comes from.
    """

    rate_rps: float
    gap_cv: float
    arrivals: int
    prompt_tokens: IntColumn
    cached_tokens: IntColumn
    output_tokens: IntColumn
    cap_tokens: IntColumn
    request_class: IntColumn
    streaming: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def described(self) -> dict[str, float]:
        """In a few numbers, for people."""
        return {
            "requests": len(self),
            "rate_rps": round(self.rate_rps, 3),
            "gap_cv": round(self.gap_cv, 2),
            "prompt_tokens_mean": round(float(self.prompt_tokens.mean()), 1),
            "cached_share": round(float(self.cached_tokens.sum() / self.prompt_tokens.sum()), 3),
            "output_tokens_mean": round(float(self.output_tokens.mean()), 1),
            "streaming_share": round(float(self.streaming.mean()), 3),
        }


@dataclass(slots=True)
class _Row:
    asked: Asked
    admitted: bool
    output_tokens: int | None = None
    streaming: bool = True


class LiveProfile:
    """The newest ``most`` requests. ``asked`` when one comes, ``ended`` when it is over."""

    def __init__(self, most: int = KEPT_REQUESTS) -> None:
        self._most = most
        self._rows: deque[_Row] = deque()
        self._not_ended: dict[str, deque[_Row]] = {}

    def asked(self, request: Asked) -> bool:
        """Whether it is a request that was not seen before."""
        same = self._not_ended.setdefault(request.name, deque())
        refused = next((row for row in same if not row.admitted), None)
        if refused is not None:
            refused.admitted = request.admitted
            return False
        row = _Row(request, request.admitted)
        same.append(row)
        self._rows.append(row)
        if len(self._rows) > self._most:
            self._forget(self._rows.popleft())
        return True

    def ended(self, stats: RequestStats) -> None:
        """An answer is over; one that was cut says nothing about how long answers are."""
        row = next((each for each in self._not_ended.get(stats.name, ()) if each.admitted), None)
        if row is None:
            return
        if stats.finish_reason is FinishReason.SHED:  # refused after all: it may come back
            row.admitted = False
            return
        self._forget(row)
        if stats.finish_reason in WHOLE:
            row.output_tokens = max(1, stats.output_tokens)
            row.streaming = stats.streaming

    def _forget(self, row: _Row) -> None:
        """It will not end, or has: its name means others from now on."""
        same = self._not_ended.get(row.asked.name)
        if same is None:
            return
        kept = deque(each for each in same if each is not row)
        if kept:
            self._not_ended[row.asked.name] = kept
        else:
            del self._not_ended[row.asked.name]

    def answered_since(self, since_s: float) -> int:
        """Requests that came at ``since_s`` or later and have a whole answer."""
        return sum(row.output_tokens is not None and row.asked.at_s >= since_s for row in self._rows)

    def since(self, since_s: float, now_s: float, *, rate_since_s: float | None = None) -> Profile | None:
        """Requests that came at ``since_s`` or later; ``None`` for fewer than ``LEAST_REQUESTS``.

        rate_since_s: since when their rate has been what it is, where that is longer.
        """
        rows = [row for row in self._rows if row.asked.at_s >= since_s]
        if len(rows) < LEAST_REQUESTS:
            return None
        earliest_s = since_s if rate_since_s is None else min(since_s, rate_since_s)
        times_s = np.array([row.asked.at_s for row in self._rows if row.asked.at_s >= earliest_s])
        gaps_s = np.diff(times_s)
        mean_s = float(gaps_s.mean())
        prompts = [row.asked.prompt_tokens for row in rows]
        return Profile(
            rate_rps=len(times_s) / max(now_s - float(times_s[0]), 1e-3),
            gap_cv=float(gaps_s.std() / mean_s) if mean_s > 0 else 1.0,
            arrivals=len(times_s),
            prompt_tokens=np.array(prompts, dtype=np.int64),
            cached_tokens=np.array([row.asked.prompt_tokens - row.asked.uncached_tokens for row in rows], dtype=np.int64),
            output_tokens=self._outputs(rows),
            cap_tokens=np.array([row.asked.cap_tokens for row in rows], dtype=np.int64),
            request_class=np.array([row.asked.request_class for row in rows], dtype=np.int64),
            streaming=_filled_streaming(rows),
        )

    def _outputs(self, rows: Sequence[_Row]) -> IntColumn:
        """Of each row; where its end is not known, that of the nearest prompt (of these rows, else of all), else its cap."""
        known = [row for row in rows if row.output_tokens is not None]
        known = known or [row for row in self._rows if row.output_tokens is not None]
        known.sort(key=lambda row: row.asked.prompt_tokens)
        lengths = [row.asked.prompt_tokens for row in known]
        found = []
        for number, row in enumerate(rows):
            output = row.output_tokens
            if output is None and known:
                # Of several that are as near, not always the same one.
                place = bisect_left(lengths, row.asked.prompt_tokens) + number % 5 - 2
                output = known[min(max(0, place), len(known) - 1)].output_tokens
            found.append(min(row.asked.cap_tokens, output or row.asked.cap_tokens))
        return np.array(found, dtype=np.int64)


def _filled_streaming(rows: Sequence[_Row]) -> npt.NDArray[np.bool_]:
    known = [row.streaming for row in rows if row.output_tokens is not None]
    usual = sum(known) * 2 >= len(known)
    return np.array([row.streaming if row.output_tokens is not None else usual for row in rows], dtype=np.bool_)


def asked_in(columns: Mapping[str, Sequence[object]]) -> list[Asked]:
    """The requests that asked, from columns of decisions (``record.columns.DECISION_COLUMNS``); early returns are none."""
    found = []
    for kind, name, at_s, code, operands in zip(
        *(columns[each] for each in ("kind", "request_id", "time_s", "code", "operands")), strict=True
    ):
        if kind not in ("admit", "reject") or code == "too_early":
            continue
        assert isinstance(operands, Mapping)
        prompt, uncached, cap, request_class = (
            int(operands[each]) for each in ("prompt_tokens", "uncached_tokens", "cap_tokens", "request_class")
        )
        found.append(Asked(str(name), float(str(at_s)), prompt, uncached, cap, request_class, admitted=kind == "admit"))
    return found
