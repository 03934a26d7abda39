"""When a refused or failed request is sent again, as the usual client libraries do it, but from a seed.

The wait before attempt n + 1 is ``BACKOFF_S * 2**(n - 1)``, at most ``BACKOFF_MAX_S``, shortened by up to a quarter at
random; a server's ``retry-after-ms`` or ``Retry-After`` is a floor below it.
"""

from __future__ import annotations

import random

from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.outcome import SHED_STATUSES

BACKOFF_S = 0.5
BACKOFF_MAX_S = 8.0
JITTER = 0.25

# What was taken and came to nothing; 520 to 524 is how a proxy of Cloudflare says so.
BROKEN_STATUSES = frozenset({408, 409, 500, 502, 504, 520, 521, 522, 523, 524})
_STATUSES = SHED_STATUSES | BROKEN_STATUSES
_BEFORE_ANY_ANSWER = frozenset(
    {ErrorKind.REFUSED, ErrorKind.UNREACHABLE, ErrorKind.CONNECT_TIMEOUT, ErrorKind.RESET, ErrorKind.CUT}
)


def may_retry(exchange: Exchange) -> bool:
    """Whether an ended exchange is of a kind that clients send again: refused, or no answer had begun."""
    if exchange.status is not None:
        return exchange.status in _STATUSES
    return exchange.error in _BEFORE_ANY_ANSWER


def wait_s(exchange: Exchange, attempts: int, *, seed: int, index: int) -> float:
    """Seconds from the end of the exchange, the last of ``attempts``, to the next attempt."""
    backoff_s = min(BACKOFF_S * 2.0 ** min(attempts - 1, 16), BACKOFF_MAX_S)
    jitter = random.Random(f"{seed}/{index}/{attempts}").random()
    return max(backoff_s * (1.0 - JITTER * jitter), exchange.retry_after_s or 0.0)
