"""Taking along what is ready: wait for one item of an asynchronous iterator, get all that can be had without waiting.

A stream that has fallen behind (a slow reader, a busy loop) catches up in one write instead of one write an item. There
is no task and no queue per stream: the iterator's next step is advanced by hand until it would wait, and parked there
until it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class _Parked(Generic[Item]):
    """Awaits a step that was already advanced to where it waits for ``awaited``."""

    def __init__(self, step: Generator[Any, Any, Item], awaited: Any) -> None:
        self._step = step
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Item]:
        awaited = self._awaited
        while True:
            try:
                sent = yield awaited
            except BaseException as error:
                try:
                    awaited = self._step.throw(error)
                except StopIteration as end:
                    value: Item = end.value
                    return value
            else:
                try:
                    awaited = self._step.send(sent)
                except StopIteration as end:
                    value = end.value
                    return value


class ReadAhead(Generic[Item]):
    """Batches of ready items. One reader at a time; ``close`` must be called when the reader leaves early."""

    def __init__(self, source: AsyncIterator[Item], *, most: int = 64) -> None:
        self._source = source
        self._most = most
        self._step: Generator[Any, Any, Item] | None = None
        self._awaited: Any = None
        self._ended = False

    async def batch(self) -> list[Item]:
        """At least one item, waiting for it, and at most ``most``; empty at the end."""
        items: list[Item] = []
        try:
            while len(items) < self._most and not self._ended:
                if self._step is None:
                    self._advance(items)
                elif items:
                    break
                else:
                    step, self._step = self._step, None
                    items.append(await _Parked(step, self._awaited))
        except StopAsyncIteration:
            self._ended = True
        return items

    def _advance(self, items: list[Item]) -> None:
        """Start the next step; either it ends at once with an item, or it stays parked."""
        step = self._source.__anext__().__await__()
        try:
            self._awaited = next(step)
        except StopIteration as end:
            items.append(end.value)
        else:
            self._step = step

    def close(self) -> None:
        """Abandon the parked step, as if its task had been cancelled."""
        self._ended = True
        step, self._step = self._step, None
        if step is None:
            return
        try:
            step.throw(asyncio.CancelledError())
        except (asyncio.CancelledError, StopIteration, StopAsyncIteration):
            return
        step.close()
