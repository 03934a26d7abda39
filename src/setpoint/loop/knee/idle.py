"""Between two probes: the next one finds the server as idle as the first did."""

from __future__ import annotations

import asyncio
from time import monotonic

from setpoint.measure.options import LoadOptions
from setpoint.measure.server_side import ServerWatch
from setpoint.measure.target import Target

PAUSE_S = 0.5
LOOK_S = 1.0
CUT_OFF_PAUSE_S = 5.0
LONGEST_S = 60.0


async def until_idle(target: Target, load: LoadOptions, *, cut_off: bool) -> None:
    """Return when nothing runs at the server any more, after ``LONGEST_S`` at the latest.

    If every answer came, a short pause is enough. Requests that were cut off may go on at the server though their
    connections are closed: then its metrics are asked, or a few seconds pass where it has none.
    """
    await asyncio.sleep(PAUSE_S)
    if not cut_off:
        return
    end_s = monotonic() + LONGEST_S
    while monotonic() < end_s:
        under_way = await _under_way(target, load)
        if under_way is None:
            await asyncio.sleep(CUT_OFF_PAUSE_S)
            return
        if under_way == 0.0:
            return
        await asyncio.sleep(LOOK_S)


async def _under_way(target: Target, load: LoadOptions) -> float | None:
    """Requests running and waiting at the server by its own metrics, ``None`` where it does not say."""
    watch = ServerWatch(target, metrics_urls=load.metrics_urls)
    start_s = monotonic()
    await watch.start()
    await watch.stop()
    side = watch.result(start_s)
    counts = [side.peak(name, -LONGEST_S, LONGEST_S) for name in ("running", "waiting")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
