"""What is put on a server, and the figures that are kept of it. Every server gets the same requests at the same times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from setpoint.loop.measure import MeasureOptions
from setpoint.loop.measuring import MeasuredRun
from setpoint.loop.on_target import measure_target
from setpoint.loop.schedule import Schedule
from setpoint.measure.event_loop import run
from setpoint.measure.target import Target
from setpoint.record import Summary
from setpoint.requirement import Requirement, Slos, example_text, parse_requirement

# Requests a second: the knee of setpoint as benchmarks/contention/knee.py found it on the machine of the result file;
# where there is none the rate that the example declares.
REFERENCE_RPS = {"coding-assistant": 1.0, "recommendation": 2.8, "document-classification": 2.5}
FACTORS = {"light": 0.5, "at": 1.0, "past": 2.0, "overload": 4.0}
PILE = "pile"
PILE_EXAMPLE = "night-batch"
PILE_REQUESTS, PILE_CLIENTS = 128, 64


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of a load's parts. ``learn_s``: of a light load before the first one on each server, which every server gets."""

    learn_s: float = 5.0
    warmup_s: float = 3.0
    sustained_s: float = 18.0
    drain_s: float = 9.0

    @property
    def load_s(self) -> float:
        """The longest an open loop takes."""
        return self.warmup_s + self.sustained_s + self.drain_s


FULL = Lengths()
SWEEP = Lengths(learn_s=3.0, warmup_s=2.0, sustained_s=10.0)
QUICK = Lengths(learn_s=1.0, warmup_s=1.0, sustained_s=3.0, drain_s=2.0)


def requirement_of(example: str, rate_rps: float | None = None) -> Requirement:
    """The shipped requirement without its burst, at a rate."""
    base = parse_requirement(example_text(example), example)
    profile = base.profile.model_copy(update={"burst": None})
    if rate_rps is not None:
        profile = profile.model_copy(update={"arrival": profile.arrival.at_mean(rate_rps)})
    return base.model_copy(update={"profile": profile, "slo_burst": Slos()})


def rate_of(example: str, load: str, knees: Mapping[str, float]) -> float:
    """Requests a second of a load."""
    return FACTORS[load] * knees.get(example, REFERENCE_RPS[example])


def learn(target: Target, example: str, lengths: Lengths, seed: int) -> None:
    """A short light load: a server that learns its machine, or compiles on its first requests, has done so after it."""
    rate = FACTORS["light"] * REFERENCE_RPS.get(example, 2.0)
    _put(target, requirement_of(example, rate), Schedule(0.0, lengths.learn_s, drain_s=1.0), seed=seed)


def open_loop(
    target: Target, example: str, load: str, lengths: Lengths, seed: int, knees: Mapping[str, float]
) -> dict[str, Any]:
    """The example's requests at a rate, judged by its limits."""
    rate = rate_of(example, load, knees)
    schedule = Schedule(lengths.warmup_s, lengths.sustained_s, drain_s=lengths.drain_s)
    return {"rate_rps": rate, **figures(_put(target, requirement_of(example, rate), schedule, seed=seed))}


def pile(target: Target, requests: int, clients: int, seed: int) -> dict[str, Any]:
    """A fixed pile of the night batch's requests in a closed loop: output tokens over the seconds until the last has ended."""
    schedule = Schedule(0.0, 1.0, drain_s=60.0)
    done = _put(target, requirement_of(PILE_EXAMPLE), schedule, seed=seed, concurrency=clients, requests=requests)
    rows = done.requests
    tokens = sum(each or 0 for each in rows["output_tokens"].to_pylist())
    seconds = max(rows["ended_s"].to_pylist()) - min(rows["sent_s"].to_pylist())
    served = sum(each in ("ok", "late") for each in rows["request_class"].to_pylist())
    return {
        "requests": len(rows),
        "served": served,
        "clients": clients,
        "seconds": seconds,
        "output_tokens_per_s": tokens / seconds,
        "valid": done.validity.valid and served == requests,
    }


def _put(
    target: Target,
    requirement: Requirement,
    schedule: Schedule,
    *,
    seed: int,
    concurrency: int | None = None,
    requests: int | None = None,
) -> MeasuredRun:
    options = MeasureOptions(schedule, output=None, seed=seed, quiet=True, concurrency=concurrency, requests=requests)
    return run(measure_target(target, requirement, options)).measured


def figures(done: MeasuredRun) -> dict[str, Any]:
    """What is kept of an open loop."""
    found = done.measured.sustained
    classes = {name: getattr(found, name) for name in ("offered", "ok", "late", "shed", "failed", "dropped", "unfinished")}
    return {
        **classes,
        "goodput_rps": found.goodput_rps,
        "goodput_fraction": found.goodput_fraction,
        "output_tokens_per_s": found.output_tokens_per_s,
        "ttft_s": _levels(found.ttft_s),
        "itl_s": _levels(found.itl_s),
        "e2e_s": _levels(found.e2e_s),
        "valid": done.validity.valid,
        "reasons": list(done.validity.reasons),
    }


def _levels(summary: Summary) -> dict[str, float | None]:
    values = {name: getattr(summary, name) for name in ("p50", "p95", "p99")}
    return {name: None if value is None or not math.isfinite(value) else value for name, value in values.items()}
