"""Immediate, static, continuous and setpoint batching of the coding assistant's requests, on this machine."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.measured import on_server, put
from gallery.simulated import at_rate
from setpoint.loop.schedule import Schedule
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import percent, seconds
from setpoint.requirement import Slos, example_text, parse_requirement

EXAMPLE = "coding-assistant"
RATES = (1.0, 3.0)
LOW, HIGH = RATES
MODES = {
    "immediate": ServingConfig(mode=BatchingMode.IMMEDIATE, max_running=1),
    "static of 8": ServingConfig(mode=BatchingMode.STATIC, max_running=8, batch_wait_s=0.2),
    "continuous": ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=32),
    "setpoint": ServingConfig(mode=BatchingMode.SETPOINT, max_running=16),
}


def run(size: Size, seed: int) -> Outcome:
    """Each mode on a server of its own, with the same requests at the same times."""
    schedule = Schedule(3.0, 22.0, drain_s=4.0) if size is Size.FULL else Schedule(1.0, 5.0, drain_s=2.0)
    text = example_text(EXAMPLE)
    base = parse_requirement(text, EXAMPLE)
    steady = base.model_copy(update={"profile": base.profile.model_copy(update={"burst": None}), "slo_burst": Slos()})
    found: dict[str, dict[float, PhaseMeasures]] = {}
    for name, config in MODES.items():

        async def work(target: Target) -> dict[float, PhaseMeasures]:
            measured = {}
            for number, rate in enumerate(RATES):
                done = await put(target, at_rate(steady, rate), schedule, seed=seed + number)
                measured[rate] = done.measured.sustained
            return measured

        found[name] = on_server(text, config, work)
    rows = [
        (
            f"{rate:g}/s",
            name,
            seconds(each.ttft_s.p50, " "),
            seconds(each.ttft_s.p95, " "),
            seconds(each.itl_s.p99, " "),
            percent(each.goodput_fraction, " "),
            f"{each.offered}",
        )
        for rate in RATES
        for name, each in ((name, found[name][rate]) for name in MODES)
    ]
    return Outcome(
        expected(found),
        ("offered", "mode", "TTFT P50", "TTFT P95", "ITL P99", "goodput", "requests"),
        rows,
        picture(found),
        {"model": "smollm2-135m", "example": EXAMPLE, "sustained_s": schedule.sustained_s},
    )


def expected(found: dict[str, dict[float, PhaseMeasures]]) -> list[Expected]:
    """First tokens wait for batches, or for everybody before; gaps are shortest where nobody joins."""
    ttft = {name: by[HIGH].ttft_s.p50 or np.inf for name, by in found.items()}
    itl = {name: by[HIGH].itl_s.p99 or np.inf for name, by in found.items()}
    return [
        Expected(f"TTFT P50 at {HIGH:g}/s, static over continuous", ttft["static of 8"] / ttft["continuous"], "at least", 2.5),
        Expected(f"TTFT P50 at {HIGH:g}/s, immediate over continuous", ttft["immediate"] / ttft["continuous"], "at least", 4.0),
        Expected(f"ITL P99 at {HIGH:g}/s, continuous over immediate", itl["continuous"] / itl["immediate"], "at least", 1.5),
    ]


def picture(found: dict[str, dict[float, PhaseMeasures]]) -> Picture:
    """TTFT P50 and ITL P99 of each mode at both rates."""

    def lines(pick: str) -> list[Series]:
        return [Series(name, np.array(RATES), np.array([_ms(by[rate], pick) for rate in RATES])) for name, by in found.items()]

    return Picture(
        "Four ways to batch, SmolLM2-135M (measured)",
        "requests offered a second",
        [Strip("TTFT P50, ms", lines("ttft"), log=True), Strip("ITL P99, ms", lines("itl"), limit=60.0, limit_words="60 ms")],
    )


def _ms(each: PhaseMeasures, pick: str) -> float:
    value = each.ttft_s.p50 if pick == "ttft" else each.itl_s.p99
    return np.nan if value is None else value * 1e3


EXPERIMENT = Experiment(
    name="batching_modes_here",
    claim="Measured: static, continuous and immediate batching on this machine",
    kind=Kind.MEASURED,
    where="SmolLM2-135M on setpoint's own engine; the shipped coding-assistant requests.",
    method=f"The same requests at the same times under each mode, at {LOW:g}/s and {HIGH:g}/s (Poisson), each mode on a "
    f"server of its own.",
    shape="At the higher rate the median first token of static batching comes at least two and a half times, that of "
    "immediate four "
    "times as late as that of continuous batching, whose longest gaps are half as long again as those of immediate or more.",
    reading="The simulated experiment of the same name on a GPU shows the same order.",
    run=run,
)
