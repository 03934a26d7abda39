"""A profile of speculation as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from setpoint.loop.speculation.outcome import Gain, SpeculationProfile

SHOWN_POSITIONS = (1, 2, 4, 8, 15)


def render_profile(profile: SpeculationProfile, console: Console) -> None:
    """Acceptance, costs, predicted gains and the verdict on each kind of work."""
    drafter = profile.drafter if profile.draft_model is None else f"{profile.drafter} ({profile.draft_model})"
    console.print(f"{profile.model}, {drafter}", markup=False)
    console.print(_acceptance(profile))
    console.print(_costs(profile))
    console.print(_gains(profile))
    for acceptance in profile.acceptances:
        console.print(f"{acceptance.name}: {profile.verdict(acceptance)}", markup=False, soft_wrap=True)


def _acceptance(profile: SpeculationProfile) -> Table:
    table = Table(title="Drafts that survive to their n-th token")
    for name in ("work", "drafts", "steps with one", *(f"n = {position}" for position in SHOWN_POSITIONS)):
        table.add_column(name, justify="left" if name == "work" else "right")
    for each in profile.acceptances:
        shares = [f"{each.survival[n - 1]:.0%}" if n <= len(each.survival) else "" for n in SHOWN_POSITIONS]
        table.add_row(each.name, str(each.drafts), f"{each.drafted_share:.0%}", *shares)
    return table


def _costs(profile: SpeculationProfile) -> Table:
    lengths = sorted({length for each in profile.costs for length in each.verify_s})
    table = Table(title="Milliseconds of a step by draft length, drafting included")
    table.add_column("batch", justify="right")
    for length in lengths:
        table.add_column("no draft" if not length else str(length), justify="right")
    for each in profile.costs:
        known = {length: each.verify_s[length] + each.draft_s.get(length, 0.0) for length in each.verify_s}
        table.add_row(str(each.requests), *(f"{1e3 * known[length]:.1f}" if length in known else "" for length in lengths))
    return table


def _gains(profile: SpeculationProfile) -> Table:
    table = Table(title="Predicted tokens a second over those without drafts (best draft length)")
    table.add_column("work")
    for each in profile.costs:
        table.add_column(f"batch {each.requests}", justify="right")
    for acceptance in profile.acceptances:
        table.add_row(acceptance.name, *map(_cell, profile.gains(acceptance)))
    table.add_row("acceptance to break even", *("-" if g is None else f"{g:.0%}" for g in _break_even(profile)))
    return table


def _cell(gain: Gain) -> str:
    return f"{gain.best_gain:.2f}x ({gain.best_draft_tokens})" if gain.best_draft_tokens else f"no ({gain.longest_gain:.2f}x)"


def _break_even(profile: SpeculationProfile) -> list[float | None]:
    """At each batch, of the draft length that needs least."""
    rows = [[gain.break_even for gain in profile.gains(each)] for each in profile.acceptances]
    return [min((each for each in column if each is not None), default=None) for column in zip(*rows, strict=True)]
