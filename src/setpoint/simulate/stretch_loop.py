"""The engine's step loop (``engine/step_loop.py``) taken over whole stretches of steps in which nobody joins or leaves.

What is the engine's: admission, queues, the plan, joins, preemption, order, what a policy is shown and told. What is here:
requests kept as rows, and a plan that the policy declared to stand (``StepPlan.valid_for_steps``) carried out for as many
steps as nothing changes, every one of them timed. A stretch ends with the first answer that does, before the step for
which blocks would lack, and where the caller has something new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import sub
from types import MappingProxyType

import numpy as np

from setpoint.engine.assembly import Assembled, Assembler
from setpoint.engine.batch import Batch, StepOutput
from setpoint.engine.executor import Executor
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.request import FinishReason, Rejected
from setpoint.engine.sequence import Sequence
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.views import kv_view
from setpoint.policy.decisions import Policy, StepPlan, StepResult, StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, SystemView
from setpoint.simulate.accounts import Accounts
from setpoint.simulate.counting_assembler import CountingAssembler
from setpoint.simulate.gaps import GapAccount
from setpoint.simulate.kv_counts import CountedPool
from setpoint.simulate.ledger import Ending, Ledger
from setpoint.simulate.rows import CONTEXT, DECODES, EMITTED, ID, PREFILL, TARGET, Rows
from setpoint.simulate.sequences import Progress, SimulatedSequence
from setpoint.simulate.silence import NoDecisions, NoSteps
from setpoint.simulate.taught import learns_nothing
from setpoint.simulate.timing import Timing

MOST_AT_ONCE = 4096
FEW = 24
NEVER = 1 << 62
NO_TOKENS: Mapping[int, int] = MappingProxyType({})


class _Nothing(Executor):
    """Batches are carried out by the loop itself; this only says how much memory there is."""

    observation_lag = 0

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks, self.block_tokens = blocks, block_tokens

    def submit(self, batch: Batch) -> Batch:
        return batch

    def collect(self, ticket: Batch) -> StepOutput:
        raise AssertionError("a stretch is carried out by its loop")

    def close(self) -> None:
        return None


class StretchLoop(StepLoop):
    """One engine. ``offer`` a request, ``begin_step``, ``finish_stretch``; ``clock`` is moved by whoever drives it."""

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        *,
        blocks: int,
        block_tokens: int,
        timing: Timing,
        ledger: Ledger,
        gaps: GapAccount,
        phases: int,
        limits: bool,
        whole_answers: bool,
        context_tokens: int | None = None,
        model: StepTimeModel | None = None,
    ) -> None:
        room = blocks * block_tokens
        longest = room if context_tokens is None else min(room, context_tokens)
        self.progress = Progress()
        self.running_rows, self.waiting_rows = Rows(), Rows()
        super().__init__(policy, _Nothing(blocks, block_tokens), clock, max_model_len=longest, model=model)
        self.decisions = NoDecisions()
        self.steps: NoSteps = NoSteps()
        self.peak_used_blocks = 0
        self._timing = timing
        self._accounts = Accounts(ledger, gaps, phases)
        self._limits, self._whole_answers = limits, whole_answers
        self._learns_nothing = learns_nothing(policy)
        self.last_end_s = 0.0
        self._next_end = NEVER  # ``Progress.steps`` when the first of the present answers is complete, or earlier.
        self.ended_last = 0
        self._may_find: set[int] = set()  # Waiting requests whose uncached tokens may change.

    def _storage(self, executor: Executor) -> tuple[BlockPool, Assembler]:
        self._counted = CountedPool(executor.blocks, executor.block_tokens)
        self._counting = CountingAssembler(self._counted, self.running_rows, self.progress)
        self._pending = self._counting.pending
        return self._counted, self._counting  # type: ignore[return-value]

    # Requests in

    def offer(self, sequence: SimulatedSequence) -> None:
        """Ask for admission; the ledger is told of a refusal."""
        if sequence.prompt_tokens >= self.max_model_len or sequence.prompt_tokens < 1:
            self._accounts.note(sequence, Ending.IMPOSSIBLE, self._clock())
            return
        sequence.max_tokens = min(sequence.max_tokens, self.max_model_len - sequence.prompt_tokens)
        sequence.target_tokens = min(sequence.target_tokens, sequence.max_tokens)
        try:
            self._offer(sequence)
        except Rejected as refusal:
            self._accounts.ledger.retry_after_s[sequence.row] = refusal.retry_after_s
            self._accounts.note(sequence, Ending.REFUSED, self._clock())

    def _queue(self, sequence: Sequence) -> None:
        self.waiting[sequence.sequence_id] = sequence
        self._wait(sequence)

    def _wait(self, sequence: Sequence) -> None:
        assert isinstance(sequence, SimulatedSequence)
        if sequence.named or sequence.preemptions:
            self._may_find.add(sequence.sequence_id)
        prefill = sequence.uncached_tokens
        self.waiting_rows.add(sequence, prefill_tokens=prefill, computed=0, emitted=sequence.emitted)
        self._waiting_columns = None

    # Views

    def _both_columns(self) -> tuple[Columns, Columns]:
        if self._looked_up != self.pool.version:
            for sequence_id in self._may_find:
                sequence = self.waiting[sequence_id]
                sequence.uncached_tokens = self._assembler.uncached_tokens(sequence)
                self.waiting_rows.whole(PREFILL)[self.waiting_rows.place(sequence_id)] = sequence.uncached_tokens
            self._looked_up = self.pool.version
        if self._waiting_columns is None:
            self._waiting_columns = self.waiting_rows.columns(last_token_s=0.0, limits=False)
        if self._running_columns is None:
            self._running_columns = self.running_rows.columns(last_token_s=self.last_end_s, limits=self._limits)
        return self._waiting_columns, self._running_columns

    def _system_view(self) -> SystemView:
        """The engine's, whose sums are known where nobody waits and everybody decodes."""
        if self.waiting or self._counting.decodes != len(self.running_rows):
            return super()._system_view()
        waiting, running = self._both_columns()
        return SystemView(
            now_s=self._clock(),
            waiting=0,
            waiting_uncached_tokens=0,
            running=len(running),
            running_prefill_tokens=0,
            running_context_tokens=self._counting.context_tokens,
            kv=kv_view(self.pool),
            waiting_columns=waiting,
            running_columns=running,
        )

    # Steps

    def finish_stretch(self, until_s: float) -> float:
        """Carry out the plan for as long as it stands, at most to the first moment that is not before ``until_s``.

        Gives the moment at which the loop looks up after the last of the steps.
        """
        assert self._in_flight is not None, "no step is in flight"
        plan, assembled, _ = self._in_flight
        self._in_flight = None
        work, start_s, decodes = assembled.batch.work, self._clock(), self._counting.decodes
        most = self._most_steps(plan, assembled, until_s - start_s)
        decoding = [] if self._learns_nothing else self._decoding()
        if most == 1:
            end_s, free_s = self._timing.step(work, step=self.steps.total, start_s=start_s)
            ends, frees = [end_s], [free_s]
        else:
            ends, frees = self._times(work, start_s, most, until_s)
            end_s, free_s = ends[-1], frees[-1]
        steps = len(ends)
        self._advance(ends)
        new_tokens = dict.fromkeys(decoding, steps)
        self._after_advance(work, steps, free_s - start_s, end_s)
        ended = self._complete()
        ended += self._prefilled(assembled, new_tokens)
        if self._learns_nothing:
            self._policy.observe(StepResult(start_s, end_s, work, NO_TOKENS))
        else:
            self._observe(work, decodes, [start_s, *frees], ends, new_tokens, ended)
        self.peak_used_blocks = max(self.peak_used_blocks, self.pool.used)  # Before the blocks of those that ended are free.
        self.ended_last = len(ended)
        for sequence in ended:
            self._remove(sequence)
        return free_s

    def _decoding(self) -> list[int]:
        """Ids of those that decode, in order of arrival."""
        rows = self.running_rows
        ids = rows.whole(ID)
        decoding: list[int] = (ids if self._counting.decodes == len(rows) else ids[rows.whole(DECODES) == 1]).tolist()
        return decoding

    def _most_steps(self, plan: StepPlan, assembled: Assembled, left_s: float) -> int:
        """Steps for which nothing can change but the clock; 1 if this one changes something itself."""
        changes = assembled.batch.items or assembled.preempted or self._pending
        if changes or plan.valid_for_steps == 1 or self._counting.decodes != len(self.running_rows):
            return 1
        soon = left_s / max(self._timing.shortest_s(assembled.batch.work), 1e-9) + 2
        to_end = self._next_end - self.progress.steps
        most = min(to_end, plan.valid_for_steps, MOST_AT_ONCE, int(min(soon, MOST_AT_ONCE)))
        if most > 1 and self._counting.decodes * (most // self.pool.block_tokens + 1) > self.pool.available:
            most = self._counting.steps_within(self.pool.available, most)
        return max(1, most)

    def _times(self, work: StepWork, start_s: float, most: int, until_s: float) -> tuple[list[float], list[float]]:
        """Ends of at most ``most`` steps, and when the loop looks up after each, up to the first not before ``until_s``."""
        step, decodes = self.steps.total, self._counting.decodes
        if most <= FEW:
            return self._timing.few(work, step=step, start_s=start_s, steps=most, decodes=decodes, until_s=until_s)
        ends, frees = self._timing.steps(work, step=step, start_s=start_s, steps=most, decodes=decodes)
        steps = min(most, int(frees.searchsorted(until_s)) + 1)
        return ends[:steps].tolist(), frees[:steps].tolist()

    def _advance(self, ends: list[float]) -> None:
        """Every decode has a token more at each of these moments; of those that are pending it follows no other."""
        decodes, steps = self._counting.decodes, len(ends)
        if not decodes:
            return
        last = self.steps.total + steps - 1
        gaps, streams = self._accounts.gaps, self._accounts.streams
        if steps == 1:
            gaps.step(ends[0] - self.last_end_s, ends[0], streams, decodes - len(self._pending), last)
            return
        self._counting.take_blocks(steps)
        if steps <= FEW:
            gaps.few(list(map(sub, ends, [self.last_end_s, *ends])), ends, streams, decodes, last)
            return
        moments = np.array([self.last_end_s, *ends])
        gaps.steps(moments[1:] - moments[:-1], moments[1:], streams, decodes, last)

    def _after_advance(self, work: StepWork, steps: int, took_s: float, end_s: float) -> None:
        """Take ``steps`` steps into every account."""
        decodes, rows = self._counting.decodes, self.running_rows
        if decodes:
            self.progress.steps += steps
            rows.advance(steps, all_decode=decodes == len(rows), whole_answers=self._whole_answers)
            self._counting.context_tokens += steps * decodes
        self.steps.passed(steps, took_s)
        self.last_end_s = end_s
        self._running_columns = None
        self._timing.stepped(work.tokens)
        if self._pending:
            pending = tuple(self._pending)
            self._pending.clear()
            for sequence in pending:
                self._assembler.publish_computed(sequence)
                self._single_token(sequence, rows.place(sequence.sequence_id))

    def _complete(self) -> list[SimulatedSequence]:
        """Decodes whose answer is complete, in order of arrival."""
        if self.progress.steps < self._next_end:
            return []
        rows = self.running_rows
        left = rows.whole(TARGET) - rows.whole(EMITTED)
        going = left[(left > 0) & (rows.whole(DECODES) == 1)]
        self._next_end = self.progress.steps + int(going.min()) if len(going) else NEVER
        ended: list[SimulatedSequence] = []
        for sequence_id in rows.whole(ID)[left <= 0].tolist():
            sequence = self.running[sequence_id]
            assert isinstance(sequence, SimulatedSequence)
            sequence.finish_reason = FinishReason.LENGTH
            ended.append(sequence)
        return ended

    def _prefilled(self, assembled: Assembled, new_tokens: dict[int, int]) -> list[SimulatedSequence]:
        """Prompts that were computed, or parts of them; gives those that are over with their first token."""
        over: list[SimulatedSequence] = []
        rows = self.running_rows
        for item in assembled.batch.items:
            sequence = item.sequence
            assert isinstance(sequence, SimulatedSequence)
            sequence.computed = item.start + item.count
            place = rows.place(sequence.sequence_id)
            rows.whole(CONTEXT)[place] = sequence.computed
            self._assembler.publish_computed(sequence)
            if item.emits:
                sequence.emit_after_prompt()
                new_tokens[sequence.sequence_id] = 1
                rows.whole(EMITTED)[place] += 1
                self._single_token(sequence, place)
                if sequence.emitted >= sequence.target_tokens:
                    sequence.finish_reason = FinishReason.LENGTH
                    over.append(sequence)
                    continue
            rows.whole(PREFILL)[place] = sequence.prefill_tokens
            if not sequence.in_prefill:
                self._counting.decode(sequence)
                rows.decodes(place)
                self._next_end = min(self._next_end, self.progress.steps + sequence.target_tokens - sequence.emitted)
                if not item.emits:
                    sequence.grown = self.progress.steps
                    self._pending.append(sequence)
        return over

    def _single_token(self, sequence: SimulatedSequence, place: int) -> None:
        """A token that does not follow one of the step before: the first of all, or the first after a preemption."""
        self._accounts.single_token(sequence, self.last_end_s, self.steps.total - 1)
        if sequence.has_limits:
            self.running_rows.limited(place, sequence)

    def _observe(
        self,
        work: StepWork,
        decodes: int,
        starts: list[float],
        ends: list[float],
        new_tokens: dict[int, int],
        ended: list[SimulatedSequence],
    ) -> None:
        """Tell the policy of every step, one by one, and with the last of all tokens and of who ended."""
        observe, last = self._policy.observe, len(ends) - 1
        for number, (start_s, end_s) in enumerate(zip(starts, ends, strict=False)):
            each, grown = work, decodes * number
            if grown:
                reads, products = work.kv_tokens_read + grown, work.attention_products + grown
                each = StepWork(work.tokens, work.sequences, reads, products)
            if number == last:
                finished = tuple(sequence.sequence_id for sequence in ended)
                observe(StepResult(start_s, end_s, each, new_tokens, finished))
            else:
                observe(StepResult(start_s, end_s, each, NO_TOKENS))

    # Who moves and who leaves

    def _move(self, plan: StepPlan, assembled: Assembled) -> None:
        for sequence in assembled.preempted:
            self._leave(sequence)
        super()._move(plan, assembled)
        for sequence in assembled.preempted:
            assert isinstance(sequence, SimulatedSequence)
            sequence.renew_deadline()
            sequence.uncached_tokens = self._assembler.uncached_tokens(sequence)
            self._wait(sequence)
        for sequence in assembled.joined:
            assert isinstance(sequence, SimulatedSequence)
            self.waiting_rows.remove(self.waiting_rows.place(sequence.sequence_id))
            self._may_find.discard(sequence.sequence_id)
            prefill, computed = sequence.prefill_tokens, sequence.computed
            self.running_rows.add(sequence, prefill_tokens=prefill, computed=computed, emitted=sequence.emitted)

    def _leave(self, sequence: Sequence) -> None:
        """``sequence`` runs no more: its row goes, and its gaps so far are put to its own account."""
        assert isinstance(sequence, SimulatedSequence)
        self.running_rows.remove(self.running_rows.place(sequence.sequence_id))
        if sequence in self._pending:
            self._pending.remove(sequence)
        self._accounts.leaves(sequence, self.last_end_s)

    def _remove(self, sequence: Sequence) -> None:
        assert isinstance(sequence, SimulatedSequence)
        if sequence.sequence_id in self.waiting:
            self.waiting_rows.remove(self.waiting_rows.place(sequence.sequence_id))
            self._may_find.discard(sequence.sequence_id)
            ending, now_s = Ending.SHED, self._clock()
        else:
            self._leave(sequence)
            ending, now_s = Ending.SERVED, self.last_end_s
        super()._remove(sequence)
        self._accounts.note(sequence, ending, now_s)

    def close(self) -> None:
        """Account for those that are still there: nothing more will come."""
        for sequence in (*self.running.values(), *self.waiting.values()):
            assert isinstance(sequence, SimulatedSequence)
            if sequence.follows:
                self._accounts.fold(sequence, self.last_end_s)
            self._accounts.note(sequence, Ending.WAITS, float("nan"))

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if queues, rows and pool contradict each other."""
        self._counted.check_integrity()
        used = 0
        for rows, queue in ((self.running_rows, self.running), (self.waiting_rows, self.waiting)):
            assert rows.whole(ID).tolist() == list(queue), "rows and requests differ"
        for place, sequence in enumerate(self.running.values()):
            assert isinstance(sequence, SimulatedSequence)
            rows = self.running_rows
            assert int(rows.whole(CONTEXT)[place]) == sequence.computed, "a row's context is not the request's"
            assert int(rows.whole(EMITTED)[place]) == sequence.emitted, "a row's tokens are not the request's"
            assert int(rows.whole(PREFILL)[place]) == sequence.prefill_tokens, "a row's prompt is not the request's"
            used += self._counting.held(sequence)
        shared = sum(self._counted.references.values()) - len(self._counted.references)
        assert used - shared == self.pool.used, "blocks in use are not those that requests hold"
