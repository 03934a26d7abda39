"""The load of a requirement or of a trace as a simulation takes it: what ``setpoint measure`` sends for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from setpoint.policy.views import IntColumn, RequestLimits
from setpoint.record import Phase
from setpoint.requirement import LatencyMetric, RequestProfile, Slos
from setpoint.requirement.arrival import STATIONARY, Arrival
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.naming import SharedPrefixes, TraceBlocks
from setpoint.simulate.sequences import Kind
from setpoint.workload.arrivals import MAX_ARRIVALS, SPARE_ARRIVALS, offsets_of
from setpoint.workload.drafts import ARRIVALS, Draft, Segment, mean_turns
from setpoint.workload.plan import arrival_in, segments_of
from setpoint.workload.traces.clipping import Limits
from setpoint.workload.traces.trace import Trace

MOST_TURNS = 200_000
MOST_TRIES = 6


@dataclass(frozen=True, slots=True)
class TurnPace:
    """How turns of a conversation follow each other: ``think_share`` of its think time after the answer of the one before.

    answer_s: how long every answer is taken to last. In a simulation of a load nobody waits for the answer itself.
    """

    answer_s: float = 0.0
    think_share: float = 1.0


def limits_of(slos: Slos) -> RequestLimits:
    """The deadlines that a server holds one request to."""
    return RequestLimits(
        ttft_s=slos.limit_s(LatencyMetric.TTFT),
        itl_s=slos.limit_s(LatencyMetric.ITL),
        tpot_s=slos.limit_s(LatencyMetric.TPOT),
        e2e_s=slos.limit_s(LatencyMetric.E2E),
    )


def load_of_profile(
    profile: RequestProfile,
    kind: Kind,
    *,
    seed: int,
    warmup_s: float,
    sustained_s: float,
    recovery_s: float,
    burst_repeats: int = 1,
    drain_s: float,
    cool_down_s: float = 0.0,
    pace: TurnPace | None = None,
) -> Load:
    """Warm-up, sustained phase, then burst and recovery if the profile has one; drawn as ``workload.plan_load`` draws.

    cool_down_s: of a recovery at the very end. pace: how turns of a conversation follow each other, ``None``: their think time
    after the turn before was sent. Their prompts have everything before them. Raises ``ValueError`` for more requests than can
    be planned.
    """
    phases: list[PhaseOfLoad] = []
    parts: list[tuple[np.ndarray, ...]] = []
    turns, start_s = mean_turns(profile.shapes), 0.0
    talks = any(shape.sessions is not None for shape in profile.shapes)
    drafts: list[Draft] = []
    segments = [*segments_of(profile, warmup_s, sustained_s, burst_repeats, recovery_s), (Phase.RECOVERY, cool_down_s)]
    for number, (phase, duration_s) in enumerate(segments):
        if duration_s <= 0:
            continue
        span = PhaseOfLoad(phase, start_s, start_s + duration_s)
        segment = Segment(seed, number, phase)
        arrival = _at_the_end(profile) if number == len(segments) - 1 else arrival_in(profile, phase)
        arrival = arrival if turns == 1 else arrival.at_mean(arrival.mean_rps / turns)
        times_s = start_s + offsets_of(arrival, duration_s, segment.stream(ARRIVALS))
        if talks:
            drafts += segment.drafts(times_s, profile.shapes, MOST_TURNS - len(drafts))
        else:
            drawn = segment.columns(profile.shapes, times_s.size)
            places = np.full(times_s.size, len(phases), dtype=np.int64)
            parts.append((times_s, places, drawn.prompt_tokens, drawn.output_tokens, drawn.shared_tokens, drawn.prefix_seed))
        phases.append(span)
        start_s = span.end_s
    if talks:
        return _with_turns(_paced(drafts, pace or TurnPace()), kind, phases, drain_s)
    sent_s, places, prompts, outputs, shared, seeds = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, text = np.unique(seeds, return_inverse=True)
    named = SharedPrefixes(text.astype(np.int64), shared)
    return Load(sent_s, prompts, outputs, outputs, tuple(phases), places, (kind,), named=named, drain_s=drain_s)


def _at_the_end(profile: RequestProfile) -> Arrival:
    """Arrivals of the cool-down: as before a burst, or as a ramp ended."""
    arrival = profile.arrival
    return arrival_in(profile, Phase.RECOVERY) if arrival.to_rps is None else Arrival(rate_rps=arrival.to_rps)


def sustained_for(profile: RequestProfile, requests: int, *, seed: int, warmup_s: float) -> float:
    """Seconds of a sustained phase with exactly ``requests`` requests; where rates change or turns follow, about as many.

    More where several come at the same moment as the last. Raises ``ValueError`` for more than can be planned.
    """
    if requests > MAX_ARRIVALS:
        raise ValueError(f"at most {MAX_ARRIVALS} requests can be planned")
    arrival = profile.arrival
    if arrival.process not in STATIONARY or mean_turns(profile.shapes) != 1:
        return requests / arrival.mean_rps
    margin, number = 1.0 + 6.0 * arrival.cv / np.sqrt(requests), 1
    for _ in range(MOST_TRIES):
        length_s = min((requests + 2) * margin, SPARE_ARRIVALS * MAX_ARRIVALS) / arrival.mean_rps
        times_s = offsets_of(arrival, length_s, Segment(seed, number, Phase.SUSTAINED).stream(ARRIVALS))
        if times_s.size > requests:
            return _between(float(times_s[requests - 1]), float(times_s[requests]))
        margin *= 2.0
    raise ValueError(f"so many requests do not come within the time in which {MAX_ARRIVALS} are to be expected")


def _between(last_s: float, next_s: float) -> float:
    """A moment after one arrival and not after the next; where both come at once, right after both."""
    for moment_s in ((last_s + next_s) / 2, next_s):
        if moment_s > last_s:
            return moment_s
    return float(np.nextafter(last_s, np.inf))


def _paced(drafts: list[Draft], pace: TurnPace) -> list[Draft]:
    """The drafts, every turn that follows another at its time after that one; sessions are drawn turn by turn."""
    for draft in drafts:
        if draft.follows is not None:
            draft.time_s = draft.follows.time_s + pace.answer_s + pace.think_share * draft.think_s
    return drafts


def _with_turns(drafts: list[Draft], kind: Kind, phases: Sequence[PhaseOfLoad], drain_s: float) -> Load:
    """Conversations: what is said in one is found again in it, and nowhere else (a prefix that all have is not)."""
    ends = np.array([phase.end_s for phase in phases])
    drafts = sorted((draft for draft in drafts if draft.time_s < ends[-1]), key=lambda draft: draft.time_s)
    contexts: dict[int, int] = {}
    texts: dict[object, int] = {}
    columns = np.zeros((4, len(drafts)), dtype=np.int64)
    for place, draft in enumerate(drafts):
        history = 0 if draft.follows is None else contexts[id(draft.follows)]
        prompt = history + draft.prompt_tokens
        contexts[id(draft)] = prompt + draft.output_tokens
        talks = draft.session is not None
        text = texts.setdefault((draft.phase, draft.session) if talks else draft.prefix_seed, len(texts))
        columns[:, place] = prompt, draft.output_tokens, prompt + draft.output_tokens if talks else draft.shared_tokens, text
    prompts, outputs, shared, text_column = columns
    sent_s = np.array([draft.time_s for draft in drafts], dtype=np.float64)
    places = np.searchsorted(ends, sent_s, side="right")
    named = SharedPrefixes(text_column, shared)
    return Load(sent_s, prompts, outputs, outputs, tuple(phases), places, (kind,), named=named, drain_s=drain_s)


def load_of_trace(
    trace: Trace,
    kind: Kind,
    *,
    speed_up: float = 1.0,
    start_s: float = 0.0,
    warmup_s: float,
    sustained_s: float,
    drain_s: float,
    most_tokens: int | None = None,
) -> Load:
    """A trace with times from ``start_s`` on, ``speed_up`` times as fast; its prompts share what its blocks do.

    most_tokens: of prompt and answer together; what is longer is cut as ``plan_trace`` cuts it, which the load notes.
    Raises ``ValueError`` if there is no request in that part of it.
    """
    if trace.times_s is None:
        raise ValueError(f"{trace.name}: {trace.format} has no times to simulate; convert it to a format with times")
    end_s = warmup_s + sustained_s
    first, last = np.searchsorted(trace.times_s, [start_s, start_s + end_s * speed_up]).tolist()
    if first == last:
        raise ValueError(f"{trace.name}: there is no request in this part of it")
    sent_s = (trace.times_s[first:last] - start_s) / speed_up
    prompts, outputs = np.maximum(trace.prompt_tokens[first:last], 1), np.maximum(trace.output_tokens[first:last], 1)
    notes = (*trace.notes, *_cut(prompts, outputs, most_tokens))
    phases = [PhaseOfLoad(Phase.WARMUP, 0.0, warmup_s)] if warmup_s > 0 else []
    phases.append(PhaseOfLoad(Phase.SUSTAINED, warmup_s, end_s))
    places = ((sent_s >= warmup_s) & (warmup_s > 0)).astype(np.int64)
    load = Load(sent_s, prompts, outputs, outputs, tuple(phases), places, (kind,), drain_s=drain_s, notes=notes)
    blocks = trace.blocks
    if blocks is None:
        return load
    return replace(load, named=TraceBlocks(lambda row: blocks.of(first + row), prompts))


def _cut(prompts: IntColumn, outputs: IntColumn, most_tokens: int | None) -> list[str]:
    """Cut lengths that are together over ``most_tokens``, in place; gives the notes."""
    limits = Limits(None, None, most_tokens)
    if most_tokens is not None:
        for row in np.flatnonzero(prompts + outputs > most_tokens).tolist():
            prompts[row], outputs[row] = limits.cut(int(prompts[row]), int(outputs[row]))
    return limits.notes()
