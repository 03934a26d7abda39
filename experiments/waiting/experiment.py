"""How long requests wait in continuous batching, by how much of the capacity is used."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import at_rate, put, requirement_of, system, vllm_like
from setpoint.plan.facts import CHAT, shape_of, vllm
from setpoint.plan.fluid import capacity
from setpoint.plan.sketch import sketch_of
from setpoint.record import PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import round_percent, seconds

HARDWARE = "h100-sxm"
RUNNING, BUDGET = 256, 2048
LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
QUICK = (0.1, 0.5, 0.95)
LOW, MIDDLE, HIGH = QUICK


def run(size: Size, seed: int) -> Outcome:
    """Queue wait at each share of the capacity."""
    loads, requests = (LOADS, 4000) if size is Size.FULL else (QUICK, 1000)
    base = requirement_of(CHAT)
    shape, timer = shape_of(HARDWARE)
    full_rps = capacity(timer, sketch_of(base.profile), vllm(RUNNING, BUDGET), shape.kv_tokens).rate_rps
    serves = system(HARDWARE, vllm_like(RUNNING, BUDGET))
    found = {load: put(at_rate(base, load * full_rps), serves, requests=requests, seed=seed).figures() for load in loads}
    rows = [
        (
            f"{load:.0%}",
            f"{load * full_rps:.1f}/s",
            seconds(each.itl_s.p50, " "),
            *(seconds(value, " ") for value in waits(each)),
            seconds(each.ttft_s.p50, " "),
            seconds(each.ttft_s.p99, " "),
        )
        for load, each in found.items()
    ]
    return Outcome(
        expected(found),
        ("of capacity", "offered", "step (ITL P50)", "wait, mean", "wait P50", "wait P99", "TTFT P50", "TTFT P99"),
        rows,
        picture(found),
        {"hardware": HARDWARE, "requests": requests, "capacity_rps": full_rps, "source": timer.source},
    )


def waits(each: PhaseMeasures) -> tuple[float, float, float]:
    """Mean, P50 and P99 of the wait from arrival to the first scheduled step, seconds."""
    wait = each.queue_wait_s
    assert wait is not None, "every simulated request has a wait"
    return wait.mean or 0.0, wait.p50 or 0.0, wait.p99 or 0.0


def expected(found: dict[float, PhaseMeasures]) -> list[Expected]:
    """A part of a step at any load, many steps at a high one."""
    step_s = found[MIDDLE].itl_s.p50 or np.nan
    mean_s, p50_s, _ = waits(found[MIDDLE])
    return [
        Expected(f"mean wait at {LOW:.0%} of capacity, ms", waits(found[LOW])[0] * 1e3, "at least", 0.5),
        Expected(f"P50 of the wait at {MIDDLE:.0%}, in steps", p50_s / step_s, "at least", 0.4),
        Expected(f"mean wait at {MIDDLE:.0%}, in steps", mean_s / step_s, "at least", 0.5),
        Expected(f"P99 of the wait, {HIGH:.0%} over {LOW:.0%}", waits(found[HIGH])[2] / waits(found[LOW])[2], "at least", 5.0),
    ]


def picture(found: dict[float, PhaseMeasures]) -> Picture:
    """The wait's P50 and P99 beside a step."""
    xs = np.array(list(found))
    p50, p99 = (np.array([waits(each)[place] * 1e3 for each in found.values()]) for place in (1, 2))
    steps = np.array([(each.itl_s.p50 or np.nan) * 1e3 for each in found.values()])
    return Picture(
        "Waiting in continuous batching, llama-3.1-8b on one H100 (simulated)",
        "load, of what the card can carry",
        [Strip("ms", [Series("wait P50", xs, p50), Series("wait P99", xs, p99), Series("a step", xs, steps)], log=True)],
        x_form=round_percent,
    )


EXPERIMENT = Experiment(
    name="waiting",
    claim="Waiting in continuous batching is not zero",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 under vLLM's scheduler (256 running, 2,048 tokens a step) on one H100.",
    method="Chat requests, Poisson arrivals, at shares of the rate that the card can carry in balance. The wait is "
    "from arrival to the "
    "first step that has any of the request's prompt in it.",
    shape="Even at a tenth of the capacity there is a wait, for a step that runs must end first; at half of it the "
    "median is near "
    "half a step or more; near the capacity the tail is many times longer.",
    reading="Joining at step boundaries shortens the wait, it does not remove it: a step with a prompt in it is long, "
    "and the token "
    "budget of a step makes prompts queue behind prompts long before the card is full.",
    run=run,
)
