"""A load through the real step loop and policy on a virtual clock: arrivals, clients that come back, what became of each."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

from setpoint.engine.emission import Emission
from setpoint.engine.request import FinishReason, GenerationRequest, Rejected, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.step_loop import StepLoop
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import CPU_PRIOR_S, StepTimeModel
from setpoint.policy.views import INTERACTIVE, RequestLimits


@dataclass(slots=True)
class Client:
    """One intended request: when, what, and what became of it. Moments are on the virtual clock."""

    at_s: float
    prompt: int
    output: int
    limits: RequestLimits
    streaming: bool
    cap: int
    tenant: str = ""
    request_class: int = INTERACTIVE
    number: int = 0
    attempts: int = 0
    sent_s: float = 0.0
    told_s: float = 0.0
    admitted_s: float | None = None
    first_s: float | None = None
    end_s: float | None = None
    shed: bool = False
    reasons: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    last_s: float = 0.0

    @property
    def served(self) -> bool:
        return self.end_s is not None and not self.shed

    def good(self, *, retried: bool = False) -> bool:
        """Met its limits, from the last send where ``retried``, at most 1 % of its gaps over the limit."""
        if self.end_s is None or self.first_s is None or self.shed:
            return False
        sent_s = self.sent_s if retried else self.at_s
        limits = self.limits
        if limits.ttft_s is not None and self.first_s - sent_s > limits.ttft_s:
            return False
        if limits.e2e_s is not None and self.end_s - sent_s > limits.e2e_s:
            return False
        return limits.itl_s is None or sum(gap > limits.itl_s for gap in self.gaps) <= 0.01 * len(self.gaps)


@dataclass(frozen=True, slots=True)
class Profile:
    """Lengths and limits of a load, as the examples of the package state them."""

    prompt: Callable[[np.random.Generator], int]
    output: Callable[[np.random.Generator], int]
    limits: RequestLimits
    streaming: bool
    cap: int


def log_normal(median: float, p95: float, least: int, most: int) -> Callable[[np.random.Generator], int]:
    sigma = float(np.log(p95 / median) / 1.6449)
    return lambda dice: int(np.clip(round(median * np.exp(sigma * dice.standard_normal())), least, most))


RECOMMENDATION = Profile(
    lambda dice: int(dice.integers(36, 49)), lambda dice: int(dice.integers(4, 9)), RequestLimits(e2e_s=0.4), False, 8
)
CODING = Profile(log_normal(70, 200, 32, 320), log_normal(48, 96, 8, 128), RequestLimits(ttft_s=0.5, itl_s=0.06), True, 128)


def arrivals(
    profile: Profile,
    rate: Callable[[float], float],
    *,
    most_rate: float,
    duration_s: float,
    seed: int,
    start_s: float = 0.0,
    tenant: str = "",
) -> list[Client]:
    """Poisson arrivals of a changing rate, by thinning."""
    dice = np.random.default_rng(seed)
    clients: list[Client] = []
    now_s = start_s
    while True:
        now_s += float(dice.exponential(1 / most_rate))
        if now_s >= start_s + duration_s:
            return clients
        if dice.random() * most_rate < rate(now_s):
            clients.append(
                Client(
                    now_s,
                    profile.prompt(dice),
                    profile.output(dice),
                    profile.limits,
                    profile.streaming,
                    profile.cap,
                    tenant,
                )
            )


class LoadWorld:
    """Runs clients against one loop. ``retries``: how often a refused client comes back when it was told.

    ``told``: what a client makes of the seconds it is told.
    """

    def __init__(
        self,
        config: ServingConfig,
        *,
        seed: int = 0,
        noise: float = 0.05,
        machine_s: tuple[float, ...] = CPU_PRIOR_S,
        change_s: float = 4e-3,
        blocks: int = 1024,
        told: Callable[[float], float] = float,
    ) -> None:
        self.told = told
        self.clock = VirtualClock()
        dice = np.random.default_rng(seed)
        last_tokens = 0

        def duration_s(work: StepWork) -> float:
            nonlocal last_tokens
            c0, c1, c2, c3, c4 = machine_s
            if work.tokens != last_tokens:
                c0 += change_s
            last_tokens = work.tokens
            seconds = c0 + c1 * work.tokens + c2 * work.sequences + c3 * work.kv_tokens_read + c4 * work.attention_products
            return float(seconds * np.exp(noise * dice.standard_normal()))

        self.model = StepTimeModel()
        self.outputs: dict[int, int] = {}
        executor = SimulatedExecutor(self.clock, duration_s, blocks=blocks, next_token=self._token)
        self.policy = build_policy(config, self.model)
        self.loop = StepLoop(
            self.policy, executor, self.clock, max_model_len=2048, stop_token_ids=frozenset({0}), model=self.model
        )
        self.by_id: dict[int, Client] = {}

    def _token(self, sequence: Sequence) -> int:
        return 0 if sequence.emitted + 1 >= self.outputs[sequence.sequence_id] else 1 + len(sequence.tokens)

    def run(self, clients: Items[Client], *, retries: int = 0) -> None:
        for number, client in enumerate(clients):
            client.number = number
        coming = [(client.at_s, client.number) for client in clients]
        heapify(coming)
        while coming or self.loop.busy:
            while coming and coming[0][0] <= self.clock():
                moment_s, number = heappop(coming)
                again_s = self._send(clients[number], moment_s)
                if again_s is not None and clients[number].attempts <= retries:
                    heappush(coming, (again_s, number))
            started = self.loop.begin_step()
            self._hear(self.loop.take_notices())
            if started:
                self._hear(self.loop.finish_step())
                self._hear(self.loop.take_notices())
            elif coming:
                self.clock.advance_to(min(coming[0][0], self.loop.wake_at_s or np.inf))

    def _send(self, client: Client, sent_s: float) -> float | None:
        client.attempts += 1
        client.sent_s = sent_s
        first = 1 + 4096 * client.number
        prompt = tuple(range(first, first + client.prompt))
        try:
            sequence = self.loop.submit(
                GenerationRequest(
                    prompt,
                    SamplingParams(max_tokens=client.cap),
                    limits=client.limits,
                    streaming=client.streaming,
                    sent_s=sent_s,
                    tenant=client.tenant,
                    request_class=client.request_class,
                )
            )
        except Rejected as refusal:
            client.reasons.append(refusal.reason)
            client.told_s = self.clock() + self.told(refusal.retry_after_s)
            return client.told_s
        client.admitted_s = self.clock()
        self.outputs[sequence.sequence_id] = client.output
        self.by_id[sequence.sequence_id] = client
        return None

    def _hear(self, emissions: Items[Emission]) -> None:
        for emission in emissions:
            client = self.by_id[emission.sequence.sequence_id]
            now_s = self.clock()
            if emission.token is not None:
                if client.first_s is None:
                    client.first_s = now_s
                else:
                    client.gaps.append(now_s - client.last_s)
                client.last_s = now_s
            if emission.finish_reason is not None:
                client.end_s = now_s
                client.shed = emission.finish_reason is FinishReason.SHED


def setpoint_config(max_running: int) -> ServingConfig:
    return ServingConfig(mode=BatchingMode.SETPOINT, max_running=max_running, token_budget=2048, max_waiting=1024)
