"""When the next token is due."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.deadlines import next_deadline_s
from setpoint.policy.views import RequestLimits

ALL = RequestLimits(ttft_s=0.5, itl_s=0.1, tpot_s=0.05, e2e_s=10.0)


@pytest.mark.parametrize(
    ("limits", "streaming", "first_s", "last_s", "emitted", "due_s"),
    [
        (ALL, True, None, None, 0, 100.5),
        (ALL, True, 100.4, 100.4, 1, 100.45),  # TPOT: first + 1 * 0.05
        (ALL, True, 100.4, 100.4, 9, 100.5),  # ITL: last + 0.1, sooner than first + 9 * 0.05
        (ALL, True, 109.9, 109.95, 40, 110.0),  # the end of the answer is sooner than both
        (RequestLimits(ttft_s=20.0, e2e_s=10.0), True, None, None, 0, 110.0),
        (RequestLimits(itl_s=0.1), True, None, None, 0, inf),  # nothing is declared for the first token
        (RequestLimits(ttft_s=0.5), True, 100.4, 100.6, 2, inf),  # nothing is declared for the later ones
        (RequestLimits(itl_s=0.1), True, 100.4, 101.0, 3, 101.1),
        (RequestLimits(tpot_s=0.05), True, 100.4, 101.0, 3, 100.55),
        (ALL, False, None, None, 0, 110.0),
        (ALL, False, 100.4, 101.0, 7, 110.0),
        (RequestLimits(ttft_s=0.5, itl_s=0.1, tpot_s=0.05), False, None, None, 0, inf),
        (RequestLimits(), True, 100.4, 101.0, 3, inf),
    ],
)
def test_by_example(
    limits: RequestLimits, streaming: bool, first_s: float | None, last_s: float | None, emitted: int, due_s: float
) -> None:
    found = next_deadline_s(
        limits, streaming=streaming, sent_s=100.0, first_token_s=first_s, last_token_s=last_s, emitted_tokens=emitted
    )
    assert found == pytest.approx(due_s)


limit = st.one_of(st.none(), st.floats(1e-3, 100))
any_limits = st.builds(RequestLimits, limit, limit, limit, limit)


@given(any_limits, st.floats(0, 1e4), st.floats(0, 10), st.floats(0, 10), st.integers(1, 500))
def test_the_formula(limits: RequestLimits, sent_s: float, ttft_s: float, since_s: float, emitted: int) -> None:
    first_s, last_s = sent_s + ttft_s, sent_s + ttft_s + since_s

    def due_s(streaming: bool, first_s: float | None, last_s: float | None, emitted: int) -> float:
        return next_deadline_s(
            limits, streaming=streaming, sent_s=sent_s, first_token_s=first_s, last_token_s=last_s, emitted_tokens=emitted
        )

    def declared(base_s: float, limit_s: float | None) -> float:
        return inf if limit_s is None else base_s + limit_s

    end_s = declared(sent_s, limits.e2e_s)
    assert due_s(False, None, None, 0) == due_s(False, first_s, last_s, emitted) == end_s
    assert due_s(True, None, None, 0) == min(end_s, declared(sent_s, limits.ttft_s))
    pace_s = inf if limits.tpot_s is None else first_s + emitted * limits.tpot_s
    assert due_s(True, first_s, last_s, emitted) == min(end_s, declared(last_s, limits.itl_s), pace_s)
    assert due_s(True, first_s, last_s, emitted) <= due_s(True, first_s, last_s + 1, emitted + 1)
