"""What may live beside a server: it is started after the engine and stopped before it, and tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from setpoint.server.context import ServerContext


class Companion(Protocol):
    """For one server's life, on its event loop."""

    @property
    def path(self) -> str:
        """Where ``state`` is told."""
        ...

    @property
    def metrics(self) -> Collector:
        """What it adds to ``/metrics``."""
        ...

    async def start(self, context: ServerContext) -> None:
        """The engine runs."""
        ...

    async def stop(self) -> None:
        """The server ends."""
        ...

    def state(self) -> Mapping[str, object]:
        """Of now, as JSON holds it."""
        ...


class CompanionEndpoint:
    """``GET`` of a companion's state."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion

    async def state(self, request: Request) -> Response:
        """The state as JSON."""
        return JSONResponse(self._companion.state(), headers={"cache-control": "no-store"})
