"""One request's account: what it was held to, how its answers went, and the one class it ends in.

Judged on the server's clock, from the arrival of the request's last byte to the moment a token leaves the server: TTFT, TPOT
and E2E within the request's own limits, and at most 1 - p of its own gaps over the ITL limit at percentile p. A request that
does not stream has an E2E only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from setpoint.engine.request import FinishReason, GenerationRequest
from setpoint.policy.views import RequestLimits
from setpoint.server.errors import ApiError
from setpoint.server.live.book import Ending, LiveBook, Refusal
from setpoint.server.live.checks import E2E, ITL, TPOT, TTFT, GapLimits

FINISHED: Final = (FinishReason.STOP, FinishReason.LENGTH)
# So much is forgiven when a whole number of gaps is taken from a share of them.
ROUNDING: Final = 1e-9
DOOMED: Final = "doomed"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def refusal_code(reason: str, fallback: str) -> str:
    """The code a reason begins with; a waiting request that was dropped is ``doomed``; ``fallback`` where there is none."""
    found = _CODE.match(reason)
    if found is None:
        return fallback
    return DOOMED if found.group() == "shed" else found.group()


class AnswerClock:
    """Times one answer as it leaves the server. ``now_s`` is any monotonic clock, the same in all calls."""

    __slots__ = ("_arrived_s", "_book", "_first_s", "_gap_limits", "_gaps", "_itl", "_last_s", "_least_s", "_limits",
                 "_over", "_streaming", "late", "reason")  # fmt: skip

    def __init__(
        self,
        book: LiveBook,
        arrived_s: float,
        limits: RequestLimits | None = None,
        *,
        streaming: bool = True,
        gap_limits: GapLimits = (),
    ) -> None:
        """limits: the request's own; gap_limits: as in ``Objectives.gap_limits``, none for a request that does not stream."""
        self._book = book
        self._arrived_s = arrived_s
        self._limits = limits or RequestLimits()
        self._streaming = streaming
        self._gap_limits = gap_limits
        self._least_s = gap_limits[0][0] if gap_limits else float("inf")
        itl = book.latencies[ITL]
        self._itl = itl.judged if gap_limits else itl.free
        self._first_s: float | None = None
        self._last_s = arrived_s
        self._gaps = 0
        self._over = [0] * len(gap_limits)
        self.late = False
        self.reason: FinishReason | None = None

    @property
    def begun(self) -> bool:
        """Whether any token has left."""
        return self._first_s is not None

    def tokens(self, count: int, now_s: float) -> None:
        """``count`` tokens left together: one gap, and ``count - 1`` gaps of zero."""
        if count == 0:
            return
        if self._first_s is None:
            self._first_s = now_s
            limit_s = self._limits.ttft_s if self._streaming else None
            self._took(TTFT, now_s - self._arrived_s, limit_s)
            self._gaps = count - 1
        else:
            gap_s = now_s - self._last_s
            self._itl.observe(gap_s)
            self._gaps += count
            if gap_s > self._least_s:
                self._over = [over + (gap_s > limit[0]) for over, limit in zip(self._over, self._gap_limits, strict=True)]
        if count > 1:
            self._itl.zeros(count - 1)
        self._last_s = now_s

    def finished(self, now_s: float) -> None:
        """The last token left."""
        limits = self._limits
        self._took(E2E, now_s - self._arrived_s, limits.e2e_s)
        if self._first_s is not None and self._gaps:
            mean_s = (self._last_s - self._first_s) / self._gaps
            self._took(TPOT, mean_s, limits.tpot_s if self._streaming else None)

    def ended(self, reason: FinishReason | None) -> None:
        """How the answer ended; ``None``: nobody waited for its end."""
        self.reason = reason
        if self._gap_limits:
            itl = self._book.latencies[ITL]
            itl.judged_total += self._gaps
            itl.met_total += self._gaps - self._over[0]
            allowed = [int(share * self._gaps + ROUNDING) for _, share in self._gap_limits]
            self.late |= any(over > most for over, most in zip(self._over, allowed, strict=True))

    def _took(self, metric: str, seconds: float, limit_s: float | None) -> None:
        latency = self._book.latencies[metric]
        if limit_s is None:
            latency.free.observe(seconds)
            return
        latency.judged.observe(seconds)
        met = seconds <= limit_s
        self._book.judge(metric, met=met)
        self.late |= not met


class RequestAccount:
    """From the first byte of a request to its last: ends in one class, whatever happens in between.

    ``asked`` when the request was understood, ``clock`` for each of its answers once the engine has taken it, ``refused``
    if an error goes out as its status, ``close`` at the end, always.
    """

    __slots__ = ("_arrived_s", "_book", "_clocks", "_counted", "_error", "_limits", "_name", "_streaming", "_understood")

    def __init__(self, book: LiveBook, name: str) -> None:
        self._book = book
        self._name = name
        self._arrived_s = 0.0
        self._limits = RequestLimits()
        self._streaming = True
        self._clocks: list[AnswerClock] = []
        self._error: ApiError | None = None
        self._understood = False
        self._counted = False

    def asked(self, request: GenerationRequest, arrived_s: float) -> None:
        """The request as it goes to the engine; ``arrived_s``: when its last byte came."""
        self._understood = True
        self._arrived_s = arrived_s
        self._limits = request.limits
        self._streaming = request.streaming

    def clock(self) -> AnswerClock:
        """The clock of one answer; the request is in the engine."""
        self._offered()
        gap_limits = self._book.objectives.gap_limits(self._limits) if self._streaming else ()
        clock = AnswerClock(self._book, self._arrived_s, self._limits, streaming=self._streaming, gap_limits=gap_limits)
        self._clocks.append(clock)
        return clock

    def refused(self, error: ApiError) -> None:
        """The answer is this error."""
        self._error = error

    def close(self, now_s: float, *, draining: bool = False) -> Ending | None:
        """Count the request; ``None`` for one that was not offered: wrong, or gone before it was whole."""
        error = self._error
        self._book.open.discard(self)
        if error is None and not self._understood:
            return None
        if error is not None and 400 <= error.status < 500 and error.status != 429:
            self._book.invalid += 1
            return None
        self._offered()
        ending = self._ending(draining)
        self._book.ended[ending] += 1
        given_up = ending is Ending.CANCELLED and self.standing(now_s) is False
        if error is None or error.status != 429:  # its caller's own doing says nothing of the server
            self._book.outcomes.append((self._arrived_s or now_s, Ending.LATE if given_up else ending))
        if ending is Ending.SHED and error is not None:
            self._book.shed(_refusal(error, self._name, now_s))
        if ending is Ending.FAILED:
            self._never_came()
        return ending

    @property
    def arrived_s(self) -> float:
        """When its last byte came."""
        return self._arrived_s

    def standing(self, now_s: float) -> bool | None:
        """Of one that has not ended: False if it has missed a limit already, True if it is under way and no limit on its end is
        left to be missed, ``None`` if that is open."""
        waited_s, limits = now_s - self._arrived_s, self._limits
        if any(clock.late for clock in self._clocks) or (limits.e2e_s is not None and waited_s > limits.e2e_s):
            return False
        begun = any(clock.begun for clock in self._clocks)
        if self._streaming and not begun and limits.ttft_s is not None and waited_s > limits.ttft_s:
            return False
        return True if begun and limits.e2e_s is None else None

    def _offered(self) -> None:
        if not self._counted:
            self._counted = True
            self._book.offered += 1
            self._book.open.add(self)

    def _ending(self, draining: bool) -> Ending:
        if self._error is not None:
            return Ending.SHED if self._error.status in (429, 503) else Ending.FAILED
        reasons = [clock.reason for clock in self._clocks]
        if any(reason in (FinishReason.ERROR, FinishReason.SHED) for reason in reasons):
            return Ending.FAILED
        if not reasons or any(reason not in FINISHED for reason in reasons):
            return Ending.FAILED if draining and FinishReason.CANCELLED in reasons else Ending.CANCELLED
        return Ending.LATE if any(clock.late for clock in self._clocks) else Ending.OK

    def _never_came(self) -> None:
        """Limits that a failed request did not live to be judged by."""
        unbegun = not any(clock.begun for clock in self._clocks)
        if unbegun and self._streaming and self._limits.ttft_s is not None:
            self._book.lost(TTFT)
        if self._limits.e2e_s is not None:
            self._book.lost(E2E)


def _refusal(error: ApiError, name: str, now_s: float) -> Refusal:
    headers: Mapping[str, str] = error.headers
    reason = headers.get("x-setpoint-reason", "") or error.code
    wait_ms = headers.get("retry-after-ms")
    return Refusal(
        at_s=now_s,
        name=name,
        code=refusal_code(reason, error.code),
        reason=reason,
        retry_after_s=None if wait_ms is None else float(wait_ms) / 1000,
    )
