"""The load of a run, planned before it starts: what is sent, when, and with which limit on the answer.

One seed decides everything, and each quantity of each phase has a random stream of its own: a longer warm-up or a
different output length leaves the arrivals and prompts of the sustained phase as they were, so that runs compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from setpoint.record import Phase
from setpoint.requirement import RequestProfile
from setpoint.workload.arrivals import MAX_ARRIVALS, arrival_offsets_s
from setpoint.workload.lengths import draw_tokens
from setpoint.workload.prompts import PromptMaker

MAX_REQUESTS = 200_000
MAX_BURST_REPEATS = 1_000

_ARRIVALS, _PROMPT_TOKENS, _OUTPUT_TOKENS = range(3)


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request of a plan.

    index: position in the plan. intended_s: when it is to be sent, on the time axis of the plan (0 is its start).
    prompt: text or token ids. prompt_tokens: how many tokens it has. max_tokens: how many the answer is to have.
    """

    index: int
    intended_s: float
    phase: Phase
    prompt: str | tuple[int, ...]
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase on the time axis of the plan, ``start_s`` included, ``end_s`` not. A burst may occur several times."""

    phase: Phase
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length of the phase."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class LoadPlan:
    """Every request of a run in the order of sending, and the phases back to back on one time axis.

    prompt_tokens_exact: whether the prompt tokens were counted with the tokenizer (otherwise they are estimates).
    """

    seed: int
    phases: list[PhaseSpan]
    requests: list[PlannedRequest]
    prompt_tokens_exact: bool

    @property
    def duration_s(self) -> float:
        """From the start to the end of the last phase."""
        return self.phases[-1].end_s

    @cached_property
    def offered(self) -> dict[Phase, int]:
        """How many requests each phase intends to send."""
        counts = dict.fromkeys((span.phase for span in self.phases), 0)
        for request in self.requests:
            counts[request.phase] += 1
        return counts


def plan_load(
    profile: RequestProfile,
    *,
    seed: int,
    warmup_s: float,
    sustained_s: float,
    burst_repeats: int = 1,
    recovery_s: float,
    make_prompt: PromptMaker,
) -> LoadPlan:
    """The load of a run: warm-up, sustained, then ``burst_repeats`` times burst and recovery (if there is a burst).

    Warm-up, sustained and recovery have the sustained rate, the burst its own; the arrival process is the same
    throughout. A phase of 0 s is left out. Raises ``ValueError`` for times below 0, a negative seed, or more than
    ``MAX_REQUESTS`` requests, and what ``make_prompt`` raises.
    """
    _check(seed=seed, warmup_s=warmup_s, sustained_s=sustained_s, burst_repeats=burst_repeats, recovery_s=recovery_s)
    phases: list[PhaseSpan] = []
    requests: list[PlannedRequest] = []
    exact = True
    start_s = 0.0
    for segment, (phase, duration_s) in enumerate(_segments(profile, warmup_s, sustained_s, burst_repeats, recovery_s)):
        if duration_s <= 0:
            continue
        span = PhaseSpan(phase, start_s, start_s + duration_s)
        phases.append(span)
        offsets_s, prompt_tokens, output_tokens = _draw(profile, span, seed, segment)
        if len(requests) + offsets_s.size > MAX_REQUESTS:
            raise ValueError(f"more than {MAX_REQUESTS} requests: lower the rate or shorten the {phase.value} phase")
        for ordinal, offset_s in enumerate(offsets_s):
            prompt = make_prompt(
                tokens=int(prompt_tokens[ordinal]),
                shared_prefix_tokens=profile.shared_prefix_tokens,
                seed=seed,
                serial=segment * MAX_ARRIVALS + ordinal,
            )
            exact = exact and prompt.exact
            intended_s = start_s + float(offset_s)
            max_tokens = int(output_tokens[ordinal])
            requests.append(PlannedRequest(len(requests), intended_s, phase, prompt.content, prompt.tokens, max_tokens))
        start_s = span.end_s
    return LoadPlan(seed, phases, requests, exact)


def _segments(
    profile: RequestProfile, warmup_s: float, sustained_s: float, burst_repeats: int, recovery_s: float
) -> Iterator[tuple[Phase, float]]:
    """Phases and their lengths. The position of a phase names its random streams, so a phase of 0 s keeps its place."""
    yield Phase.WARMUP, warmup_s
    yield Phase.SUSTAINED, sustained_s
    if profile.burst is not None:
        for _ in range(burst_repeats):
            yield Phase.BURST, profile.burst.duration_s
            yield Phase.RECOVERY, recovery_s


def _draw(
    profile: RequestProfile, span: PhaseSpan, seed: int, segment: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Arrival offsets in the phase (s), prompt tokens and output tokens, each of shape ``[requests of the phase]``."""

    def stream(quantity: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((seed, segment, quantity)))

    arrival = profile.arrival
    rate_rps = arrival.rate_rps if profile.burst is None or span.phase is not Phase.BURST else profile.burst.rate_rps
    offsets_s = arrival_offsets_s(arrival.process, rate_rps, span.duration_s, stream(_ARRIVALS), cv=arrival.cv)
    size = offsets_s.size
    prompt_tokens = draw_tokens(profile.prompt_tokens, size, stream(_PROMPT_TOKENS))
    return offsets_s, prompt_tokens, draw_tokens(profile.output_tokens, size, stream(_OUTPUT_TOKENS))


def _check(*, seed: int, burst_repeats: int, **durations_s: float) -> None:
    if seed < 0:
        raise ValueError(f"seed is {seed}; allowed: a whole number of at least 0")
    if not 0 <= burst_repeats <= MAX_BURST_REPEATS:
        raise ValueError(f"burst_repeats is {burst_repeats}; allowed: 0 to {MAX_BURST_REPEATS}")
    for name, duration_s in durations_s.items():
        if not math.isfinite(duration_s) or duration_s < 0:
            raise ValueError(f"{name} is {duration_s}; allowed: a duration of at least 0 s")
    if durations_s["sustained_s"] == 0:
        raise ValueError("sustained_s is 0; allowed: more than 0 s, because nothing would be measured")
