"""Where words for the person go: standard error, so that standard output stays for results."""

from __future__ import annotations

from rich.console import Console

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One plain line."""
    console.print(text, markup=False)
