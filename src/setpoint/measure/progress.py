"""The live line of a running measurement: at most four a second on a terminal, one now and then elsewhere.

A refresh writes one preformatted line (some tens of microseconds): the event loop that draws it also stamps answers.
"""

from __future__ import annotations

from time import monotonic

from rich.console import Console

from setpoint.measure.running import Progress

PLAIN_PERIODS_S = (1.0, 1.0, 3.0, 5.0)
"""Between plain lines: the first figures are wanted soon, the rest is for the record."""
BAR_WIDTH = 16


class ProgressLine:
    """Shows ``Progress`` on a console; pass it as ``on_progress``.

    On a terminal the line is drawn over itself and left standing at the end. Elsewhere plain lines are printed, apart by
    ``PLAIN_PERIODS_S`` (the last one from then on), and one at the end. quiet: show nothing.
    """

    def __init__(self, console: Console | None = None, *, label: str = "", quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._label = f"{label} " if label else ""
        self._quiet = quiet
        self._plain_due_s = 0.0
        self._plain_lines = 0

    def __call__(self, progress: Progress) -> None:
        """Draw or print one moment of the run."""
        if self._quiet:
            return
        file = self._console.file
        if self._console.is_terminal:
            line = self._line(progress, max(20, self._console.width - 1))
            file.write(f"\r\x1b[2K{line}" + ("\n" if progress.finished else ""))
            file.flush()
        elif progress.finished or monotonic() >= self._plain_due_s:
            self._plain_due_s = monotonic() + PLAIN_PERIODS_S[min(self._plain_lines, len(PLAIN_PERIODS_S) - 1)]
            self._plain_lines += 1
            file.write(f"{self._label}{words(progress)}\n")
            file.flush()

    def _line(self, progress: Progress, width: int) -> str:
        """The fullest line of at most ``width`` characters that has all figures, or the beginning of the shortest."""
        full = words(progress)
        choices = (f"{_bar(progress)} {full}", full, words(progress, short=True))
        lines = [f"{self._label}{choice}" for choice in choices]
        return next((line for line in lines if len(line) <= width), lines[-1][:width])


def words(progress: Progress, *, short: bool = False) -> str:
    """One line of plain text: phase, time, counts, live TTFT, ITL, goodput and tokens per second.

    short: without P95 and without counts that say nothing unusual.
    """
    state = "done" if progress.finished else "draining" if progress.draining else progress.phase.value
    parts = [f"{state} {progress.elapsed_s:.0f}{f'/{progress.total_s:.0f}' if progress.total_s else ''} s"]
    counts = (("waiting", progress.waiting), ("shed", progress.shed), ("failed", progress.failed))
    unusual = [f"{name} {count}" for name, count in counts if count]
    if not short:
        parts += [f"sent {progress.sent} done {progress.done} running {progress.in_flight}", *unusual]
    for name, middle_s, high_s in (
        ("TTFT", progress.ttft_p50_s, progress.ttft_p95_s),
        ("ITL", progress.itl_p50_s, progress.itl_p95_s),
    ):
        if middle_s is not None and high_s is not None:
            parts.append(f"{name} p50 {_milliseconds(middle_s)}" + ("" if short else f" p95 {_milliseconds(high_s)}"))
    if progress.goodput_fraction is not None:
        parts.append(f"goodput {progress.goodput_fraction:.0%}")
    if short:
        parts += unusual
    parts.append(f"{progress.output_tokens_per_s:.0f} tok/s")
    return " | ".join(parts)


def _milliseconds(value_s: float) -> str:
    return f"{value_s * 1e3:.0f} ms" if value_s < 10 else f"{value_s:.1f} s"


def _bar(progress: Progress) -> str:
    share = 1.0 if progress.finished else min(1.0, progress.elapsed_s / progress.total_s) if progress.total_s else 0.0
    full = round(share * BAR_WIDTH)
    return "█" * full + "░" * (BAR_WIDTH - full)
