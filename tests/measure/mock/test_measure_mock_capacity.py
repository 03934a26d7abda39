"""The mock's capacity: slots, shared processors, a bounded queue, a freeze, clients that go away."""

from __future__ import annotations

import asyncio

import pytest
from mock_client import Reply, asking, exchange, post, with_mock

from setpoint.measure.mock import Ended, MockLog, MockOptions
from setpoint.measure.mock.server import MockServer


def crowd(count: int, options: MockOptions, tokens: int = 5) -> tuple[list[Reply], MockLog]:
    """``count`` requests at once, and the log."""

    async def use(mock: MockServer) -> tuple[list[Reply], MockLog]:
        request = post(asking(tokens))
        replies = await asyncio.gather(*(exchange(mock.url, request) for _ in range(count)))
        return replies, mock.log()

    return with_mock(options, use)


def test_slots_bound_how_many_are_served_and_the_others_wait_in_order() -> None:
    replies, log = crowd(9, MockOptions(ttft_s=0.02, itl_s=0.002, slots=2))
    assert all(len(reply.texts) == 5 for reply in replies)
    begun_s = [request.begun_s or 0.0 for request in log.requests]
    ended_s = [request.ended_s or 0.0 for request in log.requests]
    assert begun_s == sorted(begun_s)
    for begin_s in begun_s:
        serving = sum(begin <= begin_s < end for begin, end in zip(begun_s, ended_s, strict=True))
        assert 1 <= serving <= 2


def test_shared_processors_slow_everybody_down() -> None:
    _, log = crowd(8, MockOptions(ttft_s=0.02, itl_s=0.004, processors=2), tokens=11)
    # 60 ms alone; eight on two run a quarter as fast from the moment that all are there.
    assert all((request.ended_s or 0.0) - (request.begun_s or 0.0) > 0.11 for request in log.requests)
    assert max((request.ended_s or 0.0) - (request.begun_s or 0.0) for request in log.requests) > 0.15


@pytest.mark.parametrize("place", ["slots", "processors"])
def test_queue_is_bounded(place: str) -> None:
    options = MockOptions(ttft_s=0.05, queue_max=3, slots=2) if place == "slots" else MockOptions(queue_max=3, processors=2)
    replies, log = crowd(8, options)
    assert sorted(reply.status for reply in replies) == [200] * 5 + [503] * 3
    refused = [request for request in log.requests if request.ended is Ended.REFUSED]
    assert [(request.status, len(request.sends_s), len(request.token_times_s)) for request in refused] == [(503, 1, 0)] * 3


def test_freeze_stops_everything_and_then_goes_on_where_it_stood() -> None:
    _, log = crowd(3, MockOptions(ttft_s=0.1, itl_s=0.01, frozen_s=(0.13, 0.43)), tokens=20)
    ((begin_s, end_s),) = log.freezes_s
    assert end_s - begin_s >= 0.3
    for request in log.requests:
        assert not any(begin_s < time_s < end_s for time_s in request.sends_s)
        assert request.sends_s[-1] - (request.begun_s or 0.0) >= 0.1 + 19 * 0.01 + (end_s - begin_s) - 1e-6


def test_client_that_goes_away_gives_its_place_to_the_next() -> None:
    async def use(mock: MockServer) -> MockLog:
        first = asyncio.ensure_future(exchange(mock.url, post(asking(1, mock="silent"))))
        while not mock.log().requests:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(exchange(mock.url, post(asking(3))))
        while len(mock.log().requests) < 2:
            await asyncio.sleep(0)
        assert mock.log().requests[1].begun_s is None
        first.cancel()
        assert len((await second).texts) == 3
        return mock.log()

    log = with_mock(MockOptions(slots=1, ttft_s=0.01), use)
    assert [request.ended for request in log.requests] == [Ended.CLIENT_GONE, Ended.COMPLETE]


def test_log_forgets_the_oldest_and_counts_them() -> None:
    _, log = crowd(7, MockOptions(ttft_s=0.0, itl_s=0.0, log_max=3))
    assert (len(log.requests), log.forgotten) == (3, 4)
