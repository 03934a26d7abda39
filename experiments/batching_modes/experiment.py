"""Immediate, static and continuous batching under the same requests, over the load."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import at_rate, put, requirement_of, system, vllm_like
from setpoint.plan.facts import CHAT
from setpoint.plan.space import UNBOUNDED_WAITING
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import seconds

HARDWARE = "h100-sxm"
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0)
QUICK = (0.5, 2.0, 8.0)
COMPARED = 2.0
LIMIT_S = 1.0
MODES = {
    "immediate": ServingConfig(mode=BatchingMode.IMMEDIATE, max_running=1, token_budget=8192, max_waiting=UNBOUNDED_WAITING),
    "static of 32": ServingConfig(
        mode=BatchingMode.STATIC, max_running=32, token_budget=2048, batch_wait_s=0.2, max_waiting=UNBOUNDED_WAITING
    ),
    "continuous": vllm_like(256, 2048),
}


def run(size: Size, seed: int) -> Outcome:
    """Every mode at every rate."""
    rates, requests = (RATES, 1500) if size is Size.FULL else (QUICK, 300)
    base = requirement_of(CHAT)
    found = {
        name: {
            rate: put(at_rate(base, rate), system(HARDWARE, config), requests=requests, seed=seed).figures() for rate in rates
        }
        for name, config in MODES.items()
    }
    rows = [
        (
            f"{rate:g}/s",
            name,
            seconds(each.ttft_s.p50, " "),
            seconds(each.ttft_s.p95, " "),
            seconds(each.itl_s.p99, " "),
            seconds(each.e2e_s.p95, " "),
            f"{each.output_tokens_per_s:,.0f}",
        )
        for rate in rates
        for name, each in ((name, found[name][rate]) for name in MODES)
    ]
    return Outcome(
        expected(found),
        ("offered", "mode", "TTFT P50", "TTFT P95", "ITL P99", "E2E P95", "output tokens/s"),
        rows,
        picture(found),
        {"hardware": HARDWARE, "requests": requests, "source": system(HARDWARE, vllm_like(1, 1)).timer.source},
    )


def expected(found: dict[str, dict[float, PhaseMeasures]]) -> list[Expected]:
    """Static batching makes the first token wait, immediate makes everybody wait; continuous carries most."""
    at = {name: found[name][COMPARED].ttft_s.p95 or np.inf for name in MODES}
    carried = {
        name: max((rate for rate, each in by.items() if (each.ttft_s.p95 or np.inf) <= LIMIT_S), default=0.0)
        for name, by in found.items()
    }
    itl = {name: by[COMPARED].itl_s.p99 or np.inf for name, by in found.items()}
    return [
        Expected(f"TTFT P95 at {COMPARED:g}/s, static over continuous", at["static of 32"] / at["continuous"], "at least", 5.0),
        Expected(
            f"TTFT P95 at {COMPARED:g}/s, immediate over continuous", at["immediate"] / at["continuous"], "at least", 100.0
        ),
        Expected("rate within TTFT P95 of 1 s, continuous", carried["continuous"], "at least", 8.0),
        Expected("the same, immediate", carried["immediate"], "at most", 0.5),
        Expected(
            f"ITL P99 at {COMPARED:g}/s, continuous over immediate", itl["continuous"] / itl["immediate"], "at least", 1.5
        ),
    ]


def picture(found: dict[str, dict[float, PhaseMeasures]]) -> Picture:
    """TTFT P95, ITL P99 and tokens/s over the rate."""

    def lines(pick: str) -> list[Series]:
        made = []
        for name, by in found.items():
            values = [_pick(each, pick) for each in by.values()]
            made.append(Series(name, np.array(list(by)), np.array(values, dtype=np.float64)))
        return made

    return Picture(
        "Three ways to batch, llama-3.1-8b on one H100 (simulated)",
        "requests offered a second",
        [
            Strip("TTFT P95, s", lines("ttft"), limit=LIMIT_S, limit_words="1 s", log=True),
            Strip("ITL P99, ms", lines("itl")),
            Strip("output tokens/s", lines("tokens")),
        ],
        log_x=True,
    )


def _pick(each: PhaseMeasures, name: str) -> float:
    if name == "tokens":
        return each.output_tokens_per_s
    value = each.ttft_s.p95 if name == "ttft" else each.itl_s.p99
    return np.nan if value is None else value * (1.0 if name == "ttft" else 1e3)


EXPERIMENT = Experiment(
    name="batching_modes",
    claim="Static, continuous and immediate batching are different trades, not better and worse ones",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on one H100; setpoint's three modes without deadlines, queues "
    "without bound.",
    method="Chat requests (prompts of 800 tokens in the median, answers of 150), Poisson arrivals, the rate swept. "
    "Static fills to 32 or "
    "waits 200 ms, and runs a batch to its end; continuous lets requests join at every step, 2,048 new tokens a step.",
    shape="Immediate has the shortest gaps between tokens and falls over first; static keeps gaps short too but its first "
    "tokens wait for the batch before; continuous has by far the earliest first tokens and carries most, and pays in gaps.",
    reading="A gap of a stream in continuous batching has somebody else's prompt in it. Which trade is right is the "
    "requirement's "
    "to say: gaps, first tokens or throughput.",
    run=run,
)
