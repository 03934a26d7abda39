"""Utilisation against batch size, from the planner's own facts."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from setpoint.plan.facts import MODEL, Batch, batches
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import round_percent

CARDS = ("a100-80", "h100-sxm")


def run(size: Size, seed: int) -> Outcome:
    """Nothing is drawn: size and seed make no difference."""
    found = {card: batches(card) for card in CARDS}
    rows = [
        (card, f"{b.batch}", f"{b.step_s * 1e3:.1f} ms", f"{b.tokens_per_s:,.0f}", f"{b.utilisation:.1%}", b.source)
        for card in CARDS
        for b in found[card]
    ]
    return Outcome(
        [each for card in CARDS for each in expected(card, {b.batch: b for b in found[card]})],
        ("GPU", "requests at once", "step", "output tokens/s", "arithmetic used", "source"),
        rows,
        picture(found),
        {
            "model": MODEL,
            "prompt_tokens": 500,
            "output_tokens": 200,
            "sources": {card: found[card][0].source for card in CARDS},
        },
    )


def expected(card: str, by_batch: dict[int, Batch]) -> list[Expected]:
    """One request leaves the card idle, 32 use it, 128 gain little more."""
    one, many, most = by_batch[1], by_batch[32], by_batch[128]
    return [
        Expected(f"{card}: arithmetic used by one request", one.utilisation, "at most", 0.05),
        Expected(f"{card}: arithmetic used by 32", many.utilisation, "at least", 0.15),
        Expected(f"{card}: tokens/s of 32 over those of one", many.tokens_per_s / one.tokens_per_s, "at least", 15.0),
        Expected(f"{card}: a step of 32 over a step of one", many.step_s / one.step_s, "at most", 2.0),
        Expected(f"{card}: tokens/s of 128 over those of 32", most.tokens_per_s / many.tokens_per_s, "at most", 2.0),
    ]


def picture(found: dict[str, list[Batch]]) -> Picture:
    """Arithmetic used, tokens/s and seconds of a step over the batch."""
    sizes = {card: np.array([b.batch for b in found[card]], dtype=np.float64) for card in CARDS}

    def lines(pick: str, factor: float = 1.0) -> list[Series]:
        return [Series(card, sizes[card], np.array([getattr(b, pick) * factor for b in found[card]])) for card in CARDS]

    return Picture(
        "Utilisation against batch size, llama-3.1-8b (simulated)",
        "requests decoding at once",
        [
            Strip("arithmetic used", lines("utilisation"), round_percent),
            Strip("output tokens/s", lines("tokens_per_s")),
            Strip("step, ms", lines("step_s", 1e3)),
        ],
        log_x=True,
    )


EXPERIMENT = Experiment(
    name="utilisation",
    claim="One request leaves a GPU idle, 32 together use it",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on one A100-80 and on one H100.",
    method="Requests of 500 prompt and 200 output tokens in balance (every step decodes the batch and computes the "
    "prompts that "
    "replace what ends): the step's time, tokens a second, and the share of the card's arithmetic that is used.",
    shape="One request uses under 5 % of the arithmetic, 32 use over 15 % and give at least fifteen times the tokens "
    "with steps at "
    "most twice as long; four times as many again give less than twice as much.",
    reading="Weights are read once a step, whatever the batch: up to about 32 requests a step costs hardly more. "
    "Beyond that the "
    "arithmetic is busy, steps grow with the batch, and a larger one only costs latency. Where the bend lies moves with the "
    "card, the model and the prompts.",
    run=run,
)
