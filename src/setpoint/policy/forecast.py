"""When the first token of each queued request will come: the queue played forward in whole steps, on the step-time model.

Each step takes the present decodes and as much prompt, in order of service, as the slack-sized budget allows
(``allowed_s``), lasts what the model says, and ends the answers whose expected length is reached, which gives back their place
and KV. A prompt joins when it has a place and room in the cache. Stretches of equal steps are taken in one go, and after
``MOST_PHASES`` stretches the rest is extrapolated at the last rate, so the cost is bounded (about 3 microseconds a
stretch). A prompt whose first token would come after ``due_s`` is left out: it will be shed, and delays nobody.

Source: the backlog / rate rule of DESIGN.md section 4, refined by places and KV. When it is wrong: arrivals that come later
and are more urgent are not foreseen; lengths are quantiles, not truths. ``policy/margin.py`` learns by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf

MOST_PHASES = 128


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt yet to be computed.

    tokens: uncached tokens left. output_tokens: expected length of the answer. kv_tokens: cache it will need until its end, 0
    if it holds its blocks already. joined: whether it holds a place. due_s: latest useful first token, from now.
    """

    tokens: int
    output_tokens: float
    kv_tokens: float = 0.0
    joined: bool = False
    due_s: float = inf


@dataclass(frozen=True, slots=True)
class Machine:
    """The step-time model as a line, and the limits of a step.

    Seconds: ``base_s`` a step, ``token_s`` a prompt token, ``sequence_s`` a decoding request with its context, ``allowed_s``
    the longest step that keeps everybody's next token in time. ``floor_tokens`` of prompt are computed whatever it costs.
    """

    base_s: float
    token_s: float
    sequence_s: float
    allowed_s: float
    floor_tokens: int
    budget_tokens: int

    def budget(self, decodes: int) -> int:
        """Prompt tokens that fit beside ``decodes``."""
        most = max(self.floor_tokens, self.budget_tokens - decodes)
        if self.allowed_s == inf:
            return most
        spare_s = self.allowed_s - self.base_s - decodes * self.sequence_s
        fits = min(spare_s / max(self.token_s, 1e-9), float(most))
        return max(self.floor_tokens, int(fits))

    def step_s(self, decodes: float, prompt_tokens: float) -> float:
        """Seconds of a step."""
        return self.base_s + decodes * self.sequence_s + prompt_tokens * self.token_s


@dataclass(frozen=True, slots=True)
class Decoding:
    """The answers under way: expected tokens left of each, cache tokens each gives back, and what is free now."""

    tokens_left: Sequence[float]
    kv_held: Sequence[float]
    places: int
    kv_free: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """``first_s``: seconds from now to the first token of each prompt, ``inf`` where it cannot come in time or is unknown.

    doomed: indices of those that cannot. decodes: answers under way when the last prompt was done. steps: steps until then.
    """

    first_s: list[float]
    doomed: list[int]
    decodes: int
    steps: int


def play(
    machine: Machine, decoding: Decoding, prompts: Sequence[Prompt], *, horizon_s: float = inf, hope: float = 1.0
) -> Forecast:
    """Play the queue forward until every prompt has its first token or ``horizon_s`` is passed.

    ``hope``: share of the forecast wait for its turn that is held against a prompt when it is judged doomed (its own work
    counts in full): below 1, the benefit of the doubt.
    """
    ends = list(zip(decoding.tokens_left, decoding.kv_held, strict=True))
    heapify(ends)
    first_s, doomed = [inf] * len(prompts), list[int]()
    places, kv_free = decoding.places, decoding.kv_free
    # Joined prompts hold places of their own, which they give back when their answer ends.
    now_s, step, head = 0.0, 0, 0
    left = prompts[0].tokens if prompts else 0
    started = False
    for _ in range(MOST_PHASES):
        while ends and ends[0][0] <= step:
            kv_free += heappop(ends)[1]
            places += 1
        if head >= len(prompts) or now_s > horizon_s:
            return Forecast(first_s, doomed, len(ends), step)
        decodes = len(ends)
        budget = machine.budget(decodes)
        done: list[int] = []
        taken = 0
        while head < len(prompts) and taken < budget:
            prompt = prompts[head]
            if not started:
                steps = -(-left // budget)
                if hope * now_s + steps * machine.step_s(decodes, min(left, budget)) > prompt.due_s:
                    doomed.append(head)
                    head += 1
                    left = prompts[head].tokens if head < len(prompts) else 0
                    continue
                if not prompt.joined:
                    if places <= 0 or (prompt.kv_tokens > kv_free and ends):
                        break
                    places -= 1
                    kv_free -= prompt.kv_tokens
                started = True
            share = min(left, budget - taken)
            taken += share
            left -= share
            if left == 0:
                done.append(head)
                head += 1
                left = prompts[head].tokens if head < len(prompts) else 0
                started = False
        repeat = 1
        if not done and (taken or ends):
            repeat = max(1, (left - 1) // budget + 1) if taken else 1 << 30
            if ends:
                repeat = max(1, min(repeat, int(-(-(ends[0][0] - step) // 1))))
            if taken:
                left -= budget * (repeat - 1)
        elif not done:
            return Forecast(first_s, doomed, 0, step)
        now_s += repeat * machine.step_s(decodes, taken)
        step += repeat
        for index in done:
            first_s[index] = now_s
            heappush(ends, (step + prompts[index].output_tokens - 1, prompts[index].kv_tokens))
    _extrapolate(machine, prompts, first_s, head=head, now_s=now_s, decodes=len(ends))
    return Forecast(first_s, doomed, len(ends), step)


def _extrapolate(
    machine: Machine, prompts: Sequence[Prompt], first_s: list[float], *, head: int, now_s: float, decodes: int
) -> None:
    """The rest of the queue at the rate of the last step."""
    budget = machine.budget(decodes)
    token_s = machine.step_s(decodes, budget) / budget
    for index in range(head, len(prompts)):
        after_s = now_s + prompts[index].tokens * token_s
        if after_s <= prompts[index].due_s:
            now_s = first_s[index] = after_s
