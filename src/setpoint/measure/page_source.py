"""One page of a server that is fetched again and again beside the load: where it is, what became of each try, what was kept.

Pages are only stamped and kept while the load runs; whoever asked for them reads them afterwards.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from setpoint.measure.exchange import Exchange
from setpoint.measure.fetch import fetch
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.target import Target, TargetError

FETCH_TIMEOUT_S = 5.0
PAGE_BYTES_MAX = 16 << 20
KEPT_LOOKS_MAX = 1024
KEPT_BYTES_MAX = 128 << 20
PACKED_FROM_BYTES = 16 << 20

_NOT_OFFERED = frozenset({401, 403, 404, 405, 501})
_GZIP_MAGIC = b"\x1f\x8b"


def page_at(url: str, default_path: str = "/metrics") -> tuple[Target, str]:
    """The target of a page given by its whole URL, or by that of its server, and its path with what is asked of it.

    Raises ``TargetError``.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError as error:
        raise TargetError(f"{url}: cannot be read as a URL: {error}") from None
    target = Target(f"{parts.scheme}://{parts.netloc}")
    path = parts.path if parts.path not in ("", "/") else default_path
    if parts.fragment:
        raise TargetError(f"url: {target.url}{path} has a fragment (#...), which is not sent; leave it out")
    return target, f"{path}?{parts.query}" if parts.query else path


class PageSource:
    """Fetches one page of ``target``, on a connection of its own, and remembers what went wrong.

    absent: the server does not offer the page, or it is of no use; it need not be asked again.
    lacks_metrics_option: it is llama.cpp's server, started without ``--metrics``.
    """

    def __init__(self, target: Target, path: str, *, named_by_user: bool = False) -> None:
        self.path = path
        self.absent = False
        self.lacks_metrics_option = False
        self._target = target
        self._named_by_user = named_by_user
        self._pool = ConnectionPool(target, limit=2, connect_timeout_s=FETCH_TIMEOUT_S, idle_s=4.0)
        self._tries = 0
        self._failures = 0
        self._last_failure = ""
        self._ruling = ""

    async def take(self, timeout_s: float = FETCH_TIMEOUT_S, query: str = "") -> Exchange | None:
        """The page, or ``None`` where it did not come."""
        self._tries += 1
        exchange = await fetch(self._pool, self._target, self.path + query, timeout_s)
        if exchange.error is None and exchange.status == 200:
            if sum(map(len, exchange.chunks)) <= PAGE_BYTES_MAX:
                return exchange
            self.give_up(f"a page of more than {PAGE_BYTES_MAX >> 20} MiB is not read")
        elif exchange.error is None and exchange.status in _NOT_OFFERED:
            self._not_offered(exchange)
        else:
            self._failures += 1
            self._last_failure = exchange.detail or f"HTTP {exchange.status}"
        return None

    def _not_offered(self, exchange: Exchange) -> None:
        if b"--metrics" in exchange.body():
            self.lacks_metrics_option = True
            self.give_up("this server has no metrics; start llama-server with --metrics to see its queue and tokens")
        elif self._named_by_user or exchange.status in (401, 403):
            self.give_up(f"HTTP {exchange.status}")
        else:
            self.absent = True

    def give_up(self, why: str) -> None:
        """Do not ask again, and tell why."""
        self.absent = True
        self._ruling = f"{self._shown}: {why}"

    def notes(self) -> list[str]:
        """What the user should know, in at most two sentences."""
        notes = [self._ruling] if self._ruling else []
        if self._failures:
            notes.append(
                f"{self._shown}: {self._failures} of {self._tries} looks failed, the last one with: {self._last_failure}"
            )
        return notes

    @property
    def _shown(self) -> str:
        path = self.path.partition("?")[0]  # What is asked of it may be a key.
        return f"{self._target.url}{path}" if self._named_by_user else path

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()


@dataclass(slots=True)
class KeptLooks:
    """Looks at one or several pages at the same time, as many as memory allows.

    When the bound is reached every second look is let go and the time between looks doubles: a long run keeps its
    beginning, its end and an even picture of what lies between.
    """

    period_s: float
    looks: list[tuple[Exchange, ...]] = field(default_factory=list)
    _bytes: int = 0

    def keep(self, pages: tuple[Exchange, ...]) -> None:
        """Keep the pages of one look."""
        self.looks.append(pages)
        self._bytes += _size(pages)
        if len(self.looks) > KEPT_LOOKS_MAX or (self._bytes > KEPT_BYTES_MAX and len(self.looks) > 2):
            # The newest stays: there may be no later one.
            self.looks = [*self.looks[:-1:2], self.looks[-1]]
            self._bytes = sum(map(_size, self.looks))
            self.period_s *= 2


@dataclass(slots=True)
class KeptPages:
    """Pages each of which brings something new, so that none can be let go: from ``PACKED_FROM_BYTES`` on they are packed."""

    pages: list[Exchange] = field(default_factory=list)
    _bytes: int = 0

    async def keep(self, page: Exchange) -> bool:
        """Keep a page; False if there is no more room, which is ``KEPT_BYTES_MAX``."""
        if self._bytes >= PACKED_FROM_BYTES:
            page.chunks = [await asyncio.to_thread(gzip.compress, page.body(), 1)]
        size = _size((page,))
        if self._bytes + size > KEPT_BYTES_MAX:
            return False
        self._bytes += size
        self.pages.append(page)
        return True


def body_text(exchange: Exchange) -> str:
    """The page as text, unpacked where the server packed it unasked, or we did. Raises ``ValueError`` if that cannot be."""
    data = exchange.body()
    if data.startswith(_GZIP_MAGIC):
        try:
            data = zlib.decompressobj(wbits=31).decompress(data, PAGE_BYTES_MAX)
        except zlib.error as error:
            raise ValueError(f"a packed page cannot be read: {error}") from error
    return data.decode("utf-8", "replace")


def _size(pages: tuple[Exchange, ...]) -> int:
    return sum(len(chunk) for page in pages for chunk in page.chunks)
