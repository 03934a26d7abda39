"""What one API key may have at a time and a minute. Over it the caller gets 429: its own doing, not the server's load."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from setpoint.server.errors import rate_limited
from setpoint.server.limits import ServerLimits

# Weight of the newest request in the mean duration, which tells a caller when a stream of its own will have ended.
NEWEST_WEIGHT = 0.2
FIRST_DURATION_S = 1.0
# A caller that waits exactly as told is not refused for the last bit of a float.
ROUNDING = 1e-9


@dataclass(slots=True)
class _Usage:
    streams: int = 0
    duration_s: float = FIRST_DURATION_S
    # Requests this key may send at once; refilled continuously (a token bucket of one minute's requests).
    credit: float = 0.0
    credited_s: float = 0.0


class KeyQuotas:
    """Counts by owner of a key, of whom there are as many as keys. ``clock`` is monotonic, in seconds."""

    def __init__(self, limits: ServerLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_streams = limits.max_streams_per_key
        self._per_minute = limits.max_requests_per_minute_per_key
        self._clock = clock
        first = _Usage(credit=float(self._per_minute or 0), credited_s=clock())
        self._usage: defaultdict[str, _Usage] = defaultdict(lambda: _Usage(credit=first.credit, credited_s=first.credited_s))

    @contextmanager
    def one(self, owner: str) -> Iterator[None]:
        """One generation request of ``owner`` (empty: nobody's, not counted). Raises ``ApiError`` 429."""
        if not owner or (self._most_streams is None and self._per_minute is None):
            yield
            return
        usage = self._usage[owner]
        began_s = self._clock()
        self._take_stream(usage)
        self._take_credit(usage, began_s)
        usage.streams += 1
        try:
            yield
        finally:
            usage.streams -= 1
            usage.duration_s += NEWEST_WEIGHT * (self._clock() - began_s - usage.duration_s)

    def _take_stream(self, usage: _Usage) -> None:
        most = self._most_streams
        if most is not None and usage.streams >= most:
            message = f"This key has {usage.streams} requests under way, and may have {most}."
            raise rate_limited(message, usage.duration_s / most)

    def _take_credit(self, usage: _Usage, now_s: float) -> None:
        per_minute = self._per_minute
        if per_minute is None:
            return
        usage.credit = min(float(per_minute), usage.credit + (now_s - usage.credited_s) * per_minute / 60)
        usage.credited_s = now_s
        if usage.credit < 1 - ROUNDING:
            message = f"This key may send {per_minute} requests a minute."
            raise rate_limited(message, (1 - usage.credit) * 60 / per_minute)
        usage.credit -= 1
