"""Noticing that the client has left, while its answer is being made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive


class Hangup:
    """Watches one connection from the end of the request's body on; calls ``then`` once if the client leaves.

    Used as ``async with Hangup(receive) as hangup``; the watch ends with the block.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._then: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.gone = False

    def call(self, then: Callable[[], None]) -> None:
        """What to do when the client leaves; done now if it already has."""
        self._then = then
        if self.gone:
            then()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            await asyncio.sleep(0)
        self.gone = True
        if self._then is not None:
            self._then()
