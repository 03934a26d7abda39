"""What binds the batch on each of three cards, by the limit on the gap between tokens."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from setpoint.plan.facts import CARDS, LONG_CONTEXT_TOKENS, MODEL, Largest, largest_batches
from setpoint.report.charts.picture import Series, Strip

GAPS_S = (0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05, 0.055, 0.06, 0.07, 0.08)
COMPARED_S = 0.05
WANTED = {"a100-80": "bandwidth", "h100-sxm": "capacity", "mi300x": "bandwidth"}


def run(size: Size, seed: int) -> Outcome:
    """Nothing is drawn: size and seed make no difference."""
    found = {gap_s: {each.hardware: each for each in largest_batches(gap_s)} for gap_s in GAPS_S}
    rows = [
        (f"{gap_s * 1e3:.0f} ms", card, f"{each.by_time}", f"{each.by_memory}", each.bound, each.source)
        for gap_s, cards in found.items()
        for card, each in cards.items()
    ]
    return Outcome(
        expected(found),
        ("gap", "GPU", "largest batch by time", "by memory", "bound by", "source"),
        rows,
        picture(found),
        {
            "model": MODEL,
            "context_tokens": LONG_CONTEXT_TOKENS,
            "sources": {card: each.source for card, each in found[COMPARED_S].items()},
        },
    )


def most(each: Largest) -> int:
    """What both bounds allow."""
    return min(each.by_time, each.by_memory)


def expected(found: dict[float, dict[str, Largest]]) -> list[Expected]:
    """At one and the same limit the cards are bound by different things."""
    split = sum({card: each.bound for card, each in cards.items()} == WANTED for cards in found.values())
    at = [most(each) for each in found[COMPARED_S].values()]
    return [
        Expected("limits at which memory binds the H100, and bandwidth the A100 and the MI300X", split, "at least", 1),
        Expected(f"largest over smallest batch of the three at {COMPARED_S * 1e3:.0f} ms", max(at) / min(at), "at least", 2.0),
    ]


def picture(found: dict[float, dict[str, Largest]]) -> Picture:
    """The largest batch over the limit."""
    gaps_ms = np.array(GAPS_S) * 1e3
    lines = [Series(card, gaps_ms, np.array([float(most(cards[card])) for cards in found.values()])) for card in CARDS]
    return Picture(
        "The largest batch within a gap, 2,048 tokens of context (simulated)",
        "limit on the gap between tokens, ms",
        [Strip("requests at once", lines)],
    )


EXPERIMENT = Experiment(
    name="hardware_bounds",
    claim="A100, H100 and MI300X are bound by different things at the same limit",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on an A100-80, an H100 and an MI300X.",
    method=f"Requests decode at {LONG_CONTEXT_TOKENS:,} tokens of context each: the largest batch whose step stays within a "
    "limit, and the largest that fits in memory. The smaller of the two binds.",
    shape="There are limits at which the H100 is out of memory while the other two are still short of bandwidth, and "
    "the largest "
    "batches differ by more than two.",
    reading="One constant batch size is too large for one card and too small for another. The A100 and the MI300X are "
    "`transferred`: their figures are predictions.",
    run=run,
)
