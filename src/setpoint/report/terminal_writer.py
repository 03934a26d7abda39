"""A console and what depends on it, for everything that is printed of a report."""

from __future__ import annotations

from rich.box import ASCII_DOUBLE_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from setpoint.report.format import NO_BREAK, printable


class Writer:
    """A console and what depends on it: which characters it can show, how wide it is."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ascii = console.options.ascii_only

    def plain(self, text: str) -> str:
        """``text`` without control characters and with plain spaces, in ASCII where the console can show nothing else."""
        text = printable(text).replace(NO_BREAK, " ")
        if not self.ascii:
            return text
        for found, instead in (("≤", "<="), ("≥", ">="), ("–", "-"), ("·", "-"), ("…", "...")):
            text = text.replace(found, instead)
        return text.encode("ascii", "replace").decode("ascii")

    def text(self, text: str, style: str = "") -> Text:
        """Text that is never read as markup."""
        return Text(self.plain(text), style=style)

    def table(self, title: str = "") -> Table:
        """An empty table in the house style, its title on the left."""
        box = ASCII_DOUBLE_HEAD if self.ascii else SIMPLE_HEAD
        heading = self.text(title, "bold") if title else None
        return Table(
            box=box,
            title=heading,
            title_justify="left",
            padding=(0, 0),
            collapse_padding=True,
            pad_edge=False,
            show_edge=False,
        )

    def print(self, text: str = "", style: str = "") -> None:
        """One paragraph, wrapped at words."""
        self.console.print(self.text(text, style))
