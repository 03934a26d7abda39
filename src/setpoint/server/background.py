"""A server on a thread of this process, for those who measure or test it from the same program."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from starlette.applications import Starlette

from setpoint.server.serve import SignalledServer, bind, url_of


class BackgroundServer:
    """``with BackgroundServer(app) as server: ... server.url``; the server drains for ``drain_s`` when the block ends.

    The thread has its own event loop, on which the engine is started and stopped. Raises ``CannotServe`` if the port
    cannot be had and ``RuntimeError`` if the server did not start.
    """

    def __init__(self, app: Starlette, *, host: str = "127.0.0.1", port: int = 0, drain_s: float = 0.0) -> None:
        self._listener = bind(host, port)
        self.url = url_of(self._listener)
        self.port: int = self._listener.getsockname()[1]
        self.loop: asyncio.AbstractEventLoop | None = None
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._server = SignalledServer(app, drain_s=drain_s, on_ready=self._settled.set)
        self._context = app.state.context
        self._thread = threading.Thread(target=self._run, name="setpoint-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._settled.wait()
        if self._error is not None:
            self._thread.join()
            raise RuntimeError(f"the server did not start: {self._error}") from self._error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Drain and end; waits for the thread."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._context.start()
            await self._server.serve(sockets=[self._listener])

        try:
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                runner.run(serve())
        except BaseException as error:
            self._error = error
        finally:
            self._settled.set()
            self._listener.close()
