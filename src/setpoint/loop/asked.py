"""From options as they were typed to what is to be measured: one requirement, one set of options, or ``BadInput``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setpoint.loop.asserts import parse_assertions, with_asserted_limits
from setpoint.loop.contradictions import refuse, refuse_beside_trace, refuse_requests_of_a_trace
from setpoint.loop.describe import described_requirement, schedule_from
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import (
    ClientFlags,
    LengthFlags,
    LoadFlags,
    OutputFlags,
    TargetFlags,
    TraceFlags,
    VerdictFlags,
)
from setpoint.loop.goal import parse_goal
from setpoint.loop.measure import MeasureOptions
from setpoint.loop.schedule import DEFAULT_WARMUP_S, MOST_SUSTAINED_S, Schedule
from setpoint.loop.shorthand import seconds
from setpoint.loop.targets import endpoint_named
from setpoint.requirement import Requirement, Slos, load_requirement

if TYPE_CHECKING:
    from setpoint.loop.traces import TraceChoice

ARRIVALS_OF_A_CLOSED_LOOP = (
    "rate",
    "arrival",
    "cv",
    "burst_rate",
    "burst_duration",
    "to_rate",
    "steps",
    "on",
    "off",
    "off_rate",
)
AUTO = "auto"
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure, and how."""

    requirement: Requirement
    options: MeasureOptions


def asked_of(
    file: Path | None,
    target: TargetFlags,
    load: LoadFlags,
    trace: TraceFlags,
    length: LengthFlags,
    client: ClientFlags,
    verdict: VerdictFlags,
    output: OutputFlags,
) -> Asked:
    """Read every option. Raises ``BadInput`` naming the first that cannot be used, ``RequirementError`` for the file."""
    _refuse_contradictions(load, trace, length, verdict)
    assertions = parse_assertions(verdict.assertions or ())
    choice = _trace_choice(trace, load)
    base = load_requirement(file) if file is not None else None
    needed = described_requirement(base, load) if choice is None else choice.requirement(base, load)
    if load.concurrency is not None:
        needed = _without_burst(needed)
    if length.until is not None:
        _refuse_with_until(needed, client)
    limited = with_asserted_limits(needed, assertions)
    if verdict.find_knee and not limited.slo.declared():
        raise BadInput("--find-knee: needs a limit to hold, from --requirement or --assert, such as --assert 'ttft_p95<1s'")
    options = MeasureOptions(
        schedule=_schedule(limited, length, choice),
        output=output.output,
        seed=length.seed,
        endpoint=endpoint_named(target.endpoint),
        max_in_flight=client.max_in_flight,
        ignore_eos=client.ignore_eos,
        extra=_extra_body(target.extra_body),
        max_completion_tokens=target.max_completion_tokens,
        retries=client.retries,
        concurrency=load.concurrency,
        requests=length.requests,
        trace=choice,
        workers=_workers(client.workers),
        assertions=assertions,
        declared=needed,
        goal=parse_goal(length.until) if length.until is not None else None,
        tokenizer=target.tokenizer,
        recalibrate=client.recalibrate,
        power_url=client.power_url,
        metrics_urls=tuple(target.metrics_url or ()),
        described=file is None,
        find_knee=verdict.find_knee,
        per_token=output.per_token,
    )
    return Asked(limited, options)


def _refuse_contradictions(load: LoadFlags, trace: TraceFlags, length: LengthFlags, verdict: VerdictFlags) -> None:
    """An option that would be ignored is a mistake. Raises ``BadInput``."""
    refuse_beside_trace(load, trace)
    if load.concurrency is not None:
        refuse(load, ARRIVALS_OF_A_CLOSED_LOOP, "--concurrency", "a closed loop sends when an answer has ended")
    if length.until is not None and (length.requests is not None or trace.trace is not None):
        other = "--requests" if length.requests is not None else "--trace"
        raise BadInput(f"--until: says how long to measure, and so does {other}; give one of them")
    if verdict.find_knee:
        chosen = {
            "--trace": trace.trace,
            "--concurrency": load.concurrency,
            "--until": length.until,
            "--duration": length.duration,
            "--requests": length.requests,
            "--warmup": length.warmup,
        }
        for name, value in chosen.items():
            if value is not None:
                raise BadInput(f"--find-knee: chooses the load and its length by itself; leave out {name}")


def _refuse_with_until(requirement: Requirement, client: ClientFlags) -> None:
    """Raises ``BadInput`` for what cannot be ended early."""
    if requirement.profile.burst is not None:
        raise BadInput("--until: ends the run early, so no burst can follow; leave out the burst, or give --duration")
    if client.workers is not None and _workers(client.workers) not in (None, 1):
        raise BadInput("--until: is looked after by one process; leave out --workers")


def _without_burst(requirement: Requirement) -> Requirement:
    """For a closed loop, which has no arrivals to raise."""
    profile = requirement.profile.model_copy(update={"burst": None})
    return requirement.model_copy(update={"profile": profile, "slo_burst": Slos()})


def _schedule(requirement: Requirement, length: LengthFlags, choice: TraceChoice | None) -> Schedule:
    sustained_s = seconds("duration", length.duration, positive=True) if length.duration is not None else None
    warmup_s = seconds("warmup", length.warmup) if length.warmup is not None else DEFAULT_WARMUP_S
    if length.until is not None and sustained_s is None:
        sustained_s = MOST_SUSTAINED_S
    if choice is not None:
        refuse_requests_of_a_trace(length)
        sustained_s = choice.length_s(sustained_s, warmup_s)
    return schedule_from(requirement, sustained_s, length.requests, warmup_s)


def _trace_choice(flags: TraceFlags, load: LoadFlags) -> TraceChoice | None:
    if flags.trace is None:
        return None
    from setpoint.loop.traces import TraceChoice

    start_s = seconds("trace-start", flags.trace_start) if flags.trace_start is not None else 0.0
    return TraceChoice.read(flags.trace, flags.trace_format, flags.speed_up, start_s, load)


def _workers(text: str | None) -> int | None:
    """How many processes send; ``None`` leaves it to the load."""
    if text is None or text.strip().lower() == AUTO:
        return None
    if not text.strip().isdigit() or not 1 <= int(text) <= MAX_WORKERS:
        raise BadInput(f"--workers {text}: allowed: auto, or a number from 1 to {MAX_WORKERS}")
    return int(text)


def _extra_body(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"--extra-body: this is no JSON: {error}; write it as '{{\"top_p\": 0.9}}'") from None
    if not isinstance(found, dict):
        raise BadInput(f"--extra-body: a JSON object is needed, such as '{{\"top_p\": 0.9}}'; found {type(found).__name__}")
    return found
