"""What a burst does to the tail behind a queue without bound, a bounded one, and deadlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import put, requirement_of, system, vllm_like
from setpoint.loop.simulation.figures import SimulatedRequests, phase_requests
from setpoint.plan.facts import shape_of, vllm
from setpoint.plan.fluid import capacity
from setpoint.plan.sketch import sketch_of
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import percent, seconds
from setpoint.statistics import FloatArray

HARDWARE = "h100-sxm"
RUNNING, BUDGET, WAITING = 16, 2048, 4
CALM, PEAK = 0.3, 1.1
BURST_S, WINDOW_S = 2.0, 0.25
LIMIT_S = 0.1
SLOTS = """\
name: slots
model: llama-3.1-8b
profile:
  prompt_tokens: {{min: 150, max: 250}}
  output_tokens: {{min: 4, max: 8}}
  streaming: false
  arrival: {{rate: {rate}/s}}
  burst: {{rate: {burst}/s, duration: {burst_s}s}}
slo:
  e2e: {{p99: 100ms}}
slo_burst:
  e2e: {{p99: 100ms}}
"""
CONFIGS = {
    "queue without bound": vllm_like(RUNNING, BUDGET),
    "at most 4 wait": vllm_like(RUNNING, BUDGET).model_copy(update={"max_waiting": WAITING}),
    "deadlines (setpoint)": ServingConfig(mode=BatchingMode.SETPOINT, max_running=RUNNING, token_budget=BUDGET),
}


@dataclass(frozen=True, slots=True)
class Tail:
    """One phase: P50 and P99 of E2E of those served, the shares shed and good of those offered."""

    offered: int
    p50_s: float
    p99_s: float
    shed: float
    good: float


def run(size: Size, seed: int) -> Outcome:
    """The same load on three queues; bursts of several seeds are pooled."""
    seeds = range(seed, seed + (12 if size is Size.FULL else 3))
    shape, timer = shape_of(HARDWARE)
    calm = requirement_of(SLOTS, rate=1, burst=2, burst_s=BURST_S)
    full_rps = capacity(timer, sketch_of(calm.profile), vllm(RUNNING, BUDGET), shape.kv_tokens).rate_rps
    asked = requirement_of(SLOTS, rate=round(CALM * full_rps, 1), burst=round(PEAK * full_rps, 1), burst_s=BURST_S)
    requests = int(CALM * full_rps * 6)
    done = {
        name: [put(asked, system(HARDWARE, config), requests=requests, seed=each).done for each in seeds]
        for name, config in CONFIGS.items()
    }
    tails = {
        (name, phase): tail([phase_requests(each, phase) for each in runs])
        for name, runs in done.items()
        for phase in (Phase.SUSTAINED, Phase.BURST)
    }
    rows = [
        (
            name,
            "calm" if phase is Phase.SUSTAINED else "burst",
            f"{each.offered:,}",
            seconds(each.p50_s, " "),
            seconds(each.p99_s, " "),
            percent(each.shed, " "),
            percent(each.good, " "),
        )
        for (name, phase), each in tails.items()
    ]
    over_time = {name: windows([phase_requests(each) for each in runs]) for name, runs in done.items()}
    return Outcome(
        expected(tails),
        ("queue", "phase", "offered", "E2E P50", "E2E P99", "shed", "good of offered"),
        rows,
        picture(over_time),
        {
            "hardware": HARDWARE,
            "capacity_rps": full_rps,
            "calm": CALM,
            "burst": PEAK,
            "runs": len(seeds),
            "source": timer.source,
        },
    )


def e2e_s(requests: SimulatedRequests) -> FloatArray:
    """E2E of those served."""
    return (requests.last_s - requests.intended_s)[np.isfinite(requests.last_s)]


def tail(runs: list[SimulatedRequests]) -> Tail:
    """Several runs' requests pooled."""
    values = np.concatenate([e2e_s(each) for each in runs])
    offered = sum(len(each) for each in runs)
    p50_s, p99_s = np.percentile(values, (50, 99))
    return Tail(offered, float(p50_s), float(p99_s), 1 - len(values) / offered, int((values <= LIMIT_S).sum()) / offered)


def windows(runs: list[SimulatedRequests]) -> tuple[FloatArray, FloatArray]:
    """P99 of E2E by the window of the send, over all runs; the middles of the windows."""
    sent = np.concatenate([each.intended_s[np.isfinite(each.last_s)] for each in runs])
    values = np.concatenate([e2e_s(each) for each in runs])
    starts = np.arange(0.0, sent.max(), WINDOW_S)
    p99 = [values[(sent >= at) & (sent < at + WINDOW_S)] for at in starts]
    return starts + WINDOW_S / 2, np.array([np.percentile(each, 99) if len(each) else np.nan for each in p99])


def expected(tails: dict[tuple[str, Phase], Tail]) -> list[Expected]:
    """The spike, and that a bound and deadlines take it away without losing good requests."""
    endless, bounded, deadlines = CONFIGS
    calm, burst = tails[endless, Phase.SUSTAINED], tails[endless, Phase.BURST]
    cured, held = tails[bounded, Phase.BURST], tails[deadlines, Phase.BURST]
    return [
        Expected("P99 when calm, ms", calm.p99_s * 1e3, "at most", 100.0),
        Expected("P99 in the burst over calm, queue without bound", burst.p99_s / calm.p99_s, "at least", 4.0),
        Expected("P99 in the burst, at most 4 waiting, of that", cured.p99_s / burst.p99_s, "at most", 0.5),
        Expected("P99 in the burst with deadlines, of the limit", held.p99_s / LIMIT_S, "at most", 1.0),
        Expected("good in the burst, deadlines over no bound", held.good / max(burst.good, 1e-9), "at least", 1.5),
        Expected("good in the burst, deadlines over 4 waiting", held.good / max(cured.good, 1e-9), "at least", 1.0),
    ]


def picture(over_time: dict[str, tuple[FloatArray, FloatArray]]) -> Picture:
    """P99 over time."""
    lines = [Series(name, xs, ys * 1e3, marks=False) for name, (xs, ys) in over_time.items()]
    return Picture(
        "A burst of two seconds, P99 by the quarter of a second of the send (simulated)",
        "seconds since the start",
        [Strip("E2E P99 of those served, ms", lines, limit=LIMIT_S * 1e3, limit_words="limit 100 ms", log=True)],
    )


EXPERIMENT = Experiment(
    name="tail_spikes",
    claim="P99 jumps from 60 to 400 ms in a burst; a bounded queue is the cure, not faster hardware",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on one H100, continuous batching, at most 16 running.",
    method=f"Short answers inside a slot of 100 ms (prompts of 200 tokens, 6 tokens back), Poisson arrivals at "
    f"{CALM:.0%} of the card's "
    f"capacity, then {BURST_S:g} s at {PEAK:.0%} of it. Three queues before the same card: without bound, at most 4 waiting "
    "(the rest refused at once), and setpoint's admission by predicted deadline.",
    shape="Calm, P99 is within the limit with each. In the burst it is at least four times as long behind the queue without "
    "bound; a bound "
    "at least halves that, deadlines keep it within the limit, and of all offered requests more are good, although "
    "some were refused.",
    reading="The burst is only 10 % more than the card can carry, yet everybody behind a queue without bound is late, "
    "for as long as "
    "it takes to drain. The bound turns lateness of all into refusal of some. How long the queue may be follows from the "
    f"deadline, which is why {WAITING} is right here and nowhere else.",
    run=run,
)
