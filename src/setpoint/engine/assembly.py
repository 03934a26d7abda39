"""From a plan to a batch: places, budget and KV blocks are given out here and nowhere else.

Order of service: decodes first (they are being read), then prefill in the plan's order. A decode that finds no block preempts
by the plan's order; a request joins only if blocks for its whole prompt are there and a few are left for running ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from setpoint.engine.batch import Batch, BatchItem, make_batch
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import StepPlan

NO_BATCH = make_batch([])


@dataclass(slots=True)
class Assembled:
    """The batch, who joined from the waiting queue, and who was preempted back into it; seconds that its drafts took."""

    batch: Batch
    joined: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    draft_s: float = 0.0


def victims(plan: StepPlan, running: dict[int, Sequence]) -> list[Sequence]:
    """Running sequences in the plan's preemption order; those it does not name come after, newest first."""
    named = [running[i] for i in plan.preempt_order if i in running]
    names = set(plan.preempt_order)
    return named + [sequence for i, sequence in reversed(running.items()) if i not in names]


class Assembler:
    """Turns plans into batches over one block pool. Modifies sequences' block tables and the pool."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._running = 0

    def assemble(self, plan: StepPlan, running: dict[int, Sequence], waiting: dict[int, Sequence]) -> Assembled:
        """Make up the next step; the caller moves ``joined`` and ``preempted`` between its queues."""
        result = Assembled(NO_BATCH)
        self._grow_decodes(plan, running, result.preempted)
        gone = {sequence.sequence_id for sequence in result.preempted}
        prefills = self._prefills(plan, running, waiting, gone, result.joined)
        result.batch = self._batch(running, gone, prefills)
        self._running = len(running) + len(result.joined)
        return result

    def uncached_tokens(self, sequence: Sequence) -> int:
        """Tokens of ``sequence`` that no cached block covers now; at least 1, the last is always computed."""
        size, count = self._pool.block_tokens, len(sequence.tokens)
        limit = (count - 1) // size
        hashes = sequence.hashes if len(sequence.hashes) >= limit else sequence.hash_full_blocks(size, count - 1)
        return count - self._pool.found(hashes, limit) * size

    def release(self, sequence: Sequence) -> None:
        """Give all blocks of ``sequence`` back, last first: a prefix loses its tail to eviction before its beginning."""
        self._pool.release(reversed(sequence.forget_blocks()))

    def room_for_drafts(self, sequence: Sequence, count: int) -> int:
        """How many of ``count`` draft tokens have a place in blocks behind the next token.

        Blocks are added only while every running request could still have another one: drafts never preempt.
        """
        size = self._pool.block_tokens
        missing = -(-(sequence.computed + 1 + count) // size) - self.held(sequence)
        if missing > 0 and self._pool.available - missing >= self._running:
            self._add_blocks(sequence, missing)
        return max(0, min(count, self.held(sequence) * size - sequence.computed - 1))

    def held(self, sequence: Sequence) -> int:
        """Blocks that ``sequence`` holds."""
        return len(sequence.blocks)

    def publish_computed(self, sequence: Sequence) -> None:
        """Make the full blocks computed since the last call findable."""
        full = sequence.computed // self._pool.block_tokens
        if full > sequence.published:
            hashes = sequence.hash_full_blocks(self._pool.block_tokens, sequence.computed)
            for index in range(sequence.published, full):
                self._pool.publish(sequence.blocks[index], hashes[index])
            sequence.published = full

    def _grow_decodes(self, plan: StepPlan, running: dict[int, Sequence], preempted: list[Sequence]) -> None:
        """A block for each decode whose next token has none, in order of arrival, as far as preemption leaves it in."""
        for sequence in self._lacking(running):
            if not (preempted and sequence in preempted):
                self._grow(sequence, plan, running, preempted)

    def _lacking(self, running: dict[int, Sequence]) -> Iterable[Sequence]:
        """Decodes whose next token has no block, in order."""
        block_tokens = self._pool.block_tokens
        for sequence in running.values():
            if len(sequence.blocks) * block_tokens <= sequence.computed and not sequence.in_prefill:
                yield sequence

    def _batch(self, running: dict[int, Sequence], gone: set[int], prefills: list[BatchItem]) -> Batch:
        """Every decode that was not preempted, and ``prefills`` after them."""
        items = [
            BatchItem(s, s.computed, 1, emits=True) for i, s in running.items() if not (s.in_prefill or (gone and i in gone))
        ]
        return make_batch(items + prefills)

    def _grow(self, sequence: Sequence, plan: StepPlan, running: dict[int, Sequence], preempted: list[Sequence]) -> None:
        """One more block for ``sequence``, preempting if there is none; none if that was ``sequence`` itself."""
        if not self._pool.available:
            for victim in victims(plan, running):
                if not victim.holds_blocks:
                    continue
                self.release(victim)
                victim.preemptions += 1
                victim.preempted_for = sequence.request.name
                preempted.append(victim)
                if victim is sequence:
                    return
                if self._pool.available:
                    break
        self._add_blocks(sequence, 1)

    def _add_blocks(self, sequence: Sequence, count: int) -> None:
        sequence.blocks += self._pool.allocate(count)

    def _prefills(
        self,
        plan: StepPlan,
        running: dict[int, Sequence],
        waiting: dict[int, Sequence],
        gone: set[int],
        joined: list[Sequence],
    ) -> list[BatchItem]:
        budget = plan.prefill_budget_tokens
        places = plan.max_running - (len(running) - len(gone))
        may_join = not gone  # Nobody joins in a step that preempted, and nobody overtakes one that found no room.
        items: list[BatchItem] = []
        for sequence_id in plan.order:
            if budget <= 0:
                break
            sequence = running.get(sequence_id)
            if sequence is None:
                sequence = waiting.get(sequence_id)
                if sequence is None or not may_join:
                    continue
                if places <= 0 or not self._join(sequence, len(running) + len(joined)):
                    # Running prompts further down still go on: they are what will give the missing blocks back.
                    may_join = False
                    continue
                joined.append(sequence)
                places -= 1
            elif sequence_id in gone or not sequence.in_prefill:
                continue
            count = min(budget, sequence.uncomputed)
            items.append(BatchItem(sequence, sequence.computed, count, emits=count == sequence.uncomputed))
            budget -= count
        return items

    def _join(self, sequence: Sequence, running: int) -> bool:
        """Give a waiting sequence its cached prefix and blocks for the rest; False (and no change) if they are not there."""
        prefix = self._cached_prefix(sequence)
        block_tokens = self._pool.block_tokens
        needed = -(-sequence.length // block_tokens) - len(prefix)
        left = self._pool.available - self._pool.cached_among(prefix) - needed
        # A block each for the running, so that a join does not at once preempt; a lone request may take everything.
        if left < 0 or (running and left < running):
            return False
        self._take(sequence, prefix, needed)
        sequence.computed = len(prefix) * block_tokens
        sequence.published = len(prefix)
        if sequence.first_scheduled_s is None:
            sequence.cached_tokens = sequence.computed
        return True

    def _take(self, sequence: Sequence, prefix: list[int], needed: int) -> None:
        """The blocks of a sequence that joins: those found, and ``needed`` more."""
        self._pool.share(prefix)
        sequence.blocks = prefix + self._pool.allocate(needed)

    def _cached_prefix(self, sequence: Sequence) -> list[int]:
        return self._pool.find(sequence.hash_full_blocks(self._pool.block_tokens, len(sequence.tokens) - 1))
