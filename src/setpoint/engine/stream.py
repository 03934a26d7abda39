"""One request's answer on its way from the engine's thread to whoever reads it on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from setpoint.engine.detokenize import TextStream
from setpoint.engine.request import Delta, GenerationRequest
from setpoint.engine.sequence import Sequence


class EngineStream:
    """A ``service.TokenStream``. The engine never waits for its reader; unread deltas are bounded by ``max_tokens``.

    ``cancelled`` is called with the stream when its reader wants no more.
    """

    def __init__(self, request: GenerationRequest, cancelled: Callable[[EngineStream], None]) -> None:
        self.request = request
        self.prompt_tokens = len(request.prompt_ids)
        self.cached_tokens = 0
        self._cancelled = cancelled
        self._deltas: asyncio.Queue[Delta] = asyncio.Queue()
        self._told_end = False
        self._read_end = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while not self._read_end:
            delta = await self._deltas.get()
            self._read_end = delta.finish_reason is not None
            yield delta

    def cancel(self) -> None:
        """End the request; its KV blocks are free at the next step."""
        self._cancelled(self)

    def push(self, delta: Delta) -> None:
        """Called on the event loop by the engine. What comes after the end, from a step given up, is not for the reader."""
        if self._told_end:
            return
        self._told_end = delta.finish_reason is not None
        self._deltas.put_nowait(delta)


class LiveRequest:
    """A request inside the engine, as the engine's thread sees it.

    ``told_tokens``: tokens that its reader was given; those that a step gave behind a stop string are not among them.
    """

    __slots__ = ("sequence", "stream", "text", "told_tokens")

    def __init__(self, sequence: Sequence, stream: EngineStream, text: TextStream) -> None:
        self.sequence = sequence
        self.stream = stream
        self.text = text
        self.told_tokens = 0
