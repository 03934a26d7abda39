"""The step loop: plan, assemble, submit, collect, apply, observe. No sockets, no threads, no clock of its own.

Whoever drives it (the engine's thread, a simulator, a test) calls ``begin_step`` and then ``finish_step``; between the two the
executor works and the caller may do something useful. ``submit`` and ``end`` may be called at any time by the same thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise

from setpoint.engine.assembly import Assembled, Assembler
from setpoint.engine.batch import Batch
from setpoint.engine.decision_log import DecisionLog
from setpoint.engine.emission import Counters, Emission
from setpoint.engine.executor import Executor, Ticket
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.request import FinishReason, GenerationRequest, InvalidRequest, Rejected
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_record import StepRecord, StepRing
from setpoint.engine.tenants import TenantNumbers
from setpoint.engine.views import columns, kv_view, request_view, uncached_column
from setpoint.policy.decisions import Policy, Reject, StepPlan, StepResult
from setpoint.policy.queue_bound import LEAST_RETRY_S
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, StepView, SystemView, joined_columns


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
        speculator: Speculator | None = None,
    ) -> None:
        self._policy = policy
        self._executor = executor
        self._clock = clock
        self._model = model
        self.speculator = speculator
        self._stop_token_ids = stop_token_ids
        self.pool, self._assembler = self._storage(executor)
        self.max_model_len = min(max_model_len, executor.blocks * executor.block_tokens)
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}
        self.steps = StepRing()
        self.decisions = DecisionLog()
        self.counters = Counters()
        self.wake_at_s: float | None = None
        self._tenants = TenantNumbers()
        # Columns as last built, for plans and admission; None once anything but an arrival has changed them.
        self._waiting_columns: Columns | None = None
        self._running_columns: Columns | None = None
        self._looked_up = -1  # The pool's version when the uncached tokens of the waiting were last looked up.
        self._next_id = 0
        self._in_flight: tuple[StepPlan, Assembled, Ticket] | None = None
        self._ending: dict[int, tuple[Sequence, FinishReason]] = {}
        self._notices: list[Emission] = []

    def _storage(self, executor: Executor) -> tuple[BlockPool, Assembler]:
        """Where blocks are kept, and what hands them out."""
        pool = BlockPool(executor.blocks, executor.block_tokens)
        return pool, Assembler(pool)

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
        return self._offer(sequence)

    def _offer(self, sequence: Sequence) -> Sequence:
        """Ask the policy about ``sequence`` and queue it. Raises ``Rejected``."""
        sequence.uncached_tokens = self._assembler.uncached_tokens(sequence)
        decision = self._policy.admit(request_view(sequence), self._system_view())
        self.decisions.asked(
            sequence,
            decision.reason,
            step=self.steps.total,
            waiting=len(self.waiting),
            running=len(self.running),
            retry_after_s=decision.retry_after_s if isinstance(decision, Reject) else None,
        )
        self.counters.admission(decision)
        if isinstance(decision, Reject):
            self.counters.rejected += 1
            raise Rejected(str(decision.reason), decision.retry_after_s)
        self._queue(sequence)
        return sequence

    def _queue(self, sequence: Sequence) -> None:
        if self._waiting_columns is not None:
            self._waiting_columns = joined_columns(self._waiting_columns, columns([sequence], waiting=True))
        self.waiting[sequence.sequence_id] = sequence

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a request from outside (cancelled, stop string found): its blocks are free at the next step."""
        if sequence.finish_reason is not None:
            return
        if self._in_flight is not None and sequence.sequence_id in self.running:
            self._ending[sequence.sequence_id] = (sequence, reason)
        else:
            self._finish(sequence, reason)

    def decide_by(self, policy: Policy) -> None:
        """``policy`` decides from the next call on; nobody in the queues notices. Not while a step is in flight."""
        assert self._in_flight is None, "the step in flight was decided by the policy that is to learn from it"
        self._policy = policy
        self.wake_at_s = None

    @property
    def step_time(self) -> StepTimeModel | None:
        """The model behind the recorded predictions."""
        return self._model

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
        self._move(plan, assembled)
        self.wake_at_s = plan.wake_at_s
        if not assembled.batch.work.sequences:
            return False
        if (plan.draft_tokens or plan.draft_reads) and self.speculator is not None:
            assembled.batch, assembled.draft_s = self.speculator.widen(assembled.batch, plan, self._assembler)
        self._in_flight = (plan, assembled, self._executor.submit(assembled.batch))
        return True

    @property
    def batch_in_flight(self) -> Batch | None:
        """What the step under way computes."""
        return None if self._in_flight is None else self._in_flight[1].batch

    def finish_step(self) -> list[Emission]:
        """Wait for the step, apply and observe it; gives what every sequence gained, ends included."""
        assert self._in_flight is not None, "no step is in flight"
        plan, assembled, ticket = self._in_flight
        output = self._executor.collect(ticket)
        self._in_flight = None
        self._running_columns = None
        emissions: list[Emission] = []
        finished: list[int] = []
        tokens = iter(output.tokens)
        accepted = iter(output.accepted)
        for item in assembled.batch.items:
            sequence = item.sequence
            if item.draft is not None:
                given = list(islice(tokens, next(accepted) + 1))
                emissions += self._apply_verified(sequence, given, output.end_s)
                # What lies behind in the blocks belongs to rejected tokens; the next step writes over it.
                sequence.computed = max(item.start + 1, len(sequence.tokens) - 1)
            else:
                sequence.computed = item.start + item.count
                if item.emits:
                    emissions.append(self._apply(sequence, next(tokens), output.end_s))
            self._assembler.publish_computed(sequence)
            if sequence.finish_reason is not None:
                finished.append(sequence.sequence_id)
        result = StepResult(
            start_s=output.start_s,
            end_s=output.end_s,
            work=assembled.batch.work,
            new_tokens={e.sequence.sequence_id: 1 for e in emissions if e.token is not None},
            finished=tuple(finished),
            stopped=self._stopped(),
        )
        if assembled.batch.drafted and self.speculator is not None:
            result = self.speculator.verified(result, assembled, output)
        elif assembled.draft_s:
            result = replace(result, draft_s=assembled.draft_s)
        self._record(plan, assembled, result)
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
        sampling = sequence.request.sampling
        if token in sampling.stop_token_ids or (token in self._stop_token_ids and not sampling.ignore_eos):
            sequence.finish_reason = FinishReason.STOP
        elif sequence.emitted >= sequence.max_tokens:
            sequence.finish_reason = FinishReason.LENGTH
        return Emission(sequence, token, sequence.finish_reason)

    def _apply_verified(self, sequence: Sequence, tokens: list[int], now_s: float) -> list[Emission]:
        """Several tokens in a row, as far as the answer does not end among them."""
        emissions = []
        for token in tokens:
            emissions.append(self._apply(sequence, token, now_s))
            if sequence.finish_reason is not None:
                break
        return emissions

    def _stopped(self) -> tuple[int, ...]:
        """Whose text was found to end while the step was under way."""
        return tuple(each for each, (_, reason) in self._ending.items() if reason is FinishReason.STOP)

    def _shed(self, plan: StepPlan) -> None:
        for sequence_id in plan.shed:
            sequence = self.waiting.get(sequence_id)
            if sequence is not None:
                self.counters.shed += 1
                sequence.finish_reason = FinishReason.SHED
                self._remove(sequence)
                reason = plan.shed_reasons.get(sequence_id, plan.reason)
                message = f"shed: it could no longer make its deadline ({reason})"
                retry_after_s = plan.shed_retry_after_s.get(sequence_id, LEAST_RETRY_S)
                self.decisions.shed(sequence, reason, now_s=self._clock(), step=self.steps.total, retry_after_s=retry_after_s)
                self._notices.append(Emission(sequence, None, FinishReason.SHED, message, retry_after_s))

    def _move(self, plan: StepPlan, assembled: Assembled) -> None:
        now_s = self._clock()
        step = self.steps.total
        if assembled.preempted or assembled.joined:
            self._waiting_columns = self._running_columns = None
        for sequence in assembled.preempted:
            self.counters.preemptions += 1
            del self.running[sequence.sequence_id]
            self.waiting[sequence.sequence_id] = sequence
            self.decisions.preempted(sequence, plan.preempt_rule, now_s=now_s, step=step, running=len(self.running))
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
            self.decisions.joined(sequence, plan.order_rule, now_s=now_s, step=step, waiting=len(self.waiting))
        if assembled.joined:
            # Whoever joins out of turn (most urgent first, or back from preemption) still stands in order of arrival.
            ids = list(self.running)[-len(assembled.joined) - 1 :]
            if any(later < earlier for earlier, later in pairwise(ids)):
                self.running = dict(sorted(self.running.items()))

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        self._remove(sequence)
        self._notices.append(Emission(sequence, None, reason))

    def _remove(self, sequence: Sequence) -> None:
        if sequence.finish_reason is not None and sequence.finish_reason is not FinishReason.SHED:
            self.decisions.ended(sequence, sequence.finish_reason.value, now_s=self._clock(), step=self.steps.total - 1)
        self._assembler.release(sequence)
        if self.speculator is not None:
            self.speculator.forget(sequence)
        if self.waiting.pop(sequence.sequence_id, None) is not None:
            self._waiting_columns = None
        if self.running.pop(sequence.sequence_id, None) is not None:
            self._running_columns = None

    # Views and records

    def _step_view(self) -> StepView:
        waiting, running = self._both_columns()
        drafts = None if self.speculator is None else self.speculator.view(self.running.values())
        return StepView(now_s=self._clock(), waiting=waiting, running=running, kv=kv_view(self.pool), drafts=drafts)

    def _both_columns(self) -> tuple[Columns, Columns]:
        """Who waits and who runs; kept for the next plan and every admission until something changes."""
        waiting, running = self._waiting_columns, self._running_columns
        if waiting is None or self._looked_up != self.pool.version:
            for sequence in self.waiting.values():
                sequence.uncached_tokens = self._assembler.uncached_tokens(sequence)
            if waiting is None:
                waiting = columns(self.waiting.values(), waiting=True)
            else:
                waiting = replace(waiting, prefill_tokens=uncached_column(self.waiting.values()))
            self._waiting_columns, self._looked_up = waiting, self.pool.version
        if running is None:
            running = self._running_columns = columns(self.running.values())
        return waiting, running

    def _system_view(self) -> SystemView:
        waiting, running = self._both_columns()
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

    def _record(self, plan: StepPlan, assembled: Assembled, result: StepResult) -> None:
        batch = assembled.batch
        self.steps.append(
            StepRecord(
                step=self.steps.total,
                start_s=result.start_s,
                end_s=result.end_s,
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
                drafts=len(result.drafted),
                drafted=batch.drafted,
                accepted=sum(result.accepted.values()) if batch.drafted else 0,
                draft_s=assembled.draft_s,
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
