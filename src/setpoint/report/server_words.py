"""What the server's metrics say of a run (``record.Candidate.server``) in words. What is not told is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from setpoint.report.format import UNKNOWN, count, number, percent, seconds
from setpoint.report.words import Fact, phase_name

Account = Mapping[str, Any]

PAIRS = (
    ("Running", "running_mean", "running_peak", number),
    ("Waiting", "waiting_mean", "waiting_peak", number),
    ("KV cache in use", "kv_usage_mean", "kv_usage_peak", percent),
    ("GPU power", "power_mean_w", "power_peak_w", lambda value: f"{number(value)} W"),
)
SINGLES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("Rejected", "rejected", lambda value: UNKNOWN if value is None else count(round(value))),
    ("Shed", "shed", lambda value: UNKNOWN if value is None else count(round(value))),
    ("Preemptions", "preemptions", lambda value: UNKNOWN if value is None else count(round(value))),
    ("Prefix hit rate", "prefix_hit_rate", percent),
    ("Acceptance length", "acceptance_length", number),
    ("Drafts accepted", "draft_acceptance_rate", percent),
    ("Queue wait, mean", "queue_wait_mean_s", seconds),
    ("Energy", "energy_j", lambda value: f"{number(value)} J"),
    ("Energy per output token", "joules_per_output_token", lambda value: f"{number(value)} J"),
)
JUDGED = ("sustained", "burst")


def server_facts(server: Account) -> list[Fact]:
    """The account as labels and texts, the judged phases only."""
    return list(_facts(server))


def _facts(server: Account) -> Iterator[Fact]:
    kind, scrapes = server.get("kind"), server.get("scrapes")
    if kind:
        yield Fact("Metrics of", f"{kind}, read {count(scrapes)} times" if isinstance(scrapes, int) else str(kind))
    phases = server.get("phases")
    for phase, summary in (phases if isinstance(phases, Mapping) else {}).items():
        if phase in JUDGED and isinstance(summary, Mapping):
            yield from _phase_facts(f"{phase_name(phase)} · ", summary)
    notes = server.get("notes")
    for note in notes if isinstance(notes, list) else []:
        yield Fact("Note", str(note))


def _phase_facts(prefix: str, summary: Account) -> Iterator[Fact]:
    for label, mean, peak, form in PAIRS:
        if summary.get(mean) is not None or summary.get(peak) is not None:
            yield Fact(f"{prefix}{label}", f"mean {form(summary.get(mean))}, peak {form(summary.get(peak))}")
    for label, key, form in SINGLES:
        if summary.get(key) is not None:
            yield Fact(f"{prefix}{label}", form(summary[key]))


def server_line(server: Account) -> str:
    """The account of the sustained phase in one line for a terminal."""
    phases = server.get("phases")
    summary = phases.get("sustained") if isinstance(phases, Mapping) else None
    parts = [str(server["kind"])] if server.get("kind") else []
    if isinstance(summary, Mapping):
        for label, mean, peak, form in PAIRS:
            if summary.get(peak) is not None:
                parts.append(f"{label}: mean {form(summary.get(mean))}, peak {form(summary[peak])}")
        parts += [f"{label}: {form(summary[key])}" for label, key, form in SINGLES if summary.get(key)]
    return "; ".join(parts) or "nothing it said was understood"
