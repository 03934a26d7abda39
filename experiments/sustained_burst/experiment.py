"""How much less a card carries when its load comes with bursts."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import Simulation, put, requirement_of, system, vllm_like
from setpoint.record import Phase, PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import seconds

HARDWARE = "h100-sxm"
CONFIG = vllm_like(256, 2048)
TIMES, BURST_S = 3, 10
RATES = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 22.0)
QUICK = (4.0, 8.0, 14.0, 18.0)
COMPARED = 14.0
LIMIT_S = 1.0
ASKED = """\
name: chat
model: llama-3.1-8b
profile:
  prompt_tokens: {{median: 800, p95: 3200, max: 6000}}
  output_tokens: {{median: 150, p95: 400, max: 800}}
  arrival: {{rate: {rate}/s}}
  burst: {{rate: {times}x, duration: {burst_s}s}}
slo:
  ttft: {{p95: 1s}}
slo_burst:
  ttft: {{p95: 1s}}
"""


def run(size: Size, seed: int) -> Outcome:
    """Sustained phase and burst at each rate."""
    rates, requests, repeats = (RATES, 1200, 3) if size is Size.FULL else (QUICK, 500, 1)
    found: dict[float, tuple[PhaseMeasures, list[PhaseMeasures]]] = {}
    for rate in rates:
        asked = requirement_of(ASKED, rate=rate, times=TIMES, burst_s=BURST_S)
        runs = [put(asked, system(HARDWARE, CONFIG), requests=requests, seed=seed + each) for each in range(repeats)]
        found[rate] = (runs[0].figures(), [bursty(each) for each in runs])
    rows = [
        (
            f"{rate:g}/s",
            seconds(calm.ttft_s.p95, " "),
            seconds(calm.ttft_s.p99, " "),
            seconds(burst_p95_s(bursts), " "),
            f"{sum(each.offered for each in bursts):,}",
        )
        for rate, (calm, bursts) in found.items()
    ]
    return Outcome(
        expected(found),
        ("sustained rate", "TTFT P95 sustained", "TTFT P99 sustained", f"TTFT P95 in bursts of {TIMES}x", "requests in bursts"),
        rows,
        picture(found),
        {"hardware": HARDWARE, "requests": requests, "bursts": repeats, "source": system(HARDWARE, CONFIG).timer.source},
    )


def bursty(simulation: Simulation) -> PhaseMeasures:
    """Figures of the burst."""
    return simulation.figures(Phase.BURST)


def burst_p95_s(bursts: list[PhaseMeasures]) -> float:
    """The median of the bursts' P95."""
    return float(np.median([each.ttft_s.p95 or np.inf for each in bursts]))


def expected(found: dict[float, tuple[PhaseMeasures, list[PhaseMeasures]]]) -> list[Expected]:
    """A rate that is fine when it is steady is not when it comes with bursts."""
    steady = max((rate for rate, (calm, _) in found.items() if (calm.ttft_s.p95 or np.inf) <= LIMIT_S), default=0.0)
    through = max((rate for rate, (_, bursts) in found.items() if burst_p95_s(bursts) <= LIMIT_S), default=0.0)
    calm, bursts = found[COMPARED]
    return [
        Expected("highest rate within TTFT P95 of 1 s, steady over with bursts", steady / (through or np.nan), "at least", 1.5),
        Expected(f"TTFT P95 at {COMPARED:g}/s sustained, s", calm.ttft_s.p95, "at most", LIMIT_S / 2),
        Expected(
            f"TTFT P95 at {COMPARED:g}/s, burst over sustained",
            burst_p95_s(bursts) / (calm.ttft_s.p95 or np.nan),
            "at least",
            10.0,
        ),
    ]


def picture(found: dict[float, tuple[PhaseMeasures, list[PhaseMeasures]]]) -> Picture:
    """TTFT P95 of both over the rate."""
    xs = np.array(list(found))
    calm = np.array([each.ttft_s.p95 or np.nan for each, _ in found.values()])
    burst = np.array([burst_p95_s(each) for _, each in found.values()])
    return Picture(
        f"Sustained load and bursts of {TIMES}x for {BURST_S} s, llama-3.1-8b on one H100 (simulated)",
        "sustained requests a second",
        [Strip("TTFT P95, s", [Series("sustained", xs, calm), Series("in the burst", xs, burst)], limit=LIMIT_S,
               limit_words="1 s", log=True)],
    )  # fmt: skip


EXPERIMENT = Experiment(
    name="sustained_burst",
    claim="What holds under a sustained load breaks in a burst",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 under vLLM's scheduler (256 running, 2,048 tokens a step) on one H100.",
    method=f"Chat requests, Poisson arrivals; after the sustained phase {BURST_S} s at {TIMES} times the rate. The "
    f"phases are judged "
    "apart. The rate is swept.",
    shape=f"The highest rate that keeps TTFT P95 within a second is at least half as much again without bursts as with "
    f"them; at "
    f"{COMPARED:g}/s the sustained phase is well inside and the burst ten times or more outside of what it was.",
    reading="A capacity measured under a steady load says nothing about bursts, and a mean over both says nothing "
    "about either. "
    "Queues are what remembers a burst: provision for it, or shed in it.",
    run=run,
)
