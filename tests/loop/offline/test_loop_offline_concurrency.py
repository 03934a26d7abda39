"""``auto`` against a server of known capacity on a virtual clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.loop.offline.concurrency import Adaptive, Concurrency, Fixed


@dataclass
class Served:
    """What a server saw in the second half of a run: the limits, and answers per second."""

    limits: list[int]
    rate_rps: float

    @property
    def mean_limit(self) -> float:
        return sum(self.limits) / len(self.limits)


def serve(concurrency: Concurrency, *, slots: int, room: int | None = None, answers: int = 8000) -> Served:
    """A server that works on ``slots`` requests at once, a second each on average, and refuses beyond ``room``.

    A refused request asks again after half a second.
    """
    random = Random(f"{slots}/{room}")
    now_s, half_s = 0.0, 0.0
    ends: list[float] = []
    asks: list[float] = []
    free_at_s = [0.0] * slots
    limits: list[int] = []
    while len(limits) < answers:
        asks += [now_s] * (concurrency.limit - len(ends) - len(asks))
        for _ in [at_s for at_s in asks if at_s <= now_s]:
            if room is not None and len(ends) >= room:
                concurrency.refused(now_s)
                asks.append(now_s + 0.5)
            else:
                end_s = max(now_s, heapq.heappop(free_at_s)) + random.uniform(0.4, 1.6)
                heapq.heappush(free_at_s, end_s)
                heapq.heappush(ends, end_s)
        asks = [at_s for at_s in asks if at_s > now_s]
        now_s = min([*ends[:1], *asks])
        while ends and ends[0] <= now_s:
            heapq.heappop(ends)
            concurrency.answered(now_s, random.randint(5, 15))
            limits.append(concurrency.limit)
        if len(limits) <= answers // 2:
            half_s = now_s
    return Served(limits[answers // 2 :], answers / 2 / (now_s - half_s))


@pytest.mark.parametrize("slots", [1, 3, 16, 50, 120])
def test_it_finds_what_the_server_can_do_and_not_much_more(slots: int) -> None:
    served = serve(Adaptive(), slots=slots)
    assert served.rate_rps >= 0.85 * slots
    assert served.mean_limit <= max(8, 2.5 * slots)


@pytest.mark.parametrize(("slots", "room"), [(16, 20), (64, 12), (4, 5)])
def test_refusals_keep_it_near_the_room_there_is(slots: int, room: int) -> None:
    served = serve(Adaptive(), slots=slots, room=room)
    assert max(served.limits) <= 1.3 * room + 1
    assert served.rate_rps >= 0.6 * min(slots, room)


def test_refusals_of_one_moment_count_once() -> None:
    concurrency = Adaptive(start=40)
    for _ in range(40):
        concurrency.refused(5.0)
    assert concurrency.limit == 30
    concurrency.refused(6.5)
    assert concurrency.limit == 22


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3), st.integers(0, 1000)), max_size=300), st.integers(1, 64))
def test_whatever_happens_it_stays_within_its_bounds(events: list[tuple[bool, float, int]], most: int) -> None:
    concurrency, now_s = Adaptive(start=1, most=most), 0.0
    for answered, after_s, tokens in events:
        now_s += after_s
        if answered:
            concurrency.answered(now_s, tokens)
        else:
            concurrency.refused(now_s)
        assert 1 <= concurrency.limit <= most


def test_a_fixed_number_stays() -> None:
    assert set(serve(Fixed(7), slots=3, room=2, answers=50).limits) == {7}
