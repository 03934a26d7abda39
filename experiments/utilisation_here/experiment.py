"""Tokens a second and the gap between tokens against the number of clients, on this machine."""

from __future__ import annotations

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.measured import on_server, put
from setpoint.loop.schedule import Schedule
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import seconds

CLIENTS = (1, 2, 4, 8, 16, 32)
QUICK = (1, 16)
ASKED = """\
name: batch
model: smollm2-135m
profile:
  prompt_tokens: 64
  output_tokens: 64
  arrival: {rate: 1/s}
objective: max_throughput
"""
CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=512)


def run(size: Size, seed: int) -> Outcome:
    """A closed loop of each number of clients on one server."""
    clients = CLIENTS if size is Size.FULL else QUICK
    schedule = Schedule(2.0, 14.0, drain_s=6.0) if size is Size.FULL else Schedule(1.0, 4.0, drain_s=3.0)

    async def work(target: Target) -> dict[int, PhaseMeasures]:
        await put(target, ASKED, Schedule(1.0, 4.0, drain_s=3.0), seed=seed + 100, concurrency=4)  # the server warms up
        found = {}
        for number in clients:
            measured = await put(target, ASKED, schedule, seed=seed + number, concurrency=number)
            found[number] = measured.measured.sustained
        return found

    found = on_server(ASKED, CONFIG, work)
    rows = [
        (
            f"{number}",
            f"{each.output_tokens_per_s:,.0f}",
            seconds(each.itl_s.p50, " "),
            seconds(each.itl_s.p99, " "),
            seconds(each.ttft_s.p50, " "),
            f"{each.offered}",
        )
        for number, each in found.items()
    ]
    return Outcome(
        expected(found),
        ("clients", "output tokens/s", "ITL P50", "ITL P99", "TTFT P50", "requests"),
        rows,
        picture(found),
        {"model": "smollm2-135m", "prompt_tokens": 64, "output_tokens": 64, "sustained_s": schedule.sustained_s},
    )


def expected(found: dict[int, PhaseMeasures]) -> list[Expected]:
    """More together are cheaper a token and slower each."""
    one, many = found[1], found[16]
    gap = (many.itl_s.p50 or np.nan) / (one.itl_s.p50 or np.nan)
    checks = [
        Expected(
            "tokens/s of 16 clients over those of one", many.output_tokens_per_s / one.output_tokens_per_s, "at least", 2.5
        ),
        Expected("median gap of 16 clients over that of one", gap, "at least", 1.5),
    ]
    if 32 in found:
        gain = found[32].output_tokens_per_s / many.output_tokens_per_s
        checks.append(Expected("tokens/s of 32 clients over those of 16", gain, "at most", 1.6))
    return checks


def picture(found: dict[int, PhaseMeasures]) -> Picture:
    """Tokens/s and the gap over the clients."""
    xs = np.array(list(found), dtype=np.float64)
    tokens = np.array([each.output_tokens_per_s for each in found.values()])
    p50, p99 = (np.array([(getattr(each.itl_s, name) or np.nan) * 1e3 for each in found.values()]) for name in ("p50", "p99"))
    return Picture(
        "Tokens a second and gaps against clients, SmolLM2-135M (measured)",
        "clients at once",
        [
            Strip("output tokens/s", [Series("P50", xs, tokens)]),
            Strip("gap, ms", [Series("P50", xs, p50), Series("P99", xs, p99)]),
        ],
        log_x=True,
    )


EXPERIMENT = Experiment(
    name="utilisation_here",
    claim="On a CPU too: together is cheaper a token, and slower for each",
    kind=Kind.MEASURED,
    where="SmolLM2-135M on setpoint's own engine, continuous batching, load generator on the same cores.",
    method="Closed loops of 1 to 32 clients with prompts and answers of 64 tokens each, one after the other on one server.",
    shape="16 clients get at least two and a half times the tokens of one, each of them with gaps at least half as "
    "long again; twice "
    "as many clients again gain less than 60 %.",
    reading="The bend comes earlier than on a GPU: a CPU has less arithmetic for each byte it reads.",
    run=run,
)
