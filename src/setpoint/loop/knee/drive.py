"""The knee search on a real server: each probe a load from an idle start, measured and judged like any other."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from setpoint.loop.errors import BadInput
from setpoint.loop.knee.criteria import Limit, limits_of, probe_result
from setpoint.loop.knee.idle import until_idle
from setpoint.loop.knee.planned_load import gaps_of, planned_sizes, profile_at, size_maker
from setpoint.loop.knee.probes import KneeOptions, Probe
from setpoint.loop.knee.run import KneeRun, ProbeRun
from setpoint.loop.knee.search import KneeSearch
from setpoint.loop.measuring import Judgement, measure, plan_requests, require_room
from setpoint.loop.schedule import Schedule
from setpoint.measure.options import LoadOptions
from setpoint.measure.running import Progress
from setpoint.measure.target import Target
from setpoint.measure.workers import worker_choice
from setpoint.record import Phase, RequestClass
from setpoint.report.format import three_digits
from setpoint.report.judge import nothing_served
from setpoint.report.request_samples import read_requests
from setpoint.requirement import LatencyMetric, Requirement, Slos
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompt import PromptMaker

WARMUP_SHARE = 0.1
MOST_RPS = 10_000.0
MOST_DRAIN_S = 600.0
LEAST_A_PROBE = 10
SPARE_DEVIATIONS = 2.0
SCOUT_LEAST = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FindKnee:
    """How to search. load: the client's options of every probe. start_rps: first guess, ``None``: the requirement's rate.

    probes_max, requests_max, tolerance: as ``KneeOptions``. probe_s: no probe sends for longer, so that a slow server gets
    fewer requests a probe; scout_s: nor one that only has to find the region, once it has ``SCOUT_LEAST`` requests.
    drain_s: how long answers may still come, at least; longer where a limit on them is. config: how the server is configured,
    for the report. model_tokens: the longest request that the model takes, where known. workers: processes that send, ``None``:
    as needed.
    """

    make_prompt: PromptMaker
    load: LoadOptions
    start_rps: float | None = None
    probes_max: int = 8
    requests_max: int = 600
    tolerance: float = 0.05
    probe_s: float = 120.0
    scout_s: float = 20.0
    drain_s: float = 60.0
    seed: int = 0
    workers: int | None = 1
    model_tokens: int | None = None
    judgement: Judgement | None = None
    config: dict[str, Any] | None = None

    @property
    def most_s(self) -> float:
        """Sending and waiting for answers take no longer than this together."""
        return self.probes_max * (self.probe_s + self.drain_s)


async def find_knee(
    target: Target,
    requirement: Requirement,
    options: FindKnee,
    on_progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> KneeRun:
    """Search the highest rate that meets ``requirement.slo``, whatever rate the requirement says (its burst is left out).

    ``say`` gets a line before the first probe that bounds the time, and one after each probe. Cancelled (Ctrl-C), it
    returns what is known by then. Raises ``BadInput`` for a requirement without limits on the sustained phase or with
    arrivals that have more than one rate, and what the measurement raises.
    """
    limits = limits_of(requirement)
    if not limits:
        raise BadInput("--find-knee: the requirement has no limit to hold; declare slo, such as slo: {ttft: {p95: 1s}}")
    longest_s = max(requirement.slo.limit_s(metric) or 0.0 for metric in (LatencyMetric.TTFT, LatencyMetric.E2E))
    options = replace(options, drain_s=max(options.drain_s, min(MOST_DRAIN_S, longest_s)))
    search = KneeSearch(_search_options(requirement, limits, options))
    say(f"searching the knee: at most {options.probes_max} probes, {options.most_s / 60.0:.0f} minutes at the very most")
    probes: list[ProbeRun] = []
    interrupted = False
    try:
        while (probe := search.next_probe()) is not None:
            run = await _probe(target, requirement, options, limits, probe, len(probes), on_progress)
            if run is None:
                say(f"at {probe.rate_rps:.3g}/s no request falls into a probe of {options.probe_s:.0f} s; the search ends here")
                break
            if not probes:
                _refuse_dead_target(target, run)
            probes.append(run)
            search.observe(run.result)
            say(f"{run.name}: {run.words()}; {search.belief_words()}")
            await until_idle(target, options.load, cut_off=run.count(RequestClass.UNFINISHED) > 0)
    except asyncio.CancelledError:
        interrupted = True
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    if not probes and not interrupted:
        raise BadInput(
            f"--rate: so few requests a second that none fell into a probe of {options.probe_s:.0f} s; "
            f"begin at {LEAST_A_PROBE / options.probe_s:.2g}/s or more"
        )
    names = tuple(limit.criterion.name for limit in limits)
    return KneeRun(requirement, search.result(), tuple(probes), names, interrupted, options.config or {})


def _refuse_dead_target(target: Target, first: ProbeRun) -> None:
    """Raise ``BadInput`` where nothing of the first probe was served or goes on: what it asks is refused, or wrong."""
    if nothing_served(read_requests(first.measured.requests)):
        ended = first.measured.requests.select(["status", "error"]).to_pylist()
        words = Counter(f"HTTP {each['status']}" if each["status"] else str(each["error"]) for each in ended)
        raise BadInput(
            f"{target.url}: none of the {len(ended)} requests of the first probe was served, most of them: "
            f"{words.most_common(1)[0][0]}; begin at a lower --rate if the server was only busy"
        )


def _search_options(requirement: Requirement, limits: tuple[Limit, ...], options: FindKnee) -> KneeOptions:
    start_rps = options.start_rps or requirement.profile.arrival.mean_rps
    return KneeOptions(
        criteria=tuple(limit.criterion for limit in limits),
        start_rps=min(start_rps, MOST_RPS),
        least_rps=min(start_rps, 2.0 / options.probe_s) / 4.0,
        most_rps=MOST_RPS,
        probes_max=options.probes_max,
        requests_max=options.requests_max,
        tolerance=options.tolerance,
        gaps=gaps_of(requirement.profile.arrival),
        sizes=size_maker(requirement.profile),
    )


async def _probe(
    target: Target,
    requirement: Requirement,
    options: FindKnee,
    limits: tuple[Limit, ...],
    probe: Probe,
    number: int,
    on_progress: Callable[[Progress], None] | None,
) -> ProbeRun | None:
    """One probe: plan, send, judge. Its first tenth is warm-up, which is judged by nobody but was there. ``None`` where no
    request falls into the rest."""
    name = f"probe-{number + 1}@{three_digits(probe.rate_rps)}rps"
    needed = requirement.model_copy(update={"profile": profile_at(requirement.profile, probe.rate_rps), "slo_burst": Slos()})
    plan = _plan(needed, options, probe, number)
    if not any(each.phase is Phase.SUSTAINED for each in plan.requests):
        return None
    load = replace(options.load, drain_s=options.drain_s)
    measured = await measure(
        target,
        needed,
        plan,
        load,
        name=name,
        on_progress=on_progress,
        workers=options.workers or worker_choice(plan).workers,
        judgement=options.judgement,
    )
    result = probe_result(
        measured.requests, limits, rate_rps=probe.rate_rps, met=str(measured.slo.verdict), sizes=planned_sizes(plan)
    )
    return ProbeRun(name, measured, result)


def _plan(requirement: Requirement, options: FindKnee, probe: Probe, number: int) -> LoadPlan:
    """At most ``probe.requests`` requests, warm-up included, from a seed of the probe's own."""
    expected = probe.requests - SPARE_DEVIATIONS * math.sqrt(probe.requests)
    longest_s = options.probe_s
    if probe.requests < options.requests_max:
        longest_s = min(longest_s, max(options.scout_s, SCOUT_LEAST / probe.rate_rps))
    sending_s = min(expected / probe.rate_rps, longest_s)
    warmup_s = sending_s * WARMUP_SHARE
    schedule = Schedule(warmup_s=warmup_s, sustained_s=sending_s - warmup_s, recovery_s=0.0, drain_s=options.drain_s)
    plan = plan_requests(requirement, schedule, seed=_seed(options.seed, number), make_prompt=options.make_prompt)
    if options.model_tokens is not None:
        require_room(plan, options.model_tokens)
    return replace(plan, requests=plan.requests[: probe.requests])


def _seed(seed: int, number: int) -> int:
    """Another seed for each probe, the same in every search with ``seed``."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
