"""Latency and preemptions as contexts outgrow the cache of one card and not of another."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from setpoint.plan.facts import CONTEXTS, MODEL, UNDER_WAY, Pressed, pressed
from setpoint.report.charts.picture import Series, Strip

SMALL, LARGE = "h100-sxm", "mi300x"
FITS, TIGHT, OVER = 4096, 12288, 24576
QUICK = (FITS, TIGHT, OVER)


def run(size: Size, seed: int) -> Outcome:
    """Simulate both cards at each context length."""
    contexts = CONTEXTS if size is Size.FULL else QUICK
    found = {card: {context: pressed(card, context, seed=seed) for context in contexts} for card in (SMALL, LARGE)}
    rows = [
        (
            f"{context:,}",
            card,
            f"{each.token_p50_s * 1e3:.1f} ms",
            f"{each.token_p99_s * 1e3:.1f} ms",
            f"{each.together:.1f}",
            f"{each.preemptions}",
            each.source,
        )
        for context in contexts
        for card, each in ((card, found[card][context]) for card in (SMALL, LARGE))
    ]
    return Outcome(
        expected(found),
        ("context", "GPU", "P50 a token", "P99 a token", "together", "preemptions", "source"),
        rows,
        picture(found),
        {"model": MODEL, "requests": UNDER_WAY, "sources": {card: each[OVER].source for card, each in found.items()}},
    )


def expected(found: dict[str, dict[int, Pressed]]) -> list[Expected]:
    """Flat while it fits, and past that worse than the context grows, on the small card alone."""
    small, large = found[SMALL], found[LARGE]
    growth = (small[OVER].token_p99_s / small[TIGHT].token_p99_s) / (large[OVER].token_p99_s / large[TIGHT].token_p99_s)
    return [
        Expected(f"{SMALL} at {FITS:,}: preemptions", small[FITS].preemptions, "at most", 0),
        Expected(f"{SMALL} at {TIGHT:,}: preemptions", small[TIGHT].preemptions, "at most", 0),
        Expected(f"{SMALL} at {OVER:,}: preemptions", small[OVER].preemptions, "at least", 5),
        Expected(f"{SMALL} at {OVER:,}: P99 over P50", small[OVER].token_p99_s / small[OVER].token_p50_s, "at least", 1.3),
        Expected(f"{LARGE} at {OVER:,}: preemptions", large[OVER].preemptions, "at most", 0),
        Expected(f"{LARGE} at {OVER:,}: P99 over P50", large[OVER].token_p99_s / large[OVER].token_p50_s, "at most", 1.05),
        Expected(f"growth of P99 from {TIGHT:,} to {OVER:,}, {SMALL} over {LARGE}", growth, "at least", 1.15),
    ]


def picture(found: dict[str, dict[int, Pressed]]) -> Picture:
    """P99 of seconds a token and preemptions over the context."""

    def lines(pick: str, factor: float = 1.0) -> list[Series]:
        return [
            Series(card, np.array(list(by), dtype=np.float64), np.array([getattr(each, pick) * factor for each in by.values()]))
            for card, by in found.items()
        ]

    return Picture(
        "32 requests of growing context, llama-3.1-8b (simulated)",
        "tokens of context of each request",
        [
            Strip("P99 of E2E over output tokens, ms", lines("token_p99_s", 1e3)),
            Strip("preemptions", lines("preemptions")),
        ],
    )


EXPERIMENT = Experiment(
    name="kv_pressure",
    claim="KV pressure is non-linear: past a full cache a longer context costs more than it is longer",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 under vLLM's scheduler on one H100 (80 GB) and on one MI300X (192 GB).",
    method=f"{UNDER_WAY} requests that are all there from the beginning, half of each context prompt and half answer; "
    f"the context "
    "is swept. Latency is E2E over output tokens.",
    shape="Both grow gently while everything fits. From where the H100's cache is full, requests are preempted and "
    "computed again, "
    "and P99 leaves P50; on the MI300X they stay equal, with no preemption.",
    reading="Where the cache is full follows from memory, model and what runs together, so it can be planned for. "
    "Preemption is "
    "not the only answer: a scheduler that admits fewer trades the preemptions for waiting.",
    run=run,
)
