"""Connections to one server: used again while fresh, opened on demand up to a bound; beyond it requests wait."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from time import monotonic

from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.http import Connection
from setpoint.measure.target import Target

REQUEST_QUEUE_MAX = 10_000_000
SPARE_DESCRIPTORS = 64

# Errors of opening a connection that are this machine's, not the server's: no descriptor, port or memory left.
_OWN_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})

# A server that closes after an answer without having said so does it within this time of the answer's end.
CLOSE_GRACE_S = 0.001
UNANNOUNCED_CLOSE_S = 1.0


def descriptors_for(connections: int) -> int:
    """How many of ``connections`` the system allows, after raising the process's soft limit of open files if need be."""
    try:
        import resource
    except ImportError:  # Not a Unix: there is no such limit to ask for.
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(connections, soft - SPARE_DESCRIPTORS))
    return connections


class ConnectionPool:
    """At most ``limit`` connections, one exchange on each, so ``limit`` also bounds the requests in flight.

    Exchanges beyond the bound wait in order of submission and are counted in ``held_back``. A connection that fails to
    open ends its own exchange; nothing is sent twice.

    Some servers close the connection after an answer and do not announce it. A request sent into such a close would
    count as a failure of the server, so until a connection has been seen to outlive its answer by ``CLOSE_GRACE_S``, and
    again from the first such close on, no connection is used again within that time; another is opened.
    """

    def __init__(self, target: Target, *, limit: int, connect_timeout_s: float, idle_s: float) -> None:
        self._connections_max = descriptors_for(2 * limit)
        limit = min(limit, self._connections_max)
        self._address = target.address
        self._tls: ssl.SSLContext | None = target.tls_context()
        self._limit = limit
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._host = self._address.host
        self._idle: deque[Connection] = deque()
        self._connections: set[Connection] = set()
        self._connecting: dict[Exchange, asyncio.Task[None]] = {}
        self._waiting: deque[Exchange] = deque()
        self._closed = False
        self._grace_s = CLOSE_GRACE_S
        self._closes_early = False
        self.opened = 0
        self.held_back = 0
        self.in_flight_peak = 0

    async def resolve(self) -> None:
        """Look the host up once, so that no request pays for it; an unknown name fails later, in each request."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._address.host, self._address.port, type=socket.SOCK_STREAM
            )
        except OSError:
            return
        for family, kind, protocol, _, place in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setblocking(False)
                try:
                    async with asyncio.timeout(self._connect_timeout_s):
                        await asyncio.get_running_loop().sock_connect(trial, place)
                except (OSError, TimeoutError):
                    continue
            self._host = str(place[0])
            return

    @property
    def in_flight(self) -> int:
        """Connections that carry an exchange or are being opened for one."""
        return len(self._connections) + len(self._connecting) - len(self._idle)

    @property
    def waiting(self) -> int:
        """Exchanges held back by the bound."""
        return len(self._waiting)

    def submit(self, exchange: Exchange) -> None:
        """Send now, or open a connection and send, or wait for one."""
        if self._waiting or self.in_flight >= self._limit:
            assert len(self._waiting) < REQUEST_QUEUE_MAX
            self._waiting.append(exchange)
            self.held_back += 1
        else:
            self._start(exchange)

    def prune(self) -> None:
        """Close connections that have been idle for too long."""
        oldest_s = monotonic() - self._idle_s
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._retire(self._idle.popleft())

    def _retire(self, connection: Connection) -> None:
        """Close an idle connection; it no longer counts."""
        self._connections.discard(connection)
        connection.close()

    def fail(self, exchange: Exchange, kind: ErrorKind, detail: str) -> None:
        """End an exchange that is under way, with its connection."""
        if exchange.connection is not None:
            exchange.connection.abort()
        elif exchange.connecting is not None:
            exchange.connecting.cancel()
        exchange.end(monotonic(), kind, detail)

    def finish(self, exchange: Exchange, ended_s: float) -> None:
        """End an exchange that has its whole answer, with its connection, which the server left open."""
        if exchange.connection is not None:
            exchange.connection.abort()
        exchange.end(ended_s, known_s=monotonic())

    def cut_off(self) -> None:
        """Close everything at once; exchanges under way and waiting stay without an end."""
        self._closed = True
        self._waiting.clear()
        for task in self._connecting.values():
            task.cancel()
        for connection in list(self._connections):
            connection.abort()

    async def close(self) -> None:
        """Cut off and wait until every connection attempt is over."""
        self.cut_off()
        await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        await asyncio.sleep(0)

    def _start(self, exchange: Exchange) -> None:
        connection = self._take_idle()
        if connection is not None:
            connection.send(exchange)
        else:
            exchange.connect_started_s = monotonic()
            task = asyncio.get_running_loop().create_task(self._open(exchange))
            exchange.connecting = task
            self._connecting[exchange] = task
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def _take_idle(self) -> Connection | None:
        """The connection used last, if it is fresh enough; the one idle for longest where the server may be closing."""
        self.prune()
        full = len(self._connections) + len(self._connecting) >= self._connections_max
        while self._idle:
            rested = monotonic() - self._idle[0].idle_since_s >= self._grace_s
            if not rested and not full:
                return None
            connection = self._idle.popleft() if self._grace_s else self._idle.pop()
            if connection.is_alive():
                if rested and not self._closes_early:
                    self._grace_s = 0.0
                return connection
            self._retire(connection)
        return None

    async def _open(self, exchange: Exchange) -> None:
        where = self._address.authority
        try:
            connection = await self._connect()
        except TimeoutError:
            detail = f"no connection to {where} within {self._connect_timeout_s:g} s"
            exchange.end(monotonic(), ErrorKind.CONNECT_TIMEOUT, detail)
        except ConnectionRefusedError:
            exchange.end(monotonic(), ErrorKind.REFUSED, f"{where} refused the connection")
        except OSError as error:
            kind = ErrorKind.CLIENT if error.errno in _OWN_ERRORS else ErrorKind.UNREACHABLE
            exchange.end(monotonic(), kind, f"{where}: {error}")
        else:
            self._opened(connection, exchange)
        finally:
            self._connecting.pop(exchange, None)
            self._serve_waiting()

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self._connect_timeout_s):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._on_free, self._on_lost),
                self._host,
                self._address.port,
                ssl=self._tls,
                server_hostname=self._address.host if self._tls else None,
            )
        return connection

    def _opened(self, connection: Connection, exchange: Exchange) -> None:
        self.opened += 1
        exchange.connecting = None
        if self._closed or exchange.ended_s is not None:
            connection.abort()
            return
        self._connections.add(connection)
        exchange.connected_s = monotonic()
        if connection.is_usable():
            connection.send(exchange)
        else:
            exchange.end(monotonic(), ErrorKind.RESET, "the server closed the connection as soon as it was open")

    def _on_free(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        self._idle.append(connection)
        self._serve_waiting()

    def _on_lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            if monotonic() - connection.idle_since_s < UNANNOUNCED_CLOSE_S:
                self._closes_early = True
                self._grace_s = CLOSE_GRACE_S
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while not self._closed and self._waiting and self.in_flight < self._limit:
            exchange = self._waiting.popleft()
            if exchange.ended_s is None:
                self._start(exchange)
