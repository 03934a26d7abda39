"""Places for requests under way, of which there may be more or fewer as the run goes on."""

from __future__ import annotations

import asyncio

from setpoint.loop.offline.concurrency import Concurrency


class Places:
    """One taker waits for a place; a place that is given back is taken again only while that is within the limit."""

    def __init__(self, concurrency: Concurrency) -> None:
        self._concurrency = concurrency
        self._changed = asyncio.Event()
        self.taken = 0

    async def take(self) -> None:
        """Return when a place is ours."""
        while self.taken >= self._concurrency.limit:
            self._changed.clear()
            await self._changed.wait()
        self.taken += 1

    def give_back(self) -> None:
        """A request has ended. The limit changes at such moments only, or falls."""
        self.taken -= 1
        self._changed.set()
