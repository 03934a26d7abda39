"""Taking what is ready: nothing lost, nothing reordered, nothing waited for once something is in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from setpoint.server.read_ahead import ReadAhead


async def from_queue(queue: asyncio.Queue[int | None]) -> AsyncIterator[int]:
    while (item := await queue.get()) is not None:
        yield item


def test_ready_items_come_together() -> None:
    async def run() -> list[list[int]]:
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        reader = ReadAhead(from_queue(queue), most=4)
        for item in range(6):
            queue.put_nowait(item)
        batches = [await reader.batch(), await reader.batch()]
        waiting = asyncio.create_task(reader.batch())
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.put_nowait(6)
        batches.append(await waiting)
        queue.put_nowait(None)
        return [*batches, await reader.batch(), await reader.batch()]

    assert asyncio.run(run()) == [[0, 1, 2, 3], [4, 5], [6], [], []]


@given(groups=st.lists(st.integers(0, 5), max_size=12), most=st.integers(1, 4), pauses=st.integers(0, 3))
def test_every_item_comes_once_and_in_order(groups: list[int], most: int, pauses: int) -> None:
    async def run() -> list[list[int]]:
        queue: asyncio.Queue[int | None] = asyncio.Queue()

        async def feed() -> None:
            number = 0
            for size in groups:
                for _ in range(size):
                    queue.put_nowait(number)
                    number += 1
                for _ in range(pauses):
                    await asyncio.sleep(0)
            queue.put_nowait(None)

        feeding = asyncio.create_task(feed())
        reader = ReadAhead(from_queue(queue), most=most)
        batches: list[list[int]] = []
        while batch := await reader.batch():
            batches.append(batch)
            # Other awaits of the same task come between: the parked step must survive them.
            await asyncio.sleep(0)
        await feeding
        return batches

    batches = asyncio.run(run())
    assert [item for batch in batches for item in batch] == list(range(sum(groups)))
    assert all(1 <= len(batch) <= most for batch in batches)


def test_items_before_an_error_are_not_lost() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        raise LookupError("broken")

    async def run() -> str:
        reader = ReadAhead(failing())
        assert await reader.batch() == [1]
        try:
            await reader.batch()
        except LookupError as error:
            return str(error)
        return "no error"

    assert asyncio.run(run()) == "broken"


def test_closing_ends_the_source() -> None:
    async def run() -> list[str]:
        seen: list[str] = []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.get_running_loop().create_future()
            finally:
                seen.append("ended")

        reader = ReadAhead(source())
        assert await reader.batch() == [1]
        reader.close()
        reader.close()
        assert await reader.batch() == []
        return seen

    assert asyncio.run(run()) == ["ended"]


def test_cancelling_the_reader_reaches_the_source() -> None:
    async def run() -> list[str]:
        seen: list[str] = []

        async def source() -> AsyncIterator[int]:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            yield 1

        reading = asyncio.create_task(ReadAhead(source()).batch())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        return seen

    assert asyncio.run(run()) == ["cancelled"]
