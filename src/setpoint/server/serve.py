"""Running an app on a port: one line when it is ready, a drain on the first signal, the end on the second."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette

from setpoint.engine.request import EngineFailed
from setpoint.server.connection import Guard
from setpoint.server.context import ServerContext

EXIT_OK: Final = 0
EXIT_CANNOT_SERVE: Final = 2
DEFAULT_DRAIN_S: Final = 30.0
# Between the end of the drain, when the engine ends what is left, and the moment connections are cut.
CUT_GRACE_S: Final = 2.0
BACKLOG: Final = 2048


class CannotServe(Exception):
    """The server cannot be started; the message is one line for the user."""


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes a free one. Raises ``CannotServe``."""
    if not 0 <= port <= 65535:
        raise CannotServe(f"cannot serve on {host}:{port}: a port is a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise CannotServe(f"cannot serve on {host}:{port}: {error}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Claims the port now: two binds may both succeed until one listens.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotServe(f"cannot serve on {host}:{port}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class SignalledServer(uvicorn.Server):
    """A uvicorn server that tells when it is ready and drains the engine while connections end.

    ``on_ready`` is called once the port accepts connections. The first SIGTERM or SIGINT gives requests in flight
    ``drain_s`` seconds, in which new ones are answered with 503; a second ends the process at once.
    """

    def __init__(self, app: Starlette, *, drain_s: float, on_ready: Callable[[], None]) -> None:
        guard: Guard = app.state.guard
        config = uvicorn.Config(
            app,
            loop="auto" if sys.platform == "win32" else "uvloop",
            http=guard.protocol(),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=math.ceil(guard.limits.keep_alive_s),
        )
        super().__init__(config)
        self._guard = guard
        self._context: ServerContext = app.state.context
        self._drain_s = drain_s
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then tell."""
        await super().startup(sockets)
        if self.started:
            self._sweeping = asyncio.create_task(self._guard.keep_sweeping())
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the engine, still telling whoever comes that it drains; then close.

        Idle connections are closed at once and the others after their answer. What is not read ``CUT_GRACE_S`` after the
        drain's end is cut.
        """
        clock = asyncio.get_running_loop().time
        end_s = clock() + self._drain_s + CUT_GRACE_S
        for connection in list(self._guard.connections):
            connection.retire()
        await self._context.stop(drain_s=self._drain_s)
        self.config.timeout_graceful_shutdown = max(1, math.ceil(end_s - clock()))
        await super().shutdown(sockets)
        self._sweeping.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second kills."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True


def announce(url: str) -> None:
    """The one line on standard output when the server is ready."""
    print(f"setpoint is serving at {url}", flush=True)


def run_server(
    app: Starlette,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    drain_s: float = DEFAULT_DRAIN_S,
    on_ready: Callable[[str], None] = announce,
) -> int:
    """Serve until a signal. Returns the exit code: 0 after a drain, 2 if the port or the engine cannot be had.

    The port is taken before the engine starts, so that a port in use is told at once. ``on_ready`` gets the URL.
    """
    context: ServerContext = app.state.context
    try:
        listener = bind(host, port)
    except CannotServe as error:
        print(f"setpoint: {error}", file=sys.stderr)
        return EXIT_CANNOT_SERVE
    server = SignalledServer(app, drain_s=drain_s, on_ready=lambda: on_ready(url_of(listener)))

    async def serve() -> int:
        try:
            await context.start()
        except EngineFailed as error:
            print(f"setpoint: cannot serve {context.engine.model_name}: {error}", file=sys.stderr)
            return EXIT_CANNOT_SERVE
        await server.serve(sockets=[listener])
        return EXIT_OK

    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            return runner.run(serve())
    except KeyboardInterrupt:  # while the engine was starting; from then on the server handles signals
        return 128 + signal.SIGINT
    finally:
        listener.close()
