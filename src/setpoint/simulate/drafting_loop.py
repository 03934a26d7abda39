"""The stretch loop with drafts: a step that verifies some is carried out by itself, all others as ever.

What is the engine's: who may draft, how far (the policy), how often it is looked (``engine/speculation/speculator.py``), what
room a draft needs. What is here: how many of a draft's tokens stand (``simulate/acceptance.py``), and their place in the
accounts. Where nobody looks for drafts for some steps, they are a stretch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from setpoint.engine.assembly import Assembled, Assembler
from setpoint.engine.batch import Batch
from setpoint.engine.executor import Executor
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import VirtualClock
from setpoint.engine.speculation.speculator import Speculator, Waiting
from setpoint.policy.decisions import Policy, StepPlan, StepResult, StepWork
from setpoint.simulate.drafter import ProfiledDrafter
from setpoint.simulate.held_assembler import HeldAssembler
from setpoint.simulate.kv_counts import CountedPool
from setpoint.simulate.sequences import SimulatedSequence
from setpoint.simulate.stretch_loop import StretchLoop

NONE: Mapping[int, int] = {}


@dataclass(slots=True)
class Verified:
    """Drafts of the step under way: who, how many tokens, and how many of them stand."""

    sequences: list[SimulatedSequence] = field(default_factory=list)
    drafted: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)


class CountingSpeculator(Speculator):
    """The engine's, over requests that are numbers. ``running``: those of its loop; ``step``: the step's drafts."""

    drafter: ProfiledDrafter

    def __init__(self, drafter: ProfiledDrafter, clock: VirtualClock, *, most_tokens: int, most_running: int) -> None:
        super().__init__(drafter, clock, most_tokens=most_tokens, most_running=most_running)
        self.running: Mapping[int, Sequence] = {}
        self.step = Verified()

    def widen(self, batch: Batch, plan: StepPlan, assembler: Assembler) -> tuple[Batch, float]:
        """See ``Speculator``; decodes are no items of the batch, so only its sums are widened."""
        self.step = Verified()
        if batch.prefill_tokens:
            return batch, 0.0
        wanted = (*plan.draft_tokens, *plan.draft_reads)
        decodes = [self.running[sequence_id] for sequence_id in wanted if sequence_id in self.running]
        drafted, draft_s = self.draft([each for each in decodes if not each.in_prefill], plan, assembler)
        if not drafted:
            return batch, draft_s
        work, step = batch.work, self.step
        step.right = self.drafter.right
        more = products = 0
        for sequence_id, draft in drafted.items():
            sequence, count = self.running[sequence_id], len(draft.tokens)
            assert isinstance(sequence, SimulatedSequence)
            step.sequences.append(sequence)
            step.drafted.append(count)
            context = sequence.computed + 1
            more += count
            products += (1 + count) * (context + count) - context
        total = StepWork(work.tokens + more, work.sequences, work.kv_tokens_read + more, work.attention_products + products)
        return replace(batch, work=total, drafted=more), draft_s

    def _stood(self, sequence: Sequence, waiting: Waiting) -> bool:
        emitted = waiting.length - sequence.prompt_tokens
        return self.drafter.draws.stands(self.drafter.row(sequence), emitted, waiting.told)


class DraftingLoop(StretchLoop):
    """One engine whose requests are drafted for by ``speculator``."""

    speculator: CountingSpeculator

    def __init__(self, policy: Policy, clock: VirtualClock, *, speculator: CountingSpeculator, **rest: Any) -> None:
        super().__init__(policy, clock, **rest)
        self.speculator = speculator

    def _storage(self, executor: Executor) -> tuple[BlockPool, Assembler]:
        self._counted = CountedPool(executor.blocks, executor.block_tokens)
        self._counting: HeldAssembler = HeldAssembler(self._counted, self.running_rows, self.progress)
        self._pending = self._counting.pending
        return self._counted, self._counting  # type: ignore[return-value]

    def begin_step(self) -> bool:
        """See ``StepLoop``."""
        self.speculator.running = self.running
        return super().begin_step()

    def finish_stretch(self, until_s: float) -> float:
        """See ``StretchLoop``; a step with drafts, or before which the drafter read, is one by itself."""
        assert self._in_flight is not None, "no step is in flight"
        assembled = self._in_flight[1]
        if assembled.batch.drafted or assembled.draft_s:
            return self._finish_drafted()
        before, running = self.steps.total, len(self.running)
        free_s = super().finish_stretch(until_s)
        self.speculator.passed(running, self.steps.total - before - 1)
        return free_s

    def _most_steps(self, plan: StepPlan, assembled: Assembled, left_s: float) -> int:
        most = super()._most_steps(plan, assembled, left_s)
        return min(most, self.speculator.unlooked(len(self.running))) if most > 1 else most

    def _finish_drafted(self) -> float:
        """Carry out a step for which the drafter worked. Gives the moment at which the loop looks up after it."""
        assert self._in_flight is not None, "no step is in flight"
        _, assembled, _ = self._in_flight
        self._in_flight = None
        work, start_s, step = assembled.batch.work, self._clock(), self.speculator.step
        end_s, free_s = self._timing.step(work, step=self.steps.total, start_s=start_s)
        new_tokens = dict.fromkeys(self._decoding(), 1)
        self._advance([end_s])
        self._after_advance(work, 1, assembled.draft_s + free_s - start_s, end_s)
        self._take_accepted(step, new_tokens, end_s)
        ended = self._complete()
        ended += self._prefilled(assembled, new_tokens)
        if step.sequences:
            self.speculator.counters.verify_seconds += end_s - start_s
        ids = [sequence.sequence_id for sequence in step.sequences]
        self._policy.observe(
            StepResult(
                start_s,
                end_s,
                work,
                new_tokens,
                tuple(sequence.sequence_id for sequence in ended),
                accepted=dict(zip(ids, step.right, strict=True)),
                drafted=dict(zip(ids, step.drafted, strict=True)),
                draft_s=assembled.draft_s,
            )
        )
        self.peak_used_blocks = max(self.peak_used_blocks, self.pool.used)  # Before the blocks of those that ended are free.
        self.ended_last = len(ended)
        for sequence in ended:
            self._remove(sequence)
        return free_s

    def _take_accepted(self, step: Verified, new_tokens: dict[int, int], end_s: float) -> None:
        """Tokens that stand come with the model's own, as far as the answer goes on."""
        together = [0] * len(self._accounts.streams)
        total = 0
        for sequence, drafted, right in zip(step.sequences, step.drafted, step.right, strict=True):
            self.speculator.counters.verified(drafted, right)
            more = min(right, sequence.target_tokens - sequence.emitted)
            if more > 0:
                sequence.gain(more)
                self.running_rows.gain(self.running_rows.place(sequence.sequence_id), more)
                new_tokens[sequence.sequence_id] += more
                total += more
                together[sequence.phase] += more if sequence.request.streaming else 0
            self._assembler.publish_computed(sequence)
        if total:
            self._counting.gained(total)
            self._accounts.gaps.together(end_s, together, total)
        self._next_end = self.progress.steps  # Somebody may be nearer to the end than was known.

    def _leave(self, sequence: Sequence) -> None:
        assert isinstance(sequence, SimulatedSequence)
        self._counting.leave(sequence)
        super()._leave(sequence)
