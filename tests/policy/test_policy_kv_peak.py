"""Who joins stays: the foreseen peak is the true one, and nobody who fits is kept out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_views import Row, columns

from setpoint.policy import kv_peak
from setpoint.policy.kv_peak import joins_that_stay, peak_tokens
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.views import INTERACTIVE, KvView

REQUESTS = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 60)), min_size=1, max_size=12)


def played(requests: list[tuple[int, int]]) -> int:
    """The most tokens held when every request gets a token a step and leaves after its last."""
    return max(sum(held + step for held, left in requests if step <= left) for step in range(1, 61))


@given(REQUESTS)
def test_the_peak_is_what_playing_it_out_comes_to(requests: list[tuple[int, int]]) -> None:
    held, left = (np.array(column, dtype=np.float64) for column in zip(*requests, strict=True))
    assert peak_tokens(held, left) == played(requests)


def joined(running: list[Row], waiting: list[Row], *, blocks: int, used: int, learned: int = 300) -> int:
    """How many join where so many answers have come to their cap."""
    kv = KvView(blocks=blocks, free_blocks=blocks - used, block_tokens=16)
    lengths = OutputLengths()
    for cap in {row.cap for row in (*running, *waiting)}:
        for _ in range(learned):
            lengths.ended(INTERACTIVE, cap_tokens=cap, emitted_tokens=cap)
    return len(joins_that_stay(columns(running), columns(waiting), np.arange(len(waiting)), kv, lengths))


def test_as_many_join_as_will_fit_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is expected to use its cap: 8 + 40 + 40 tokens, and three of them in 272."""
    monkeypatch.setattr(kv_peak, "OVERCOMMIT", 1.0)
    waiting = [Row(number, prefill=40, cap=40) for number in range(5)]
    assert joined([], waiting, blocks=17, used=0) == 3
    assert joined([], waiting, blocks=100, used=0) == 5


def test_until_lengths_are_known_a_cap_keeps_nobody_out() -> None:
    """Most callers leave a cap far above what answers come to."""
    waiting = [Row(number, prefill=40, cap=4000) for number in range(5)]
    assert joined([Row(9, context=40, emitted=1, cap=4000)], waiting, blocks=40, used=3, learned=0) == 5
    assert joined([Row(9, context=40, emitted=1, cap=4000)], waiting, blocks=40, used=3) == 0


def test_who_is_alone_may_join_whatever_it_will_need() -> None:
    assert joined([], [Row(1, prefill=40, cap=4000)], blocks=10, used=0) == 1
    assert joined([Row(1, context=40, emitted=1, cap=4000)], [Row(2, prefill=10)], blocks=10, used=3) == 0


def test_what_is_shared_counts_once() -> None:
    readers = [Row(number, context=320, emitted=10, cap=20) for number in range(8)]
    assert joined(readers, [Row(9, prefill=16, cap=16)], blocks=60, used=24) == 1, "the blocks in use say that most is shared"
    assert joined(readers, [Row(9, prefill=400, cap=16)], blocks=160, used=160) == 0


@given(REQUESTS, REQUESTS, st.integers(4, 200))
def test_in_order_and_never_more_than_before(
    running: list[tuple[int, int]], waiting: list[tuple[int, int]], blocks: int
) -> None:
    beside = [Row(number, context=held, emitted=1, cap=left + 1) for number, (held, left) in enumerate(running)]
    coming = [Row(100 + number, prefill=held, cap=left) for number, (held, left) in enumerate(waiting)]
    used = min(blocks, sum(-(-held // 16) for held, _ in running))
    few, many = (joined(beside, coming, blocks=size, used=used) for size in (blocks, 2 * blocks))
    assert 0 <= few <= many <= len(coming)
