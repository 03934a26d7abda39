"""The live line of a batch: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import asyncio
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from setpoint.loop.offline.tally import Tally

DRAW_EVERY_S = 0.25
TROUBLE_CHARS = 60
PLAIN_PERIODS_S = (2.0, 8.0, 20.0, 30.0, 60.0)
"""Between plain lines; the last one from then on."""


async def show_progress(tally: Tally, console: Console) -> None:
    """Show ``tally`` until cancelled, and once more then."""
    if not console.is_terminal:
        await _plain_lines(tally, console)
        return
    columns = (BarColumn(bar_width=24), TextColumn("{task.fields[words]}", markup=False))
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("batch", total=tally.total, words="")
        try:
            while True:
                bar.update(task, completed=tally.ended, words=words(tally, monotonic()), refresh=True)
                await asyncio.sleep(DRAW_EVERY_S)
        finally:
            bar.update(task, completed=tally.ended, words=words(tally, monotonic()), refresh=True)


async def _plain_lines(tally: Tally, console: Console) -> None:
    periods = iter(PLAIN_PERIODS_S)
    period_s = next(periods)
    try:
        while True:
            await asyncio.sleep(period_s)
            period_s = next(periods, period_s)
            _say(tally, console)
    finally:
        _say(tally, console)


def _say(tally: Tally, console: Console) -> None:
    console.print(words(tally, monotonic()), markup=False, soft_wrap=True)


def words(tally: Tally, now_s: float) -> str:
    """One line: how far, how many failed, how fast, how long still."""
    parts = [f"{tally.ended}/{tally.total}", f"{tally.failed} failed", f"{tally.tokens_per_s(now_s):.0f} tok/s"]
    if tally.under_way:
        parts.append(f"{tally.under_way} under way")
    remaining_s = tally.remaining_s(now_s) if tally.left else None
    if remaining_s is not None:
        parts.append(f"{duration_words(remaining_s)} left")
    if tally.last_trouble:
        parts.append(tally.last_trouble[:TROUBLE_CHARS])
    return " | ".join(parts)


def duration_words(seconds: float) -> str:
    """``42s``, ``3m 20s``, ``2h 5m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"
