"""What must hold at every step of every world.

Blocks: every step compares the pool's counts with the block tables (used, available and references have to add up); every
``FULL_LOOK_EVERY`` steps ``StepLoop.check_integrity`` looks at each block. Memory contents: ``simulation_executor``.
"""

from __future__ import annotations

from math import inf, isfinite

from simulation_clients import Client
from simulation_recipe import Recipe

from setpoint.engine.batch import Batch
from setpoint.engine.emission import Emission
from setpoint.engine.request import FinishReason
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.views import columns
from setpoint.policy.configuration import BatchingMode
from setpoint.policy.decisions import Admit, Reject, StepPlan
from setpoint.policy.order import BATCH_PATIENCE_S, PATIENCE_S
from setpoint.policy.promises import LEAST_WAIT_S, MOST_PROMISES, MOST_WAIT_S
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.speculating import SpeculatingPolicy
from setpoint.policy.speculation import SpeculationController
from setpoint.policy.tenants import MOST_TENANTS
from setpoint.policy.views import BATCH, Columns, SystemView

FULL_LOOK_EVERY = 64
OLD_EVERY = 8
MOST_PLACES = 16  # of any recipe's max_running
TINY_S = 1e-6  # moments are differences of large numbers
SLACK = 2.0


def check_plan(plan: StepPlan, loop: StepLoop, now_s: float) -> None:
    """A plan names only who is there, nobody twice, and nobody for two things at once. ``loop`` before the plan is applied."""
    order = set(plan.order)
    assert len(order) == len(plan.order), "the order names somebody twice"
    assert all(i in loop.waiting or i in loop.running for i in order), "the order names somebody who is not there"
    assert not order.intersection(plan.shed), "somebody is shed and served"
    assert plan.prefill_budget_tokens >= 1, "a step without any budget never ends"
    for i in plan.shed:
        sequence = loop.waiting.get(i)
        assert sequence is not None, "somebody is shed who does not wait"
        assert not sequence.emitted, "a request that is being read is shed"
        assert LEAST_WAIT_S - TINY_S <= plan.shed_retry_after_s[i] <= MOST_WAIT_S + TINY_S, "shed without a time to come back"
    assert set(plan.preempt_order) == loop.running.keys(), "the preemption order is not that of the running"
    assert plan.wake_at_s is None or plan.wake_at_s > now_s, "asked to be woken in the past"


def check_answer(answer: Admit | Reject, recipe: Recipe, system: SystemView, request_class: int) -> None:
    """Nobody waits beyond the bound; an idle system refuses nobody; whoever is refused is told when to come back."""
    bound = recipe.config.max_waiting
    if recipe.config.mode is BatchingMode.SETPOINT and request_class == BATCH:
        bound = -(-bound // 2)
    idle = system.waiting == 0 and system.running == 0
    if isinstance(answer, Admit):
        assert idle or system.waiting < bound, "a queue over its bound"
    else:
        assert not idle, "an idle engine refuses"
        assert 0 < answer.retry_after_s < inf, "no time to come back"
        assert recipe.config.mode is not BatchingMode.SETPOINT or answer.retry_after_s <= MOST_WAIT_S + TINY_S


def check_begun(recipe: Recipe, loop: StepLoop, plan: StepPlan, batch: Batch) -> None:
    """Budgets and bounds of the step that has begun."""
    config, work = recipe.config, batch.work
    running, waiting = len(loop.running), len(loop.waiting)
    assert batch.prefill_tokens <= plan.prefill_budget_tokens, "more prompt than the plan's budget"
    least = min(config.prefill_floor_tokens, config.token_budget) if config.mode is BatchingMode.SETPOINT else 1
    decodes = work.tokens - batch.prefill_tokens
    assert work.tokens <= max(config.token_budget, decodes + least), "more new tokens than a step may have"
    assert work.sequences <= running <= min(plan.max_running, config.max_running), "more running than may"
    assert config.mode is not BatchingMode.IMMEDIATE or running <= 1
    # Admission keeps the fresh under the bound; whoever was preempted waits again beside them.
    assert waiting <= max(1, config.max_waiting) + config.max_running, "more waiting than the bound and the places allow"


def check_blocks(loop: StepLoop) -> None:
    """The same as ``check_integrity`` in sums: no block lost, none used by more tables than it has references."""
    pool = loop.pool
    references = pool._references
    tables = sum([len(sequence.blocks) for sequence in loop.running.values()])
    assert sum(references) == tables, "references and block tables disagree"
    assert references.count(0) == len(pool._free) + len(pool._cached), "a block is lost or given out twice"
    assert len(pool._block_of) <= pool.blocks, "more blocks can be found than there are"


def check_views(loop: StepLoop) -> None:
    """What the loop keeps of its columns from step to step is what it would build now."""
    waiting, running = loop._both_columns()
    for sequence in loop.waiting.values():
        assert sequence.uncached_tokens == loop._assembler.uncached_tokens(sequence), "an old look at the prefix cache"
    fresh = (columns(loop.waiting.values(), waiting=True), columns(loop.running.values()))
    for name in Columns.__dataclass_fields__:
        for kept, new in zip((waiting, running), fresh, strict=True):
            assert getattr(kept, name).tolist() == getattr(new, name).tolist(), f"an old column: {name}"


def check_policy(policy: object, loop: StepLoop) -> None:
    """What a policy remembers is bounded."""
    if isinstance(policy, SpeculatingPolicy):
        check_chooser(policy.chooser, loop)
        policy = policy.inner
    if isinstance(policy, SetpointPolicy):
        live = len(loop.waiting) + len(loop.running)
        assert len(policy.outcomes._known) <= live + 1, "the policy remembers requests that are gone"
        assert len(policy.promises) <= MOST_PROMISES
        assert len(policy.tenants._served) <= MOST_TENANTS + live
        assert all(0 <= each < inf for each in policy.model._coefficients), "a step time that is no number"


def check_chooser(chooser: object, loop: StepLoop) -> None:
    """What is remembered of drafts is bounded by who is there."""
    if isinstance(chooser, SpeculationController):
        live = len(loop.running)
        assert len(chooser.survivals._own) <= 2 * live + 16 + 2 * MOST_PLACES
        assert all(0 <= each < inf for each in chooser.drafting.coefficients_s), "a drafting time that is no number"


def check_doomed(waiting: Columns, plan: StepPlan, now_s: float) -> None:
    """``setpoint`` keeps nobody waiting for a first token that is already too late."""
    late = (waiting.deadline_s <= now_s) & (waiting.emitted_tokens == 0)
    if late.any():
        assert set(waiting.ids[late].tolist()) <= set(plan.shed), "too late, and still waiting"


def check_end(client: Client, emission: Emission) -> None:
    """The end of a request: the right one, after the right tokens."""
    expected = client.expected()
    match emission.finish_reason:
        case FinishReason.SHED:
            assert not client.tokens, "a request that is being read was shed"
            assert emission.retry_after_s is not None
            assert isfinite(emission.retry_after_s)
        case FinishReason.CANCELLED:
            assert client.cancelled, "cancelled by nobody"
            assert client.tokens == expected[: len(client.tokens)], "other tokens than alone"
        case FinishReason.ERROR:
            assert client.tokens == expected[: len(client.tokens)], "other tokens than alone"
        case FinishReason.STOP:
            assert client.tokens == expected, "other tokens than alone"
            assert client.tokens[-1] == 0
        case _:
            assert client.tokens == expected, "other tokens than alone"
            assert len(client.tokens) == client.cap


class Patience:
    """Nobody who was admitted waits for ever. Steps are counted while a request lives, against the work that may be before it.

    First-come modes: nobody overtakes. The oldest request that lives gains at least a token in every step and is never
    preempted, so a request ends after at most as many steps as it and those before it have tokens, prompts and answers.
    ``setpoint``: others may overtake until the request is due (its deadline, or ``PATIENCE_S`` after its arrival, or
    ``BATCH_PATIENCE_S`` for the batch class, of which one at a time is served); after that only who was there. A request
    that can lose its blocks (least computed first) pays more than once: ``SLACK`` times that work.
    """

    def __init__(self, recipe: Recipe, live: dict[int, Client]) -> None:
        self._first_come = recipe.config.mode is not BatchingMode.SETPOINT
        self._live = live
        self.worst = 0.0

    def admitted(self, client: Client, now_s: float, step: int) -> None:
        """``client`` is among the living already."""
        client.admitted_step = step
        if self._first_come:
            client.due_step, client.bound_steps = step, self._work()
            return
        batch = client.request.request_class == BATCH
        assert client.sequence is not None
        due_s = client.sequence.deadline_s
        client.due_s = now_s + (BATCH_PATIENCE_S if batch else PATIENCE_S) if due_s == inf or batch else due_s

    def look(self, now_s: float, step: int) -> None:
        """Judge everybody who lives; costs time in proportion to them."""
        for client in self._live.values():
            if client.due_step is None:
                if now_s > client.due_s:
                    client.due_step, client.bound_steps = step, SLACK * self._work()
                continue
            share = (step - client.due_step) / client.bound_steps
            if share > self.worst:
                self.worst = share
            assert share <= 1, f"request {client.number} starves: {step - client.due_step} steps since its turn"

    def _work(self) -> float:
        return float(sum([len(each.prompt) + each.cap + 1 for each in self._live.values()]))
