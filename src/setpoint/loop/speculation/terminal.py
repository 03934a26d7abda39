"""A profile of speculation as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from setpoint.hardware.describe import error_words
from setpoint.loop.speculation.outcome import Acceptance, Gain, SpeculationProfile

SHOWN_POSITIONS = (1, 2, 4, 8, 15)
SHOWN_LENGTHS = (1, 2, 4, 8)


def render_profile(profile: SpeculationProfile, console: Console) -> None:
    """Acceptance, costs, predicted gains and the verdict on each kind of work."""
    drafter = profile.drafter if profile.draft_model is None else f"{profile.drafter} ({profile.draft_model})"
    console.print(f"{profile.model}, {drafter}", markup=False)
    if profile.sources:
        _render_sources(profile, console)
    else:
        console.print(_acceptance(profile))
    console.print(_costs(profile))
    if profile.sources:
        for acceptance in profile.acceptances:
            console.print(_by_batch(profile, acceptance))
        console.print(_needed(profile))
    else:
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
    if profile.sources:  # every length is known, and hardly one of them is worth a column
        lengths = [length for length in lengths if length in (0, *SHOWN_LENGTHS)]
    table = Table(title="Milliseconds of a step by draft length, drafting included")
    table.add_column("batch", justify="right")
    for length in lengths:
        table.add_column("no draft" if not length else str(length), justify="right")
    for each in profile.costs:
        known = {length: each.verify_s[length] + each.draft_s.get(length, 0.0) for length in each.verify_s}
        table.add_row(str(each.requests), *(f"{1e3 * known[length]:.1f}" if length in known else "" for length in lengths))
    return table


def _render_sources(profile: SpeculationProfile, console: Console) -> None:
    """Where each cost comes from."""
    for each in profile.sources:
        words = f"{each.cost}: {each.of}; {each.source}, {error_words(each.relative_error, each.guess)}"
        console.print(words, markup=False, soft_wrap=True)
    console.print(f"context: {profile.context_tokens:,} tokens each; acceptance: as given", markup=False)
    if profile.left_out:
        batches = ", ".join(map(str, profile.left_out))
        console.print(f"left out, as their contexts do not fit into the cache: batch {batches}", markup=False, soft_wrap=True)


def _by_batch(profile: SpeculationProfile, acceptance: Acceptance) -> Table:
    """The gain at each batch: of the best draft length, and of fixed ones whatever they cost."""
    table = Table(title=f"Predicted tokens a second over those without drafts, acceptance {acceptance.name}")
    for name in ("batch", "best k", "its gain", *(f"k = {length}" for length in SHOWN_LENGTHS)):
        table.add_column(name, justify="right")
    for costs, best in zip(profile.costs, profile.gains(acceptance), strict=True):
        gains = [profile.fixed_gain(acceptance, costs, length) for length in SHOWN_LENGTHS]
        cells = ["" if gain is None else f"{gain:.2f}x" for gain in gains]
        table.add_row(str(costs.requests), str(best.best_draft_tokens or "none"), f"{best.best_gain:.2f}x", *cells)
    return table


def _needed(profile: SpeculationProfile) -> Table:
    """The acceptance at which drafts of a fixed length neither gain nor lose, at each batch."""
    table = Table(title="Acceptance at which drafts of k tokens break even (-: not even 100 %)")
    for name in ("batch", *(f"k = {length}" for length in SHOWN_LENGTHS)):
        table.add_column(name, justify="right")
    for costs in profile.costs:
        needed = [profile.break_even(costs, k) if k in costs.verify_s else None for k in SHOWN_LENGTHS]
        table.add_row(str(costs.requests), *("-" if each is None else f"{each:.0%}" for each in needed))
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
