"""The load that a trial puts on one replica: the profile's requests, brought to a rate; the same ones at every rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from setpoint.policy.views import FloatColumn, IntColumn, RequestLimits
from setpoint.record import Phase
from setpoint.report.figures import request_slos
from setpoint.requirement import Arrival, LatencyMetric, Requirement
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.sequences import Kind
from setpoint.workload.arrivals import offsets_of
from setpoint.workload.drafts import ARRIVALS, Draft, Segment, mean_turns

MOST_REQUESTS = 200_000
SPARE = 1.25
PATTERNS = 3.0
MOST_PATTERN_FACTOR = 20


@dataclass(frozen=True, slots=True)
class Texts:
    """What prompts have in common, by request: blocks up to ``until`` tokens have digests that ``key`` decides."""

    key: IntColumn
    until: IntColumn

    def __call__(self, row: int, block_tokens: int) -> tuple[int, ...]:
        """Digests of the leading full blocks that other prompts have too."""
        first = int(self.key[row]) << 24
        return tuple(range(first, first + int(self.until[row]) // block_tokens))


def offered_load(requirement: Requirement, rate_rps: float, requests: int, warmup_requests: int, seed: int) -> Load:
    """``requests`` of the profile at ``rate_rps`` after ``warmup_requests``, then the burst if the requirement limits one.

    Arrivals whose rate follows a pattern get ``PATTERNS`` whole ones, so there may be more of them. Turns of a conversation
    come after their think time, whatever became of the turn before. The burst is as much above the rate as in the requirement.
    """
    profile = requirement.profile
    arrival = profile.arrival.at_mean(rate_rps / mean_turns(profile.shapes))
    sustained, boundary_s = _sustained(requirement, arrival, requests, warmup_requests, rate_rps, seed)
    phases = [PhaseOfLoad(Phase.WARMUP, 0.0, boundary_s)]
    end_s = sustained[-1].time_s + 1.0 / rate_rps
    phases.append(PhaseOfLoad(Phase.SUSTAINED, boundary_s, end_s))
    if profile.burst is not None and requirement.slo_burst.declared():
        burst_rps = profile.burst.rate_rps * rate_rps / profile.arrival.mean_rps / mean_turns(profile.shapes)
        segment = Segment(seed, 1, Phase.BURST)
        offsets = offsets_of(Arrival(rate_rps=burst_rps), profile.burst.duration_s, segment.stream(ARRIVALS))
        sustained += segment.drafts(end_s + offsets, profile.shapes, MOST_REQUESTS)
        phases.append(PhaseOfLoad(Phase.BURST, end_s, end_s + profile.burst.duration_s))
    return _columns(requirement, sustained, tuple(phases))


def _sustained(
    requirement: Requirement, arrival: Arrival, requests: int, warmup_requests: int, rate_rps: float, seed: int
) -> tuple[list[Draft], float]:
    """Drafts in order of time, and when the warm-up is over."""
    profile = requirement.profile
    segment = Segment(seed, 0, Phase.SUSTAINED)
    wanted = requests + warmup_requests
    length_s = SPARE * wanted / rate_rps + 4.0 / rate_rps
    if arrival.pattern_s is not None:
        length_s = max(length_s, min(PATTERNS * arrival.pattern_s, MOST_PATTERN_FACTOR * length_s))
        wanted = MOST_REQUESTS
    turns = mean_turns(profile.shapes)
    drafts = segment.drafts(offsets_of(arrival, length_s, segment.stream(ARRIVALS)), profile.shapes, MOST_REQUESTS)
    if turns > 1:
        drafts = sorted((draft for draft in drafts if draft.time_s <= length_s), key=lambda draft: draft.time_s)
    drafts = drafts[:wanted] or drafts
    first = min(warmup_requests, len(drafts) - 1)
    return drafts, drafts[first].time_s


def _columns(requirement: Requirement, drafts: list[Draft], phases: tuple[PhaseOfLoad, ...]) -> Load:
    contexts: dict[int, int] = {}
    prompts: list[int] = []
    shared: list[int] = []
    keys: list[int] = []
    names: dict[object, int] = {}
    for draft in drafts:
        history = contexts.get(id(draft.follows), 0) if draft.follows is not None else 0
        prompts.append(history + draft.prompt_tokens)
        contexts[id(draft)] = history + draft.prompt_tokens + draft.output_tokens
        own = draft.session is not None
        keys.append(names.setdefault(draft.session if own else draft.prefix_seed, len(names)))
        shared.append(prompts[-1] if own else draft.shared_tokens)
    sent_s: FloatColumn = np.array([draft.time_s for draft in drafts])
    ends = np.array([phase.end_s for phase in phases[:-1]])
    output = np.array([draft.output_tokens for draft in drafts])
    phase = np.searchsorted(ends, sent_s, side="right")
    return Load(
        sent_s=sent_s,
        prompt_tokens=np.array(prompts),
        output_tokens=output,
        cap_tokens=output,
        phases=phases,
        phase=phase,
        kinds=(Kind(streaming=requirement.profile.streaming, limits=_limits(requirement)),),
        named=Texts(np.array(keys), np.array(shared)),
    )


def _limits(requirement: Requirement) -> RequestLimits:
    """The deadlines of one request: a server holds everybody to the sustained ones."""
    slos = request_slos(requirement, Phase.SUSTAINED)
    limits = {name: slos.limit_s(metric) for name, metric in _METRICS.items()}
    return RequestLimits(**limits)


_METRICS = {
    "ttft_s": LatencyMetric.TTFT,
    "itl_s": LatencyMetric.ITL,
    "tpot_s": LatencyMetric.TPOT,
    "e2e_s": LatencyMetric.E2E,
}

__all__ = ["Texts", "offered_load"]
