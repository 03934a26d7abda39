"""A schedule tuned on an A100, taken to an H100 unchanged, beside one tuned there and one that adapts by itself."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import BISECTIONS, at_rate, most_carried_rps, put, requirement_of, system, vllm_like
from setpoint.plan.facts import CHAT
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.report.charts.picture import Series, Strip

OLD, NEW = "a100-80", "h100-sxm"
BUDGETS = (256, 512, 1024, 1536, 2048, 4096)
FIRST_RPS = {OLD: 8.0, NEW: 24.0}
QUICK = (512, 1024)
RUNNING, QUICK_REQUESTS = 256, 250
ASKED = CHAT.replace("itl: {p99: 50ms}", "itl: {p99: 60ms}")
TTFT_LIMIT_S, ITL_LIMIT_S = 1.0, 0.06
ADAPTS = ServingConfig(mode=BatchingMode.SETPOINT, max_running=RUNNING, token_budget=8192)
MOST_SHED = 0.05


def carried_rps(hardware: str, config: ServingConfig, requests: int, seed: int) -> float:
    """The highest rate at which both percentiles hold and at most 5 % of the offered requests are refused."""
    base, serves = requirement_of(ASKED), system(hardware, config)

    def carries(rate_rps: float) -> bool:
        found = put(at_rate(base, rate_rps), serves, requests=requests, seed=seed).figures()
        ttft_s, itl_s = found.ttft_s.p95, found.itl_s.p99
        in_time = ttft_s is not None and itl_s is not None and ttft_s <= TTFT_LIMIT_S and itl_s <= ITL_LIMIT_S
        return in_time and found.shed <= MOST_SHED * found.offered

    return most_carried_rps(carries, FIRST_RPS[hardware], BISECTIONS if requests > QUICK_REQUESTS else 4)


def run(size: Size, seed: int) -> Outcome:
    """Every token budget on both cards, and the same policy, unchanged, on both."""
    budgets, requests = (BUDGETS, 800) if size is Size.FULL else (QUICK, QUICK_REQUESTS)
    carried = {
        card: {budget: carried_rps(card, vllm_like(RUNNING, budget), requests, seed) for budget in budgets}
        for card in (OLD, NEW)
    }
    adapts = {card: carried_rps(card, ADAPTS, requests, seed) for card in (OLD, NEW)}
    tuned = {card: max(by, key=lambda budget: by[budget]) for card, by in carried.items()}
    rows = [(f"{budget:,} tokens a step", *(f"{carried[card][budget]:.2f}/s" for card in (OLD, NEW))) for budget in budgets]
    rows.append(("sized by the deadlines (setpoint)", *(f"{adapts[card]:.2f}/s" for card in (OLD, NEW))))
    facts = {
        "requests": requests,
        "tuned_budget": tuned,
        "sources": {card: system(card, ADAPTS).timer.source for card in (OLD, NEW)},
    }
    return Outcome(
        expected(carried, adapts, tuned), ("schedule", "A100-80 carries", "H100 carries"), rows, picture(carried, adapts), facts
    )


def expected(carried: dict[str, dict[int, float]], adapts: dict[str, float], tuned: dict[str, int]) -> list[Expected]:
    """The best constants differ, the old one costs on the new card, and what adapts is near the best on both."""
    best = {card: carried[card][tuned[card]] for card in carried}
    unchanged = carried[NEW][tuned[OLD]]
    return [
        Expected("best budget on the H100 over the best on the A100", tuned[NEW] / tuned[OLD], "at least", 1.9),
        Expected("H100: tuned there over the A100's schedule unchanged", best[NEW] / unchanged, "at least", 1.1),
        Expected("H100: adapting over the A100's schedule unchanged", adapts[NEW] / unchanged, "at least", 1.1),
        Expected("A100: adapting over the best constant", adapts[OLD] / best[OLD], "at least", 0.9),
        Expected("H100: adapting over the best constant", adapts[NEW] / best[NEW], "at least", 0.9),
    ]


def picture(carried: dict[str, dict[int, float]], adapts: dict[str, float]) -> Picture:
    """What is carried over the budget; the policy as a level line."""
    lines = []
    for card, by in carried.items():
        xs = np.array(list(by), dtype=np.float64)
        lines.append(Series(card, xs, np.array(list(by.values()))))
        lines.append(Series(f"{card}, adapting", xs, np.full(len(xs), adapts[card]), marks=False))
    return Picture(
        "Load carried within the limits by the tokens of a step (simulated)",
        "most new tokens a step",
        [Strip("requests a second", lines)],
        log_x=True,
    )


EXPERIMENT = Experiment(
    name="tuned_on_a100",
    claim="A schedule tuned on an A100 wastes an H100; one that knows its hardware does not",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on one A100-80 (coefficients `transferred`) and on one H100 (`measured`).",
    method="Chat requests with TTFT P95 within 1 s and ITL P99 within 60 ms. The most new tokens a step is tuned on "
    "each card by the load "
    "it carries within the limits; the A100's is then used on the H100. Beside them setpoint's policy, the same "
    "configuration on both "
    "cards, which sizes each step by the deadlines and its step-time model (at most 5 % of the offered requests may be "
    "refused).",
    shape="The best number on the H100 is about twice the A100's or more; the A100's costs the H100 at least a tenth "
    "of what it could "
    "carry; the policy is within a tenth of the best constant on both cards without being told.",
    reading="The number that is right is a time, the gap between tokens, turned into tokens by the speed of the card. "
    "Written down "
    "as tokens it is wrong on the next card.",
    run=run,
)
