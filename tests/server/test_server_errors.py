"""Errors: when to come back is always a whole, bounded number, never sooner than said."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from setpoint.server.errors import MAX_RETRY_AFTER_S, overloaded, retry_headers


@given(st.none() | st.floats())
def test_retry_headers_are_bounded(retry_after_s: float | None) -> None:
    headers = retry_headers(retry_after_s)
    assert 1 <= int(headers["retry-after"]) <= MAX_RETRY_AFTER_S
    assert 1 <= int(headers["retry-after-ms"]) <= MAX_RETRY_AFTER_S * 1000


@given(st.floats(0, MAX_RETRY_AFTER_S))
def test_coming_back_as_told_is_not_too_soon(retry_after_s: float) -> None:
    headers = retry_headers(retry_after_s)
    assert int(headers["retry-after"]) >= math.floor(retry_after_s)
    assert int(headers["retry-after-ms"]) >= retry_after_s * 1000 * (1 - 1e-12)
    assert int(headers["retry-after-ms"]) <= retry_after_s * 1000 + 1.001


@given(st.text(max_size=600))
def test_any_reason_fits_into_a_header(reason: str) -> None:
    error = overloaded(reason, 1.0)
    shown = error.headers.get("x-setpoint-reason", "")
    assert len(shown) <= 256
    assert all(" " <= character <= "~" for character in shown)
