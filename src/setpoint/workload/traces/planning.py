"""A trace as the load of a run: which part of it, how fast, and prompts of its lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from setpoint.record import Phase
from setpoint.requirement import Arrival, DurationDistribution
from setpoint.workload.arrivals import MAX_ARRIVALS, offsets_of
from setpoint.workload.building import MAX_REQUESTS, build, in_time
from setpoint.workload.drafts import Draft, following
from setpoint.workload.lengths import draw_seconds
from setpoint.workload.planned import LoadPlan, PhaseSpan
from setpoint.workload.prompt import PromptMaker
from setpoint.workload.traces.clipping import Limits, Measured
from setpoint.workload.traces.trace import Trace, TraceError

MAX_SPEED_UP = 1e6

_ARRIVALS, _ORDER, _THINK_TIMES = range(3)
_SEGMENT = 1 << 20
"""Keeps the random streams of a trace apart from those of a profile."""


def plan_trace(
    trace: Trace,
    *,
    seed: int,
    speed_up: float = 1.0,
    start_s: float = 0.0,
    duration_s: float | None = None,
    warmup_s: float,
    make_prompt: PromptMaker,
    max_prompt_tokens: int | None = None,
    max_output_tokens: int | None = None,
    max_total_tokens: int | None = None,
    arrival: Arrival | None = None,
    think_time: DurationDistribution | None = None,
) -> LoadPlan:
    """The load of an open loop that replays ``trace`` from ``start_s`` (in the trace's time) on, ``speed_up`` times as fast.

    warmup_s and duration_s are times of the run: the first part of what is replayed is the warm-up, and the sustained phase
    that follows ends after ``duration_s``, or with the trace. max_*_tokens: longer prompts and answers are cut to this, the
    prompt also to what the answer leaves of ``max_total_tokens``; how many is said in ``LoadPlan.notes``, beside what the
    trace itself has to say.

    A trace without times needs ``arrival``; its conversations come in an order drawn from the seed, and again from the
    first when they are through. They are sessions with all their turns if ``think_time`` is given, else single requests
    made of their first turns.

    Raises ``TraceError`` (a ``ValueError``) for arguments that cannot be, for a window without requests, and for a plan
    that is too large.
    """
    _check(trace, seed, speed_up, start_s, duration_s, warmup_s, arrival)
    limits = Limits(max_prompt_tokens, max_output_tokens, max_total_tokens)
    measured = Measured(make_prompt, limits)
    if trace.times_s is None:
        assert arrival is not None
        window = _drawn_window(trace, arrival, seed, warmup_s, duration_s)
    else:
        window = _window(trace, trace.times_s, speed_up, start_s, warmup_s, duration_s)
    phases = [PhaseSpan(Phase.WARMUP, 0.0, warmup_s)] if warmup_s > 0 else []
    phases.append(PhaseSpan(Phase.SUSTAINED, warmup_s, window.end_s))
    drafts: list[Draft] = []
    for order, (index, time_s) in enumerate(zip(window.indexes.tolist(), window.times_s.tolist(), strict=True)):
        phase = Phase.WARMUP if time_s < warmup_s else Phase.SUSTAINED
        if trace.conversations:
            drafts += _conversation(trace, index, order, time_s, phase, seed, think_time, measured)
        else:
            drafts.append(_request(trace, index, time_s, phase, seed, limits))
        if len(drafts) > MAX_REQUESTS:
            raise TraceError(f"{trace.name}: more than {MAX_REQUESTS} requests in this part of it: shorten the run")
    try:
        plan = build(in_time(drafts, phases), seed=seed, phases=phases, make_prompt=measured)
    except ValueError as error:
        raise TraceError(f"{trace.name}: {error}") from error
    notes = (*trace.notes, *window.notes, *limits.notes(), *measured.notes())
    return LoadPlan(seed, plan.phases, plan.requests, plan.prompt_tokens_exact, notes=notes)


@dataclass(frozen=True, slots=True)
class _Window:
    """The requests of a trace that are replayed: their places in it, their times in the run, and when the run ends."""

    indexes: NDArray[np.int64]
    times_s: NDArray[np.float64]
    end_s: float
    notes: tuple[str, ...] = ()


def _window(
    trace: Trace, times_s: NDArray[np.float64], speed_up: float, start_s: float, warmup_s: float, duration_s: float | None
) -> _Window:
    whole_s = trace.duration_s or 0.0
    rest_s = (whole_s - start_s) / speed_up
    wanted_s = rest_s if duration_s is None else warmup_s + duration_s
    end_s = min(wanted_s, rest_s)
    first, last = np.searchsorted(times_s, [start_s, start_s + end_s * speed_up], side="left").tolist()
    if duration_s is None or rest_s <= wanted_s:
        last = times_s.size
    run_times_s = (times_s[first:last] - start_s) / speed_up
    sustained = int((run_times_s >= warmup_s).sum())
    if end_s <= warmup_s or not sustained:
        warm_s = start_s + warmup_s * speed_up
        later = times_s[times_s >= warm_s]
        raise TraceError(
            f"{trace.name}: there is no request in this part of it after the warm-up, which takes it from {start_s:g} s to "
            f"{warm_s:.6g} s; " + (f"the next comes at {later[0]:.6g} s" if later.size else f"it is {whole_s:.6g} s long")
        )
    notes = []
    if wanted_s > rest_s * 1.001:
        notes.append(f"The trace ends before the run was to: it lasts {end_s:.3g} s instead of {wanted_s:.3g} s.")
    if speed_up != 1:
        notes.append(f"The trace is replayed {speed_up:g} times as fast as it was.")
    return _Window(np.arange(first, last), run_times_s, max(end_s, float(np.nextafter(run_times_s[-1], np.inf))), tuple(notes))


def _drawn_window(trace: Trace, arrival: Arrival, seed: int, warmup_s: float, duration_s: float | None) -> _Window:
    sustained_s = trace.requests / arrival.mean_rps if duration_s is None else duration_s
    calm = Arrival(rate_rps=arrival.calm_rps)
    before = offsets_of(calm, warmup_s, _stream(seed, _ARRIVALS, 0))
    times_s = np.concatenate([before, warmup_s + offsets_of(arrival, sustained_s, _stream(seed, _ARRIVALS, 1))])
    if times_s.size > MAX_REQUESTS:
        raise TraceError(f"{trace.name}: {times_s.size} requests are more than {MAX_REQUESTS}: lower the rate or the duration")
    if times_s.size == before.size:
        raise TraceError(f"{trace.name}: at {arrival.mean_rps:g}/s no request comes within {sustained_s:g} s: run longer")
    order = _stream(seed, _ORDER).permutation(trace.requests)
    indexes = np.resize(order, times_s.size)
    notes = [f"The trace has no times; arrivals are drawn at {arrival.mean_rps:.4g}/s."]
    if times_s.size > trace.requests:
        notes.append(f"The trace has {trace.requests} conversations for {times_s.size} arrivals: they come more than once.")
    return _Window(indexes, times_s, warmup_s + sustained_s, tuple(notes))


def _request(trace: Trace, index: int, time_s: float, phase: Phase, seed: int, limits: Limits) -> Draft:
    prompt_tokens, output_tokens = limits.cut(int(trace.prompt_tokens[index]), int(trace.output_tokens[index]))
    draft = Draft(time_s, phase, prompt_tokens, output_tokens, serial=index, prefix_seed=seed)
    if trace.blocks is not None:
        draft.blocks = trace.blocks.of(index)
    return draft


def _conversation(
    trace: Trace,
    index: int,
    order: int,
    time_s: float,
    phase: Phase,
    seed: int,
    think_time: DurationDistribution | None,
    measured: Measured,
) -> Iterator[Draft]:
    turns = trace.conversations[index] if think_time is not None else trace.conversations[index][:1]
    think_s: Sequence[float] = ()
    if think_time is not None:
        think_s = draw_seconds(think_time, len(turns) - 1, _stream(seed, _THINK_TIMES, order)).tolist()
    before: Draft | None = None
    context_tokens = 0
    for place, turn in enumerate(turns):
        made = measured.turn(turn, context_tokens)
        if made is None:
            return
        prompt, output_tokens = made
        if before is None:
            session = f"{order}" if think_time is not None else None
            draft = Draft(time_s, phase, prompt.tokens, output_tokens, session=session, prompt=prompt)
        else:
            draft = following(before, prompt.tokens, output_tokens, think_s[place - 1])
            draft.prompt = prompt
        context_tokens += prompt.tokens + output_tokens
        before = draft
        yield draft


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, _SEGMENT, *key)))


def _check(
    trace: Trace,
    seed: int,
    speed_up: float,
    start_s: float,
    duration_s: float | None,
    warmup_s: float,
    arrival: Arrival | None,
) -> None:
    if seed < 0:
        raise TraceError(f"seed is {seed}; allowed: a whole number of at least 0")
    if not 0 < speed_up <= MAX_SPEED_UP:
        raise TraceError(f"speed_up is {speed_up}; allowed: more than 0, at most {MAX_SPEED_UP:g}")
    durations: Iterable[tuple[str, float]] = (("start_s", start_s), ("warmup_s", warmup_s))
    for name, value_s in durations:
        if not 0 <= value_s < math.inf:
            raise TraceError(f"{name} is {value_s}; allowed: a duration of at least 0 s")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise TraceError(f"duration_s is {duration_s}; allowed: more than 0 s")
    if trace.times_s is None and arrival is None:
        raise TraceError(f"{trace.name}: {trace.format} has no times, so the rate must be given")
    if trace.times_s is not None and arrival is not None:
        raise TraceError(f"{trace.name}: {trace.format} has times of its own; change them with the speed-up, not with a rate")
    if trace.times_s is None and (start_s or speed_up != 1):
        raise TraceError(f"{trace.name}: {trace.format} has no times, so there is no start in it and no speed-up")
    if trace.requests > MAX_ARRIVALS and duration_s is None:
        raise TraceError(f"{trace.name}: {trace.requests} requests, at most {MAX_ARRIVALS} can be planned: give a duration")
