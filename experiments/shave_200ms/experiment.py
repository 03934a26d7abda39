"""The price of a tighter limit on the first token."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from setpoint.plan.facts import LARGE, SHAVED_S, Shaved, shaved
from setpoint.plan.processes import ProcessRunner
from setpoint.plan.simulated_trial import TrialOf
from setpoint.report.charts.picture import Series, Strip
from setpoint.requirement import parse_requirement


def run(size: Size, seed: int) -> Outcome:
    """One load curve, the same at both sizes."""
    with ProcessRunner(TrialOf(parse_requirement(LARGE, "facts"))) as runner:
        found = shaved(runner)
    by_limit = {round(each.limit_s, 3): each.usd_per_million for each in found}
    factors = {each.limit_s: factor(each, by_limit) for each in found}
    rows = [
        (
            f"{each.limit_s * 1e3:.0f} ms",
            "cannot be met" if each.usd_per_million is None else f"${each.usd_per_million:.2f}",
            "-" if (times := factors[each.limit_s]) is None else f"{times:.1f}x",
            each.source,
        )
        for each in found
    ]
    known = [each for each in factors.values() if each is not None]
    return Outcome(
        [
            Expected("most that 200 ms less multiply the cost by", max(known, default=None), "at least", 2.5),
            Expected("least that 200 ms less multiply the cost by", min(known, default=None), "at least", 0.999),
            Expected("the same between 1 s and 0.8 s, far from the bend", factors[1.0], "at most", 1.3),
        ],
        ("TTFT P95 limit", "USD a million output tokens", "cost of 200 ms less", "source"),
        rows,
        picture(found),
        {"model": "llama-3.1-70b", "sources": {"h100-sxm": found[0].source}},
    )


def factor(each: Shaved, by_limit: dict[float, float | None]) -> float | None:
    """Cost at 200 ms less over the cost, where both are known."""
    tighter = by_limit.get(round(each.limit_s - SHAVED_S, 3))
    return tighter / each.usd_per_million if tighter and each.usd_per_million else None


def picture(found: list[Shaved]) -> Picture:
    """Cost over the limit."""
    known = [each for each in found if each.usd_per_million is not None]
    limits_ms = np.array([each.limit_s * 1e3 for each in known])
    usd = np.array([each.usd_per_million or np.nan for each in known])
    return Picture(
        "What a limit on the first token costs, llama-3.1-70b on 4 x H100 (simulated)",
        "limit on TTFT P95, ms",
        [Strip("USD a million output tokens", [Series("4 x H100", limits_ms, usd)], log=True)],
    )


EXPERIMENT = Experiment(
    name="shave_200ms",
    claim="Shaving 200 ms off the first token can cost three times as much a token",
    kind=Kind.SIMULATED,
    where="llama-3.1-70b in bf16 under vLLM's scheduler on 4 H100; prices of the catalogue.",
    method="Prompts of about 1,200 and answers of 200 tokens, Poisson arrivals. The load at which TTFT P95 stays "
    "within a limit is "
    "read off one simulated load curve; the price of the four cards over the tokens of that load is the cost.",
    shape="The cost falls with the limit everywhere; near what a prompt takes by itself 200 ms less cost 2.5 times as "
    "much or "
    "more, a second away hardly anything.",
    reading="The shadow price of a limit: a tighter one is held at a lower load, and the same dollars make fewer "
    "tokens. It is "
    "small far from what a prompt takes by itself and explodes near it.",
    run=run,
)
