"""Watches, each looking at its pages from time to time while the load runs, and reading them when it is over."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from setpoint.measure.exchange import Exchange
from setpoint.measure.llamacpp_slots import read_slots
from setpoint.measure.metrics_text import read_page
from setpoint.measure.page_source import FETCH_TIMEOUT_S, KeptLooks, KeptPages, PageSource, body_text, page_at
from setpoint.measure.power import PowerSide, PowerSource, read_power
from setpoint.measure.server_account import ServerSide
from setpoint.measure.server_kinds import COUNTERS, SHARES, ServerKind, spoken
from setpoint.measure.setpoint_records import DECISIONS_PATH, REQUESTS_PATH, STEPS_PATH, midpoint_s, read_records
from setpoint.measure.target import Target

METRICS_PERIOD_S = 1.0
RECORDS_PERIOD_S = 2.0
START_TIMEOUT_S = 0.5
# A page that takes long to make is asked for less often: at least so many times its own duration apart.
REST_FACTOR = 2.0
GOLDEN_RATIO = 0.6180339887498949
NOTES_MAX = 20

_NEXT = re.compile(rb'"next"\s*:\s*(\d+)')
_LLAMACPP = b"llamacpp:"


@dataclass(frozen=True, slots=True)
class _Reading:
    """One page's quantities; ``supplement``: only those that no page of metrics has count."""

    values: dict[str, float]
    kinds: tuple[ServerKind, ...]
    supplement: bool = False


class Watch(ABC):
    """Looks once at the start, then about every ``period_s``, then once at the end.

    The time between looks varies from half a period to one and a half, spread evenly by the golden ratio: looks at even
    times would see a load of even arrivals always at the same point, idle or busy.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._first_look = asyncio.Event()

    @property
    @abstractmethod
    def sources(self) -> Sequence[PageSource]:
        """The pages it looks at."""

    @abstractmethod
    async def look(self, *, first: bool = False) -> None:
        """Fetch and keep."""

    @property
    def over(self) -> bool:
        """Whether no page is left to look at."""
        return all(source.absent for source in self.sources)

    async def run(self) -> None:
        """Look until cancelled, or until no page is left."""
        clock = asyncio.get_running_loop().time
        turn = 0.0
        try:
            while not self.over:
                begun_s = clock()
                await self.look(first=not self._first_look.is_set())
                self._first_look.set()
                turn = (turn + GOLDEN_RATIO) % 1.0
                await asyncio.sleep(max(self.period_s * (0.5 + turn), REST_FACTOR * (clock() - begun_s)))
        finally:
            self._first_look.set()

    async def looked_once(self) -> None:
        """Return after the first look."""
        await self._first_look.wait()


class MetricsWatch(Watch):
    """The ``/metrics`` pages of one server, or of several that serve together; with llama.cpp ``/slots`` beside them."""

    def __init__(self, target: Target, metrics_urls: Sequence[str]) -> None:
        super().__init__(METRICS_PERIOD_S)
        self._pages = [PageSource(*page_at(url), named_by_user=True) for url in metrics_urls]
        self._slots: PageSource | None = None
        self._may_have_slots: Target | None = None
        if not metrics_urls:
            self._pages = [PageSource(target, "/metrics")]
            self._may_have_slots = target
        self._kept = KeptLooks(METRICS_PERIOD_S)

    @property
    def sources(self) -> Sequence[PageSource]:
        return self._pages if self._slots is None else [*self._pages, self._slots]

    async def look(self, *, first: bool = False) -> None:
        """One look at all pages at the same time; it counts only if every page that is there came."""
        asked = [source for source in self.sources if not source.absent]
        taken = await asyncio.gather(*(source.take() for source in asked))
        self._look_for_slots(taken)
        # A page that was found absent just now is not waited for again.
        due = [page for source, page in zip(asked, taken, strict=True) if not source.absent]
        pages = tuple(page for page in due if page is not None)
        if pages and len(pages) == len(due):
            self._kept.keep(pages)
            self.period_s = self._kept.period_s

    def _look_for_slots(self, taken: Sequence[Exchange | None]) -> None:
        """Once it is known whose page it is: llama.cpp's tells nothing of the KV cache, its slots do."""
        if self._may_have_slots is None:
            return
        page = taken[0]
        if self._pages[0].lacks_metrics_option or (page is not None and _LLAMACPP in page.body()):
            self._slots = PageSource(self._may_have_slots, "/slots")
        if page is not None or self._pages[0].absent:
            self._may_have_slots = None

    def read(self, side: ServerSide, start_s: float, model: str) -> None:
        """Read the kept pages into ``side``; ``start_s`` is the start of the run on the clock."""
        rows: list[dict[str, float]] = []
        kinds: set[ServerKind] = set()
        for pages in self._kept.looks:
            try:
                readings = [_read(page, model) for page in pages]
            except ValueError as error:
                side.notes += [f"/metrics: {error}"] if len(side.notes) < NOTES_MAX else []
                continue
            kinds.update(kind for reading in readings for kind in reading.kinds)
            rows.append(_together(readings))
            side.metrics_times_s.append(sum(map(midpoint_s, pages)) / len(pages) - start_s)
            side.scrape_s_max = max(side.scrape_s_max or 0.0, *map(_duration_s, pages))
        for name in sorted({name for row in rows for name in row}):
            # A counter stands on some servers' pages only once it has counted something: before that it was 0.
            missing = 0.0 if name in COUNTERS else None
            side.metrics[name] = [row.get(name, missing) for row in rows]
        side.kind = spoken(tuple(kind for kind in ServerKind if kind in kinds)) if kinds else None
        side.note_restarts()


class RecordsWatch(Watch):
    """The records of setpoint's own server: each look brings what is new."""

    def __init__(self, target: Target) -> None:
        super().__init__(RECORDS_PERIOD_S)
        self._requests, self._steps = PageSource(target, REQUESTS_PATH), PageSource(target, STEPS_PATH)
        self._decisions = PageSource(target, DECISIONS_PATH)
        self._since = dict.fromkeys(self.sources, 0)
        self._kept = {source: KeptPages() for source in self.sources}

    @property
    def sources(self) -> Sequence[PageSource]:
        return (self._requests, self._steps, self._decisions)

    async def look(self, *, first: bool = False) -> None:
        """Fetch what is new; the first look only finds out where new begins."""
        await asyncio.gather(*(self._look_at(source, first) for source in self.sources if not source.absent))

    async def _look_at(self, source: PageSource, first: bool) -> None:
        page = await source.take(START_TIMEOUT_S if first else FETCH_TIMEOUT_S, f"?since={self._since[source]}")
        if page is None:
            return
        found = _NEXT.search(page.body())
        if found is None:
            source.absent = True
            return
        if not first and not await self._kept[source].keep(page):
            source.give_up("more records than are kept; those of the rest of the run are missing")
        self._since[source] = int(found.group(1))  # Only now: a look that is cut short is taken again.

    def read(self, side: ServerSide, start_s: float) -> None:
        """Read the kept pages into ``side``; ``start_s`` is the start of the run on the clock."""
        requests, steps, decisions = (self._kept[source].pages for source in self.sources)
        records = read_records(requests, steps, decisions, start_s, side.notes)
        side.requests, side.steps, side.clock_error_s = records.requests, records.steps, records.clock_error_s
        side.decisions = records.decisions


class PowerWatch(Watch):
    """The page of a power exporter."""

    def __init__(self, power: PowerSource) -> None:
        super().__init__(METRICS_PERIOD_S)
        self._power = power
        self._shown = power.url.partition("?")[0]  # What is asked of it may be a key.
        self._page = PageSource(*page_at(power.url), named_by_user=True)
        self._kept = KeptLooks(METRICS_PERIOD_S)

    @property
    def sources(self) -> Sequence[PageSource]:
        return (self._page,)

    async def look(self, *, first: bool = False) -> None:
        """Fetch the page."""
        page = await self._page.take()
        if page is not None:
            self._kept.keep((page,))
            self.period_s = self._kept.period_s

    def read(self, side: ServerSide, start_s: float) -> None:
        """Read the kept pages into ``side``; ``start_s`` is the start of the run on the clock."""
        power = PowerSide()
        for (page,) in self._kept.looks:
            try:
                reading = read_power(body_text(page), self._power.gpus)
            except ValueError as error:
                side.notes += [f"{self._shown}: {error}"] if len(side.notes) < NOTES_MAX else []
                continue
            if reading is not None:
                power.add(midpoint_s(page) - start_s, reading)
        if power.times_s:
            side.power = power
        elif self._kept.looks:
            chosen = f" for GPU {', '.join(self._power.gpus)}" if self._power.gpus else ""
            side.notes.append(f"{self._shown}: no power figure of a known exporter{chosen} on this page")


def _read(page: Exchange, model: str) -> _Reading:
    """One page of metrics or of slots, told apart by how they begin."""
    text = body_text(page)
    if text.lstrip().startswith("["):
        return _Reading(read_slots(text), (ServerKind.LLAMACPP,), supplement=True)
    reading = read_page(text, model)
    return _Reading(reading.values, reading.kinds)


def _together(readings: Sequence[_Reading]) -> dict[str, float]:
    """What several pages say as one: sums, and the largest of shares. A supplement adds only what no other page says."""
    values: dict[str, float] = {}
    for reading in readings:
        for name, value in reading.values.items():
            if reading.supplement or name not in values:
                values.setdefault(name, value)
            else:
                values[name] = max(values[name], value) if name in SHARES else values[name] + value
    return values


def _duration_s(page: Exchange) -> float:
    assert page.sent_s is not None
    assert page.ended_s is not None
    return page.ended_s - page.sent_s
