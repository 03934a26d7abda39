"""Where words for the person go: standard error, so that standard output stays for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from setpoint.measure.progress import ProgressLine

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One plain line; a long one is left to the terminal, so that paths can be copied."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_line(label: str = "", *, quiet: bool = False) -> Iterator[ProgressLine]:
    """A live line of a measurement. If the measurement is cut short, the next words start on a line of their own."""
    try:
        yield ProgressLine(console, label=label, quiet=quiet)
    except BaseException:
        if console.is_terminal and not quiet:
            console.print()
        raise
