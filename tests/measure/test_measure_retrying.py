"""When a request is sent again, and how long before it."""

from __future__ import annotations

import time

import pytest

from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.outcome import SHED_STATUSES
from setpoint.measure.retrying import BACKOFF_MAX_S, BACKOFF_S, BROKEN_STATUSES, JITTER, may_retry, wait_s


def ended(status: int | None, error: ErrorKind | None = None, **headers: str) -> Exchange:
    exchange = Exchange("r", b"", lambda _: None)
    exchange.status = status
    for name, value in headers.items():
        exchange.note_header(name.replace("_", "-").encode(), value.encode())
    exchange.end(time.monotonic(), error)
    return exchange


@pytest.mark.parametrize(
    ("exchange", "again"),
    [
        (ended(429), True),
        (ended(503), True),
        (ended(529), True),
        (ended(500), True),
        (ended(522), True),
        (ended(400), False),
        (ended(200), False),
        (ended(200, ErrorKind.CUT), False),
        (ended(None, ErrorKind.REFUSED), True),
        (ended(None, ErrorKind.RESET), True),
        (ended(None, ErrorKind.TIMEOUT), False),
        (ended(None, ErrorKind.MALFORMED), False),
    ],
)
def test_refusals_and_what_got_no_answer_are_sent_again(exchange: Exchange, again: bool) -> None:
    assert may_retry(exchange) is again


def test_whatever_counts_as_shed_or_broken_is_sent_again() -> None:
    assert all(may_retry(ended(status)) for status in SHED_STATUSES | BROKEN_STATUSES)


def test_wait_doubles_to_a_limit_and_comes_from_the_seed() -> None:
    refused = ended(503)
    for attempts in range(1, 12):
        full_s = min(BACKOFF_S * 2 ** (attempts - 1), BACKOFF_MAX_S)
        wait = wait_s(refused, attempts, seed=1, index=2)
        assert full_s * (1 - JITTER) <= wait <= full_s
        assert wait == wait_s(refused, attempts, seed=1, index=2)
    assert wait_s(refused, 1, seed=1, index=2) != wait_s(refused, 1, seed=1, index=3)


def test_what_the_server_asks_for_is_a_floor() -> None:
    assert wait_s(ended(429, retry_after="7"), 1, seed=0, index=0) == 7.0
    assert wait_s(ended(429, retry_after="7", retry_after_ms="6500"), 1, seed=0, index=0) == 6.5
    assert wait_s(ended(429, retry_after_ms="1"), 1, seed=0, index=0) >= BACKOFF_S * (1 - JITTER)


def test_retry_after_may_be_a_date() -> None:
    in_a_minute = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    asked_s = ended(503, retry_after=in_a_minute).retry_after_s
    assert asked_s is not None
    assert 55 < asked_s <= 60
    assert ended(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT").retry_after_s == 0.0
    assert ended(503, retry_after="soon").retry_after_s is None
    assert ended(503, retry_after="nan").retry_after_s is None
