"""A seed's world run through policy, step loop and KV pool on a virtual clock, everything checked at every step."""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass
from hashlib import blake2b
from heapq import heappop, heappush

from simulation_clients import MOST_ATTEMPTS, Client, Population
from simulation_executor import WorldExecutor, next_token
from simulation_invariants import (
    FULL_LOOK_EVERY,
    OLD_EVERY,
    Patience,
    check_answer,
    check_begun,
    check_blocks,
    check_doomed,
    check_end,
    check_plan,
    check_policy,
    check_views,
)
from simulation_recipe import Recipe, draw

from setpoint.engine.emission import Emission
from setpoint.engine.request import EngineFailed, FinishReason, Rejected
from setpoint.engine.simulated import VirtualClock
from setpoint.engine.speculation.building import build_speculator
from setpoint.engine.speculation.simulated import PartlyRight
from setpoint.engine.step_loop import StepLoop
from setpoint.policy.configuration import BatchingMode
from setpoint.policy.decisions import Admit, Policy, Reject, StepPlan, StepResult
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import RequestView, StepView, SystemView

STEPS = 5000
# Turns (steps, and sleeps until the next arrival) for every step asked for; a world whose every request is refused or dropped
# ends after so many attempts.
TURNS_PER_STEP = 40
MOST_ATTEMPTS_PER_STEP = 1.2
# However short the answers and however many are refused: steps, not arrivals, are what is simulated.
MOST_ARRIVALS_PER_STEP = 0.5


class SimulationFailed(AssertionError):
    """An invariant broke; the message replays it."""

    @classmethod
    def at(cls, seed: int, step: int, steps: int, why: str) -> SimulationFailed:
        """The failure of ``seed`` at ``step`` of ``steps``."""
        replay = f".venv/bin/python tests/engine/simulation/simulation_replay.py {seed} --steps {steps}"
        return cls(f"seed {seed} fails at step {step}: {why}\nreplay: {replay}")


@dataclass(frozen=True, slots=True)
class Result:
    """What a world came to. ``digest``: of every decision and every token."""

    seed: int
    mode: str
    steps: int
    digest: str
    counts: dict[str, int]
    worst_patience: float


class Witness:
    """Passes everything on to a policy, checks what it answers and keeps a digest of it."""

    def __init__(self, inner: Policy, recipe: Recipe, digest: blake2b) -> None:
        self.inner = inner
        self.loop: StepLoop | None = None
        self.last: StepPlan | None = None
        self.now_s = 0.0
        self._recipe = recipe
        self._digest = digest
        self._ended_s = 0.0

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        answer = self.inner.admit(request, system)
        check_answer(answer, self._recipe, system, request.request_class)
        self._digest.update(repr((request.request_id, system.now_s, answer.reason.code, answer.reason.operands)).encode())
        return answer

    def plan(self, step: StepView) -> StepPlan:
        assert step.now_s >= self._ended_s, "time runs backwards"
        plan = self.inner.plan(step)
        self.last, self.now_s = plan, step.now_s
        assert self.loop is not None
        check_plan(plan, self.loop, step.now_s)
        if self._recipe.config.mode is BatchingMode.SETPOINT:
            check_doomed(step.waiting, plan, step.now_s)
        told = (step.now_s, plan.order, plan.prefill_budget_tokens, plan.shed, plan.preempt_order, plan.wake_at_s)
        self._digest.update(repr((told, plan.reason.code, plan.reason.operands)).encode())
        return plan

    def observe(self, result: StepResult) -> None:
        assert self.now_s <= result.start_s <= result.end_s, "a step ends before it begins"
        self._ended_s = result.end_s
        self.inner.observe(result)


class Run:
    """One world under way."""

    def __init__(self, seed: int, steps: int = STEPS) -> None:
        self.recipe = draw(seed)
        self.steps = 0
        self._target = steps
        self._clock = VirtualClock()
        self._dice = random.Random(f"{seed} events")
        self._machine_dice = random.Random(f"{seed} machine")
        self._source = Population(self.recipe, random.Random(f"{seed} clients")).arrivals()
        self._events: list[tuple[float, int, str, Client]] = []
        self._numbered = self._arrivals = 0
        self._shift_s = 0.0
        self._live: dict[int, Client] = {}
        self._patience = Patience(self.recipe, self._live)
        self._digest = blake2b(digest_size=16)
        self.counts = dict.fromkeys(("preempted", "shed", "rejected", "faults", "cancelled", "ended", "returned", "hits"), 0)
        self._build()
        self._invite()

    def _build(self) -> None:
        recipe = self.recipe
        # Half of the machines are not at all what the prior says.
        model = StepTimeModel() if recipe.seed % 2 else StepTimeModel(recipe.machine.coefficients_s)
        self.executor = WorldExecutor(recipe, self._clock, self._machine_dice)
        self.policy = Witness(build_policy(recipe.config, model), recipe, self._digest)
        self.loop = StepLoop(
            self.policy,
            self.executor,
            self._clock,
            max_model_len=recipe.model_len,
            stop_token_ids=frozenset({0}),
            model=model,
            speculator=build_speculator(
                recipe.config,
                self._clock,
                draft_model=lambda: PartlyRight(
                    next_token, recipe.config.longest_draft_tokens, foretells=bool(recipe.seed % 3)
                ),
            ),
        )
        self.policy.loop = self.loop
        self.executor.pool = self.loop.pool

    def run(self) -> Result:
        """To the end: so many steps with arrivals, then until everybody has left. Raises ``SimulationFailed``."""
        try:
            self._turns()
            self._finish()
        except Exception as error:
            why = f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
            raise SimulationFailed.at(self.recipe.seed, self.steps, self._target, why) from error
        return Result(
            self.recipe.seed,
            self.recipe.config.mode.value,
            self.steps,
            self._digest.hexdigest(),
            self.counts,
            self._patience.worst,
        )

    # One turn of whoever drives the loop

    def _turns(self) -> None:
        for _ in range(TURNS_PER_STEP * self._target):
            if not self._live and not self._open:
                return
            self._turn()
        raise AssertionError("the loop does not come to an end")

    def _turn(self) -> None:
        machine, dice = self.recipe.machine, self._dice
        if machine.jump and dice.random() < machine.jump:
            leap_s = dice.random() * machine.jump_s
            self._clock.advance_to(self._clock() + leap_s)
            self._shift_s += leap_s  # Nobody sends while the clock leaps: a thousand seconds would bring a million requests.
        self._happen()
        try:
            started = self.loop.begin_step()
        except EngineFailed as failure:
            self._hear(self.loop.take_notices())
            self._break_down(failure)
            return
        self._hear(self.loop.take_notices())
        if not started:
            self._sleep()
            return
        self._step()

    def _step(self) -> None:
        loop, plan, batch = self.loop, self.policy.last, self.executor.batch
        assert plan is not None
        assert batch is not None
        check_begun(self.recipe, loop, plan, batch)
        check_blocks(loop)
        if self.steps % FULL_LOOK_EVERY == 0:  # here, where the policy has just seen who is there
            check_policy(self.policy.inner, loop)
        if self.recipe.crowd.cancelled:
            self._cancel_in_step()
        if self.recipe.crowd.in_step and self._dice.random() < self.recipe.crowd.in_step:
            self._happen()
        try:
            emissions = loop.finish_step()
        except EngineFailed as failure:
            self._break_down(failure)
            return
        self.steps += 1
        self._hear(emissions)
        self._hear(loop.take_notices())
        check_blocks(loop)
        if self.steps % OLD_EVERY == 0:
            self._patience.look(self._clock(), self.steps)
        if self.steps % FULL_LOOK_EVERY == 0:
            loop.check_integrity()
            check_views(loop)

    def _sleep(self) -> None:
        """Until the next event, or until the policy wants to be asked again."""
        loop = self.loop
        moments = [self._events[0][0]] if self._events else []
        if loop.wake_at_s is not None:
            moments.append(loop.wake_at_s)
        assert not loop.busy or loop.wake_at_s is not None, "requests are there, no step starts, and nobody asks again"
        if moments:
            self._clock.advance_to(min(moments))
        else:  # The last of all was dropped or cancelled in this very turn.
            assert not self._live, "nothing will ever happen again"

    def _break_down(self, failure: EngineFailed) -> None:
        """What the engine does when its executor fails: everybody gets an end, every block is free, and it begins again."""
        self.counts["faults"] += 1
        self._hear(self.loop.abort_all(str(failure)))
        self._hear(self.loop.take_notices())
        assert not self._live, "a request outlives its engine"
        assert not self.loop.busy
        assert self.loop.pool.used == 0, "blocks are left in use after a failure"
        self.loop.check_integrity()
        self._count()
        if not self.recipe.machine.keeps_loop:
            self._build()

    def _finish(self) -> None:
        loop = self.loop
        assert not loop.busy
        assert loop.pool.used == 0, "blocks are left in use"
        loop.check_integrity()
        self._count()

    def _count(self) -> None:
        counters = self.loop.counters
        self.counts["hits"] += counters.prefix_hits
        self.counts["preempted"] += counters.preemptions
        if self.recipe.machine.keeps_loop:
            counters.prefix_hits = counters.preemptions = 0

    # What happens outside of the loop

    def _post(self, at_s: float, kind: str, client: Client) -> None:
        self._numbered += 1
        heappush(self._events, (at_s, self._numbered, kind, client))

    def _invite(self) -> None:
        at_s, client = next(self._source)
        if self._arrivals > 32 + MOST_ARRIVALS_PER_STEP * self.steps:
            self._shift_s = max(self._shift_s, self._clock() - at_s + 4 * self.recipe.machine.coefficients_s[0])
        self._post(at_s + self._shift_s, "arrives", client)

    def _happen(self) -> None:
        """Everything that is due: arrivals, returns, cancellations by time."""
        events, now_s = self._events, self._clock()
        while events and events[0][0] <= now_s:
            _, _, kind, client = heappop(events)
            if kind == "gives_up":
                self._give_up(client)
            elif self._open:
                if kind == "arrives":
                    self._invite()
                self._submit(client)

    @property
    def _open(self) -> bool:
        return self.steps < self._target and self._arrivals <= MOST_ATTEMPTS_PER_STEP * self._target

    def _submit(self, client: Client) -> None:
        client.attempts += 1
        self._arrivals += 1
        self.counts["returned"] += client.attempts > 1
        try:
            sequence = self.loop.submit(client.request)
        except Rejected as refusal:
            self.counts["rejected"] += 1
            if client.told is not None and client.attempts < MOST_ATTEMPTS:
                self._post(self._clock() + client.told * refusal.retry_after_s, "returns", client)
            return
        client.sequence = sequence
        self._live[sequence.sequence_id] = client
        self._patience.admitted(client, self._clock(), self.steps)
        if client.cancel == "timed":
            self._post(self._clock() + client.cancel_s, "gives_up", client)
        elif client.cancel == "token" and client.cancel_after == 0:
            self._give_up(client)

    def _give_up(self, client: Client) -> None:
        if client.sequence is not None and client.end is None and not client.cancelled:
            client.cancelled = True
            self.loop.end(client.sequence, FinishReason.CANCELLED)

    def _cancel_in_step(self) -> None:
        for client in list(self._live.values()):
            if client.cancel == "in_step":
                due = len(client.tokens) >= client.cancel_after
            elif client.cancel == "last":
                due = len(client.tokens) + 1 >= min(client.output, client.cap)
            else:
                continue
            if due:
                self._give_up(client)

    def _hear(self, emissions: list[Emission]) -> None:
        for emission in emissions:
            client = self._live.get(emission.sequence.sequence_id)
            assert client is not None, "somebody gained something before its admission or after its end"
            assert client.sequence is emission.sequence
            if emission.token is not None:
                client.tokens.append(emission.token)
                assert len(client.tokens) <= client.cap, "more tokens than the cap"
            if emission.finish_reason is not None:
                self._part(client, emission)
            elif client.cancel == "token" and len(client.tokens) >= client.cancel_after:
                self._give_up(client)

    def _part(self, client: Client, emission: Emission) -> None:
        assert client.end is None, "a request ends twice"
        client.end = emission.finish_reason
        check_end(client, emission)
        assert emission.sequence.emitted == len(client.tokens), "tokens that nobody got are not output"
        del self._live[emission.sequence.sequence_id]
        self._digest.update(repr((client.number, client.end, len(client.tokens), self._clock())).encode())
        reason = emission.finish_reason
        kind = "shed" if reason is FinishReason.SHED else "cancelled" if reason is FinishReason.CANCELLED else "ended"
        self.counts[kind] += 1


def run_seed(seed: int, steps: int = STEPS) -> Result:
    """The world of ``seed``, run to its end; a function that another process can be told to call."""
    gc.disable()  # A world makes no cycles but itself: a tenth of the time for nothing.
    try:
        return Run(seed, steps).run()
    finally:
        gc.enable()
        gc.collect()
