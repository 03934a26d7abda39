"""The step loop: plan, assemble, submit, collect, apply, observe. No sockets, no threads, no clock of its own.

Whoever drives it (the engine's thread, a simulator, a test) calls ``begin_step`` and then ``finish_step``; between the two the
executor works and the caller may do something useful. ``submit`` and ``end`` may be called at any time by the same thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from setpoint.engine.assembly import Assembled, Assembler
from setpoint.engine.executor import Executor, Ticket
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.request import FinishReason, GenerationRequest, InvalidRequest, Rejected
from setpoint.engine.sequence import Sequence
from setpoint.engine.step_record import StepRecord, StepRing
from setpoint.engine.tenants import TenantNumbers
from setpoint.engine.views import columns, kv_view, request_view
from setpoint.policy.decisions import Policy, Reject, StepPlan, StepResult
from setpoint.policy.queue_bound import LEAST_RETRY_S
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, StepView, SystemView, joined_columns


@dataclass(frozen=True, slots=True)
class Emission:
    """What a sequence gained: a token, an end, or both. ``retry_after_s`` comes with ``SHED``."""

    sequence: Sequence
    token: int | None = None
    finish_reason: FinishReason | None = None
    message: str = ""
    retry_after_s: float | None = None


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    shed: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class StepLoop:
    """Owns the queues, the pool and the sequences; a policy decides, an executor computes."""

    def __init__(
        self,
        policy: Policy,
        executor: Executor,
        clock: Callable[[], float],
        *,
        max_model_len: int,
        stop_token_ids: frozenset[int] = frozenset(),
        model: StepTimeModel | None = None,
    ) -> None:
        self._policy = policy
        self._executor = executor
        self._clock = clock
        self._model = model
        self._stop_token_ids = stop_token_ids
        self.pool = BlockPool(executor.blocks, executor.block_tokens)
        self._assembler = Assembler(self.pool)
        self.max_model_len = min(max_model_len, executor.blocks * executor.block_tokens)
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}
        self.steps = StepRing()
        self.counters = Counters()
        self.wake_at_s: float | None = None
        self._tenants = TenantNumbers()
        # Columns as last built, for admission; None once anything but an arrival has changed them.
        self._waiting_columns: Columns | None = None
        self._running_columns: Columns | None = None
        self._next_id = 0
        self._in_flight: tuple[StepPlan, Assembled, Ticket] | None = None
        self._ending: dict[int, tuple[Sequence, FinishReason]] = {}
        self._notices: list[Emission] = []

    # Requests in

    def submit(self, request: GenerationRequest) -> Sequence:
        """Queue a request. Raises ``InvalidRequest`` if it can never be served and ``Rejected`` if the policy says no."""
        prompt = len(request.prompt_ids)
        if prompt == 0:
            raise InvalidRequest("the prompt is empty: send at least one token", "prompt")
        room = self.max_model_len - prompt
        if room < 1:
            raise InvalidRequest(
                f"the prompt has {prompt} tokens and the context length is {self.max_model_len}: shorten it by"
                f" at least {1 - room}",
                "prompt",
            )
        if request.sampling.max_tokens < 1:
            raise InvalidRequest(f"max_tokens is {request.sampling.max_tokens}: at least 1 is needed", "max_tokens")
        cap = min(request.sampling.max_tokens, room)
        tenant = self._tenants.number(request.tenant)
        sequence = Sequence(self._next_id, request, arrived_s=self._clock(), max_tokens=cap, tenant=tenant)
        self._next_id += 1
        sequence.uncached_tokens = self._assembler.uncached_tokens(sequence)
        decision = self._policy.admit(request_view(sequence), self._system_view())
        if isinstance(decision, Reject):
            self.counters.rejected += 1
            raise Rejected(str(decision.reason), decision.retry_after_s)
        if self._waiting_columns is not None:
            self._waiting_columns = joined_columns(self._waiting_columns, columns([sequence], waiting=True))
        self.waiting[sequence.sequence_id] = sequence
        return sequence

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a request from outside (cancelled, stop string found): its blocks are free at the next step."""
        if sequence.finish_reason is not None:
            return
        if self._in_flight is not None and sequence.sequence_id in self.running:
            self._ending[sequence.sequence_id] = (sequence, reason)
        else:
            self._finish(sequence, reason)

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self.waiting or self.running)

    # Steps

    def begin_step(self) -> bool:
        """Plan and start a step. False if there is nothing to do before ``wake_at_s`` or the next request."""
        assert self._in_flight is None, "the step in flight must be finished first"
        self.wake_at_s = None
        if not self.busy:
            return False
        plan = self._policy.plan(self._step_view())
        self._shed(plan)
        assembled = self._assembler.assemble(plan, self.running, self.waiting)
        self._move(assembled)
        self.wake_at_s = plan.wake_at_s
        if not assembled.batch.items:
            return False
        self._in_flight = (plan, assembled, self._executor.submit(assembled.batch))
        return True

    def finish_step(self) -> list[Emission]:
        """Wait for the step, apply and observe it; gives what every sequence gained, ends included."""
        assert self._in_flight is not None, "no step is in flight"
        plan, assembled, ticket = self._in_flight
        output = self._executor.collect(ticket)
        self._in_flight = None
        self._changed()
        emissions: list[Emission] = []
        finished: list[int] = []
        tokens = iter(output.tokens)
        for item in assembled.batch.items:
            sequence = item.sequence
            sequence.computed = item.start + item.count
            if item.emits:
                emissions.append(self._apply(sequence, next(tokens), output.end_s))
            self._assembler.publish_computed(sequence)
            if sequence.finish_reason is not None:
                finished.append(sequence.sequence_id)
        self._record(plan, assembled, output.start_s, output.end_s)
        result = StepResult(
            start_s=output.start_s,
            end_s=output.end_s,
            work=assembled.batch.work,
            new_tokens={e.sequence.sequence_id: 1 for e in emissions if e.token is not None},
            finished=tuple(finished),
        )
        self._policy.observe(result)
        for sequence_id in finished:
            self._remove(self.running[sequence_id])
        for sequence, reason in self._ending.values():
            if sequence.finish_reason is None:
                self._finish(sequence, reason)
        self._ending.clear()
        return emissions

    def take_notices(self) -> list[Emission]:
        """Ends that no step produced (shed, cancelled): each is given out once."""
        notices, self._notices = self._notices, []
        return notices

    def abort_all(self, message: str) -> list[Emission]:
        """After an executor failure: end everything with ``ERROR`` and free every block."""
        self._in_flight = None
        self._ending.clear()
        lost = [*self.running.values(), *self.waiting.values()]
        for sequence in lost:
            sequence.finish_reason = FinishReason.ERROR
            self._remove(sequence)
        return [Emission(sequence, None, FinishReason.ERROR, message) for sequence in lost]

    # Parts of a step

    def _apply(self, sequence: Sequence, token: int, now_s: float) -> Emission:
        if sequence.sequence_id in self._ending:
            # The token came after the end: nobody gets it, so it is not output.
            sequence.finish_reason = self._ending[sequence.sequence_id][1]
            return Emission(sequence, None, sequence.finish_reason)
        if sequence.fault:
            sequence.finish_reason = FinishReason.ERROR
            return Emission(sequence, None, sequence.finish_reason, sequence.fault)
        sequence.emit(token, now_s)
        self.counters.output_tokens += 1
        if token in self._stop_token_ids and not sequence.request.sampling.ignore_eos:
            sequence.finish_reason = FinishReason.STOP
        elif sequence.emitted >= sequence.max_tokens:
            sequence.finish_reason = FinishReason.LENGTH
        return Emission(sequence, token, sequence.finish_reason)

    def _shed(self, plan: StepPlan) -> None:
        for sequence_id in plan.shed:
            sequence = self.waiting.get(sequence_id)
            if sequence is not None:
                self.counters.shed += 1
                sequence.finish_reason = FinishReason.SHED
                self._remove(sequence)
                message = f"shed: it could no longer make its deadline ({plan.reason})"
                retry_after_s = plan.shed_retry_after_s.get(sequence_id, LEAST_RETRY_S)
                self._notices.append(Emission(sequence, None, FinishReason.SHED, message, retry_after_s))

    def _move(self, assembled: Assembled) -> None:
        now_s = self._clock()
        if assembled.preempted or assembled.joined:
            self._changed()
        for sequence in assembled.preempted:
            self.counters.preemptions += 1
            del self.running[sequence.sequence_id]
            self.waiting[sequence.sequence_id] = sequence
        if assembled.preempted:
            self.waiting = dict(sorted(self.waiting.items()))
        for sequence in assembled.joined:
            del self.waiting[sequence.sequence_id]
            self.running[sequence.sequence_id] = sequence
            if sequence.first_scheduled_s is None:
                sequence.first_scheduled_s = now_s
                self.counters.prefix_queries += sequence.prompt_tokens
                self.counters.prefix_hits += sequence.cached_tokens
                self.counters.prompt_tokens += sequence.prompt_tokens
        if assembled.joined:
            # Whoever joins out of turn (most urgent first, or back from preemption) still stands in order of arrival.
            self.running = dict(sorted(self.running.items()))

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        self._remove(sequence)
        self._notices.append(Emission(sequence, None, reason))

    def _remove(self, sequence: Sequence) -> None:
        self._assembler.release(sequence)
        self.waiting.pop(sequence.sequence_id, None)
        self.running.pop(sequence.sequence_id, None)
        self._changed()

    def _changed(self) -> None:
        self._waiting_columns = self._running_columns = None

    # Views and records

    def _step_view(self) -> StepView:
        for sequence in self.waiting.values():
            sequence.uncached_tokens = self._assembler.uncached_tokens(sequence)
        return StepView(
            now_s=self._clock(),
            waiting=columns(self.waiting.values(), waiting=True),
            running=columns(self.running.values()),
            kv=kv_view(self.pool),
        )

    def _system_view(self) -> SystemView:
        if self._waiting_columns is None or self._running_columns is None:
            self._waiting_columns = columns(self.waiting.values(), waiting=True)
            self._running_columns = columns(self.running.values())
        waiting, running = self._waiting_columns, self._running_columns
        return SystemView(
            now_s=self._clock(),
            waiting=len(waiting),
            waiting_uncached_tokens=int(waiting.prefill_tokens.sum()),
            running=len(running),
            running_prefill_tokens=int(running.prefill_tokens.sum()),
            running_context_tokens=int(running.context_tokens.sum()),
            kv=kv_view(self.pool),
            waiting_columns=waiting,
            running_columns=running,
        )

    def _record(self, plan: StepPlan, assembled: Assembled, start_s: float, end_s: float) -> None:
        batch = assembled.batch
        self.steps.append(
            StepRecord(
                step=self.steps.total,
                start_s=start_s,
                end_s=end_s,
                predicted_s=None if self._model is None else self._model.predict_next_s(batch.work),
                prefill_tokens=batch.prefill_tokens,
                decode_tokens=batch.decode_tokens,
                sequences=batch.work.sequences,
                kv_tokens_read=batch.work.kv_tokens_read,
                attention_products=batch.work.attention_products,
                running=len(self.running),
                waiting=len(self.waiting),
                kv_used_blocks=self.pool.used,
                kv_blocks=self.pool.blocks,
                prefill_budget_tokens=plan.prefill_budget_tokens,
                preempted=len(assembled.preempted),
                shed=len(plan.shed),
                reason=plan.reason,
            )
        )

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if queues, sequences and pool contradict each other. For tests and idle moments."""
        assert not self.waiting.keys() & self.running.keys(), "a request is both waiting and running"
        for sequence in self.waiting.values():
            assert not sequence.blocks, "a waiting request holds blocks"
        for sequence in (*self.waiting.values(), *self.running.values()):
            assert sequence.finish_reason is None, "an ended request is still queued"
            sequence.check_integrity(self.pool.block_tokens)
        self.pool.check_integrity([sequence.blocks for sequence in self.running.values()])
