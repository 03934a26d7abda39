"""A server that changes itself, on a virtual clock: the engine's own step loop, the controller, and traffic that changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from setpoint.engine.emission import Emission
from setpoint.engine.handing_over import EndedRequests
from setpoint.engine.reconfiguring import apply_config
from setpoint.engine.request import FinishReason, GenerationRequest, Rejected, RequestStats, SamplingParams
from setpoint.engine.sequence import Sequence as EngineSequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.step_loop import StepLoop
from setpoint.loop.adapt.choices import choices
from setpoint.loop.adapt.controller import Cause, Controller, Decision, Effect, Seen
from setpoint.loop.adapt.drift import Drift
from setpoint.loop.adapt.rails import Bounds, Rails
from setpoint.loop.adapt.reading import Reader
from setpoint.loop.adapt.replan import Answer, Question, replan
from setpoint.policy.changing import ChangingPolicy
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import Sample, StepTimeModel
from setpoint.policy.views import RequestLimits
from setpoint.requirement import Requirement, parse_requirement

KV_TOKENS, BLOCK_TOKENS = 32768, 32
BASE_S, TOKEN_S, SEQUENCE_S, READ_S, PRODUCT_S, BETWEEN_S = 7e-3, 6e-4, 7e-4, 2e-7, 2e-8, 5e-4


def requirement(ttft_ms: int = 1500, itl_ms: int = 80) -> Requirement:
    text = f"""
name: adapt
model: smollm2-135m
profile:
  prompt_tokens: 64
  output_tokens: 64
  arrival: {{rate: 1/s}}
slo:
  ttft: {{p95: {ttft_ms}ms}}
  itl: {{p95: {itl_ms}ms}}
"""
    return parse_requirement(text, "adapt")


@dataclass(frozen=True)
class Traffic:
    """Poisson arrivals; lengths are lognormal around their means. From ``from_s`` on."""

    from_s: float
    rate_rps: float
    prompt_tokens: int
    output_tokens: int
    spread: float = 0.3


@dataclass
class Client:
    """One request as its client sees it."""

    sent_s: float
    first_s: float | None = None
    last_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)


FEW = Bounds(modes=(BatchingMode.CONTINUOUS,), max_running=(8, 16), token_budget=(64, 512))
Planner = Callable[[Question], Answer]


class World:
    """``run_until`` moves it on. ``slowness`` multiplies step times; ``planning_s`` is how long a plan takes."""

    def __init__(
        self,
        config: ServingConfig,
        traffic: Sequence[Traffic],
        *,
        rails: Rails | None = None,
        seed: int = 0,
        adapt: bool = True,
        planner: Planner = replan,
        planning_s: float = 4.0,
        needed: Requirement | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.slowness = 1.0
        self.needed = needed or requirement()
        self._dice = np.random.default_rng(seed)
        self._noise = np.random.default_rng(seed + 1)
        self._traffic = sorted(traffic, key=lambda each: each.from_s)
        self._executor = SimulatedExecutor(
            self.clock, self._step_s, blocks=KV_TOKENS // BLOCK_TOKENS, block_tokens=BLOCK_TOKENS
        )
        model = StepTimeModel()
        for work in warm_works():
            model.observe(work, self._step_s(work))
        self._model = model
        self._changing = ChangingPolicy(config, model)
        self.steps = StepLoop(self._changing.policy, self._executor, self.clock, max_model_len=4096, model=model)
        self._ended = EndedRequests()
        self._clients: dict[int, Client] = {}
        self._outcomes: list[tuple[float, bool]] = []
        self.history: list[tuple[float, bool]] = []
        self._rails = rails or Rails(bounds=FEW)
        self.controller = Controller(config, self._rails)
        self._reader = Reader(self)
        self._adapt, self._planner, self._planning_s = adapt, planner, planning_s
        self._answer: tuple[float, Answer] | None = None
        self._next_arrival_s = self._gap(0.0)
        self._next_look_s = self._rails.look_s
        self._serial = 0
        self._last_tokens = -1
        self.drifts: list[Drift] = []
        self.plans: list[tuple[float, Cause, Question, Answer]] = []
        self.decisions: list[tuple[float, Decision]] = []
        self.effects: list[tuple[float, Effect]] = []

    # The engine's records

    def ended_requests(self, since: int) -> tuple[list[RequestStats], int]:
        return self._ended.since(since)

    def step_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        return self.steps.steps.columns(since)

    def decision_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        return self.steps.decisions.columns(since)

    def samples(self) -> list[Sample]:
        return self._model.samples()

    # Time

    def run_until(self, end_s: float) -> None:
        while self.clock() < end_s:
            self._arrive()
            if self._adapt and self.clock() >= self._next_look_s:
                self._next_look_s = self.clock() + self._rails.look_s
                self._look()
            if self.steps.begin_step():
                self._give(self.steps.finish_step())
                self.clock.advance_to(self.clock() + BETWEEN_S)
            else:
                wakes = [self._next_arrival_s, end_s, *([self._next_look_s] if self._adapt else [])]
                wakes += [] if self.steps.wake_at_s is None else [max(self.steps.wake_at_s, self.clock() + 1e-6)]
                self.clock.advance_to(min(wakes))
            self._give(self.steps.take_notices())

    def good_share(self, from_s: float, until_s: float) -> float:
        """Of the requests sent in that time: the share that met every limit; those still under way have not."""
        ended = [good for sent_s, good in self.history if from_s <= sent_s < until_s]
        waiting = sum(from_s <= client.sent_s < until_s for client in self._clients.values())
        return sum(ended) / max(1, len(ended) + waiting)

    def _step_s(self, work: StepWork) -> float:
        seconds = BASE_S + TOKEN_S * work.tokens + SEQUENCE_S * work.sequences
        seconds += READ_S * work.kv_tokens_read + PRODUCT_S * work.attention_products
        return seconds * self.slowness * float(self._noise.lognormal(0.0, 0.05))

    def _gap(self, now_s: float) -> float:
        return now_s + float(self._dice.exponential(1 / self._now(now_s).rate_rps))

    def _now(self, now_s: float) -> Traffic:
        return [each for each in self._traffic if each.from_s <= now_s][-1]

    def _arrive(self) -> None:
        while self._next_arrival_s <= self.clock():
            sent_s = self._next_arrival_s
            self._next_arrival_s = self._gap(sent_s)
            traffic = self._now(sent_s)
            prompt, output = (
                max(4, int(mean * self._dice.lognormal(-(traffic.spread**2) / 2, traffic.spread)))
                for mean in (traffic.prompt_tokens, traffic.output_tokens)
            )
            ids = (self._serial + 10, *self._dice.integers(10, 40_000, size=prompt - 1).tolist())
            self._serial += 1
            limits = RequestLimits(*(self.needed.slo.limit_s(name) for name in ("ttft", "itl")))  # type: ignore[arg-type]
            request = GenerationRequest(
                ids, SamplingParams(max_tokens=output, temperature=0.0), name=f"r{self._serial}", limits=limits, sent_s=sent_s
            )
            try:
                sequence = self.steps.submit(request)
            except Rejected:
                self._over(sent_s, False)
                continue
            self._clients[sequence.sequence_id] = Client(sent_s)

    def _give(self, emissions: list[Emission]) -> None:
        for emission in emissions:
            client = self._clients.get(emission.sequence.sequence_id)
            if client is None:
                continue
            if emission.token is not None:
                if client.first_s is None:
                    client.first_s = self.clock()
                else:
                    client.gaps_s.append(self.clock() - client.last_s)
                client.last_s = self.clock()
            if emission.finish_reason is not None:
                self._end(emission.sequence, client, emission.finish_reason)

    def _end(self, sequence: EngineSequence, client: Client, reason: FinishReason) -> None:
        del self._clients[sequence.sequence_id]
        self._ended.add(sequence, reason, self.clock(), output_tokens=sequence.emitted)
        slo = {str(each.metric): each.limit_s for each in self.needed.slo.latency}
        late = sum(gap_s > slo["itl"] for gap_s in client.gaps_s)
        good = reason is FinishReason.LENGTH and client.first_s is not None
        good = good and client.first_s is not None and client.first_s - client.sent_s <= slo["ttft"]
        self._over(client.sent_s, good and late <= int(0.05 * len(client.gaps_s) + 1e-9))

    def _over(self, sent_s: float, good: bool) -> None:
        self._outcomes.append((sent_s, good))
        self.history.append((sent_s, good))

    # The loop

    def _look(self) -> None:
        now_s, controller = self.clock(), self.controller
        if controller.wants_machine:
            controller.machine(self.samples())
        asked, ended, steps = self._reader.read()
        outcomes, self._outcomes = self._outcomes, []
        self.drifts += controller.see(now_s, Seen(asked, ended, steps, outcomes))
        effect = controller.effect(now_s)
        if effect is not None:
            self.effects.append((now_s, effect))
            if effect.restore is not None:
                self._apply(effect.restore)
                controller.restored(now_s, effect)
        if self._answer is not None and now_s >= self._answer[0]:
            self._decide(now_s, self._answer[1])
        cause = controller.due(now_s)
        profile = controller.begin_plan(now_s) if cause is not None else None
        if cause is not None and profile is not None:
            question = Question(
                requirement=self.needed,
                profile=profile,
                present=controller.config,
                choices=tuple(choices(controller.config, self._rails.bounds.around(controller.config))),
                steps=self._reader.newest_steps(),
                samples=tuple(self.samples()),
                cpu_s=600.0,
                wall_s=600.0,
            )
            answer = self._planner(question)
            self._answer = (now_s + self._planning_s, answer)
            self.plans.append((now_s, cause, question, answer))

    def _decide(self, now_s: float, answer: Answer) -> None:
        self._answer = None
        decision = self.controller.planned(now_s, answer)
        self.decisions.append((now_s, decision))
        if decision.config is not None and decision.prediction is not None:
            self._apply(decision.config)
            self.controller.applied(now_s, decision.config, decision.prediction)

    def _apply(self, config: ServingConfig) -> None:
        apply_config(self.steps, self._changing, config)


def warm_works() -> list[StepWork]:
    """What a warm-up runs."""
    found = [StepWork(decodes, decodes, 96 * decodes, 96 * decodes) for decodes in (1, 2, 4, 8, 16, 32, 64)] * 3
    found += [StepWork(tokens, 1, tokens, tokens * tokens) for tokens in (16, 64, 256, 1024)] * 3
    return found
