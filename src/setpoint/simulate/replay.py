"""A workload through the real step loop and a policy, on a virtual clock, with an executor that only answers "how long".

What is real: the policy, the order of calls, the queues, the KV blocks, preemption. What is not: tokens (an answer has the
length it is given), and prompts, of which only the lengths and the part that was found in the prefix cache are kept: cached
parts are taken from one common text that is in the cache from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from setpoint.engine.decision_log import DecisionLog
from setpoint.engine.emission import Emission
from setpoint.engine.kv_blocks import ROOT_HASH, chain_hash
from setpoint.engine.request import FinishReason, GenerationRequest, InvalidRequest, Rejected, SamplingParams
from setpoint.engine.sequence import Sequence as EngineSequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.step_record import StepRing
from setpoint.policy.decisions import Policy, StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import INTERACTIVE, RequestLimits

MOST_ROUNDS = 2_000_000
STOP_TOKEN = 0
FIRST_COMMON_TOKEN = 1
FIRST_OWN_TOKEN = 1 << 24


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it reaches the engine, its lengths in tokens, its limits (they run from ``at_s``).

    cap_tokens: what it asks for at most; it ends after ``output_tokens`` (at least 1, at most the cap).
    """

    name: str
    at_s: float
    prompt_tokens: int
    output_tokens: int
    cap_tokens: int
    cached_tokens: int = 0
    streaming: bool = True
    limits: RequestLimits = field(default_factory=RequestLimits)
    request_class: int = INTERACTIVE
    tenant: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of an arrival. ``finish``: ``None`` if it was still there at the end; ``refused``: why it was refused."""

    arrival: Arrival
    refused: str = ""
    joined_s: float | None = None
    token_times_s: list[float] = field(default_factory=list)
    end_s: float | None = None
    finish: FinishReason | None = None
    message: str = ""
    cached_tokens: int = 0
    preemptions: int = 0


@dataclass(slots=True)
class Replayed:
    """Outcomes in the order of the arrivals; after each step its moment and how many waited and ran.

    steps, decisions: the engine's own records (bounded rings: of a long run the newest). ``whole`` is false if ``most_rounds``
    ended it: what comes after is not known.
    """

    outcomes: list[Outcome]
    steps: StepRing
    decisions: DecisionLog
    moments_s: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    whole: bool = True


@dataclass(frozen=True, slots=True)
class World:
    """Where a workload runs: seconds of a step that begins at a moment, seconds between two steps, the KV cache."""

    step_s: Callable[[StepWork, float], float]
    blocks: int
    block_tokens: int = 32
    between_s: float = 0.0


def replay(
    arrivals: Sequence[Arrival],
    policy: Policy,
    world: World,
    *,
    until_s: float,
    model: StepTimeModel | None = None,
    most_rounds: int = MOST_ROUNDS,
) -> Replayed:
    """Run ``arrivals`` (in order of time, from 0 on) under ``policy`` until all have ended or the clock reaches ``until_s``.

    ``model``: what the policy predicts with, so that steps are recorded with their prediction. Deterministic: the same input
    gives the same result. Raises ``ValueError`` for arrivals out of order.
    """
    if any(later.at_s < earlier.at_s for earlier, later in pairwise(arrivals)):
        raise ValueError("arrivals must be in order of time")
    return _Run(arrivals, policy, world, model).until(until_s, most_rounds)


class _Run:
    def __init__(self, arrivals: Sequence[Arrival], policy: Policy, world: World, model: StepTimeModel | None) -> None:
        self._arrivals = arrivals
        self._world = world
        self._clock = VirtualClock()
        self._live: dict[int, Outcome] = {}
        executor = SimulatedExecutor(
            self._clock,
            lambda work: world.step_s(work, self._clock()),
            blocks=world.blocks,
            block_tokens=world.block_tokens,
            next_token=self._token,
        )
        longest = world.blocks * world.block_tokens
        self._loop = StepLoop(
            policy, executor, self._clock, max_model_len=longest, stop_token_ids=frozenset({STOP_TOKEN}), model=model
        )
        self._result = Replayed([Outcome(arrival) for arrival in arrivals], self._loop.steps, self._loop.decisions)
        self._cache_common(min(max((each.cached_tokens for each in arrivals), default=0), longest // 2))

    def until(self, until_s: float, most_rounds: int) -> Replayed:
        result, coming = self._result, 0
        for _ in range(most_rounds):
            if self._clock() >= until_s:
                return result
            while coming < len(self._arrivals) and self._arrivals[coming].at_s <= self._clock():
                self._submit(coming)
                coming += 1
            if self._loop.begin_step():
                self._step()
                continue
            self._hear(self._loop.take_notices())
            moments = [self._arrivals[coming].at_s] if coming < len(self._arrivals) else []
            if self._loop.wake_at_s is not None and self._loop.wake_at_s > self._clock():
                moments.append(self._loop.wake_at_s)
            if not moments:
                return result
            self._clock.advance_to(min(moments))
        result.whole = False
        return result

    def _step(self) -> None:
        self._hear(self._loop.take_notices())
        self._hear(self._loop.finish_step())
        self._hear(self._loop.take_notices())
        self._result.moments_s.append(self._clock())
        self._result.waiting.append(len(self._loop.waiting))
        self._result.running.append(len(self._loop.running))
        self._clock.advance_to(self._clock() + self._world.between_s)

    def _submit(self, place: int) -> None:
        arrival, outcome = self._arrivals[place], self._result.outcomes[place]
        common = min(arrival.cached_tokens, arrival.prompt_tokens - 1)
        own = FIRST_OWN_TOKEN * (place + 1)
        prompt = (*range(FIRST_COMMON_TOKEN, FIRST_COMMON_TOKEN + common), *range(own, own + arrival.prompt_tokens - common))
        request = GenerationRequest(
            prompt,
            SamplingParams(max_tokens=arrival.cap_tokens),
            name=arrival.name,
            streaming=arrival.streaming,
            limits=arrival.limits,
            request_class=arrival.request_class,
            tenant=arrival.tenant,
        )
        try:
            sequence = self._loop.submit(request)
        except (Rejected, InvalidRequest) as refusal:
            outcome.refused = str(refusal)
            outcome.end_s = self._clock()
            return
        self._live[sequence.sequence_id] = outcome

    def _hear(self, emissions: list[Emission]) -> None:
        now_s = self._clock()
        for emission in emissions:
            sequence = emission.sequence
            outcome = self._live[sequence.sequence_id]
            if emission.token is not None:
                outcome.token_times_s.append(now_s)
            if emission.finish_reason is not None:
                outcome.end_s, outcome.finish, outcome.message = now_s, emission.finish_reason, emission.message
                outcome.joined_s = sequence.first_scheduled_s
                outcome.cached_tokens, outcome.preemptions = sequence.cached_tokens, sequence.preemptions
                del self._live[sequence.sequence_id]

    def _token(self, sequence: EngineSequence) -> int:
        length = self._live[sequence.sequence_id].arrival.output_tokens
        return STOP_TOKEN if sequence.emitted + 1 >= length else FIRST_COMMON_TOKEN

    def _cache_common(self, tokens: int) -> None:
        """Put the text that cached prompts begin with into the prefix cache."""
        pool, size = self._loop.pool, self._world.block_tokens
        blocks = pool.allocate(tokens // size)
        digest = ROOT_HASH
        for number, block in enumerate(blocks):
            first = FIRST_COMMON_TOKEN + number * size
            digest = chain_hash(digest, range(first, first + size))
            pool.publish(block, digest)
        pool.release(reversed(blocks))
