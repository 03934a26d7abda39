"""A run whose means look fine and whose percentiles break the limits."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import Simulation, at_rate, put, requirement_of, system, vllm_like
from setpoint.loop.simulation.figures import phase_gaps
from setpoint.plan.facts import CHAT
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import percent, seconds

HARDWARE = "h100-sxm"
RATE_RPS = 14.0
ITL_LIMIT_S, TTFT_LIMIT_S = 0.08, 1.0
ONE_IN = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
CONFIGS = {
    "8,192 tokens a step": vllm_like(1024, 8192),
    "deadlines (setpoint)": ServingConfig(mode=BatchingMode.SETPOINT, max_running=1024, token_budget=8192),
}


def run(size: Size, seed: int) -> Outcome:
    """The same requests twice: large steps, and steps sized by the deadlines."""
    requests = 6000 if size is Size.FULL else 800
    requirement = at_rate(requirement_of(CHAT), RATE_RPS)
    found = {name: put(requirement, system(HARDWARE, config), requests=requests, seed=seed) for name, config in CONFIGS.items()}
    rows = []
    for name, each in found.items():
        f = each.figures()
        figures = (f.ttft_s.mean, f.ttft_s.p99, f.itl_s.mean, f.itl_s.p50, f.itl_s.p99)
        rows.append((name, *(seconds(value, " ") for value in figures), percent(f.goodput_fraction, " ")))
    return Outcome(
        expected(found),
        ("configuration", "TTFT mean", "TTFT P99", "gap, mean", "gap P50", "gap P99", "goodput"),
        rows,
        picture(found),
        {
            "hardware": HARDWARE,
            "requests": requests,
            "gaps": {name: each.figures().itl_s.n for name, each in found.items()},
            "source": system(HARDWARE, vllm_like(1, 1)).timer.source,
        },
    )


def expected(found: dict[str, Simulation]) -> list[Expected]:
    """Means far inside the limits; the percentile outside; most requests not good. With deadlines all is inside."""
    hidden, held = (each.figures() for each in found.values())
    return [
        Expected("mean gap, of its limit", (hidden.itl_s.mean or np.nan) / ITL_LIMIT_S, "at most", 0.33),
        Expected("mean TTFT, of its limit", (hidden.ttft_s.mean or np.nan) / TTFT_LIMIT_S, "at most", 0.33),
        Expected("P99 of the gaps, of its limit", (hidden.itl_s.p99 or np.nan) / ITL_LIMIT_S, "at least", 1.05),
        Expected("goodput of that run", hidden.goodput_fraction, "at most", 0.6),
        Expected("P99 of the gaps with deadlines, of its limit", (held.itl_s.p99 or np.nan) / ITL_LIMIT_S, "at most", 1.0),
        Expected("goodput with deadlines", held.goodput_fraction, "at least", 0.95),
    ]


def picture(found: dict[str, Simulation]) -> Picture:
    """How long the longest gap in so many is."""
    xs = np.array(ONE_IN, dtype=np.float64)
    lines = []
    for name, each in found.items():
        gaps = phase_gaps(each.done, Phase.SUSTAINED)
        lines.append(Series(name, xs, np.array([(gaps.percentile(100.0 * (1 - 1 / n)) or np.nan) * 1e3 for n in ONE_IN])))
    return Picture(
        "Gaps between tokens: one in so many is longer than this (simulated)",
        "one gap in so many (100: P99)",
        [Strip("gap, ms", lines, limit=ITL_LIMIT_S * 1e3, limit_words="limit on P99: 80 ms", log=True)],
        log_x=True,
    )


EXPERIMENT = Experiment(
    name="averages_hide",
    claim="Averages hide: the mean looks fine and the P99 breaks the limit",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on one H100.",
    method=f"Chat requests at {RATE_RPS:g}/s, limits TTFT P95 1 s and ITL P99 80 ms: once with steps of up to 8,192 new "
    f"tokens, once with "
    "steps sized by the deadlines (`setpoint`). A request is good if it met every limit, its gaps at their percentile.",
    shape="With large steps the mean gap and the mean TTFT are less than a third of their limits, the P99 of the gaps "
    "is over "
    "its limit, and most requests are not good. With deadlines the same card under the same load has goodput over 95 %.",
    reading="A long prompt taken whole makes one gap long for everybody who decodes. One gap in fifty is enough to "
    "break a P99 and "
    "moves the mean hardly at all.",
    run=run,
)
