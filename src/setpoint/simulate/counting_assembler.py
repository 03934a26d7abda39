"""The engine's assembler (``engine/assembly.py``) over counted blocks: its rules, with another way to keep their objects.

Nothing here decides who gets a block, a place or a part of the budget. What is replaced is how blocks are held: decodes that
need one are found in a column instead of one by one, and a request's own blocks are a number.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from setpoint.engine.assembly import Assembler
from setpoint.engine.batch import Batch, BatchItem, make_batch
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import StepPlan, StepWork
from setpoint.simulate.kv_counts import CountedPool
from setpoint.simulate.rows import CONTEXT, DECODES, ID, Rows
from setpoint.simulate.sequences import Progress, SimulatedSequence


class CountingAssembler(Assembler):
    """Over ``pool`` and the rows of those that run."""

    def __init__(self, pool: CountedPool, running: Rows, progress: Progress) -> None:
        self._pool: CountedPool = pool  # type: ignore[assignment]
        self._rows = running
        self._progress = progress
        # Decodes whose next token is the first after their prompt: its block is there.
        self.pending: list[SimulatedSequence] = []
        # How many decode and the sum of their contexts; by how far each is from a full block, counted back to step 0: a decode
        # needs a block in every ``block_tokens``-th step. ``decode``, ``release`` and whoever advances keep them up.
        self.decodes = 0
        self.context_tokens = 0
        self._by_place = [0] * pool.block_tokens

    def uncached_tokens(self, sequence: Sequence) -> int:
        """As the engine's: tokens that no cached block covers, at least 1."""
        assert isinstance(sequence, SimulatedSequence)
        return sequence.length - sum(self._found(sequence)) * self._pool.block_tokens

    def decode(self, sequence: SimulatedSequence) -> None:
        """From now on ``sequence`` decodes."""
        sequence.begin_to_decode()
        self.decodes += 1
        self.context_tokens += sequence.computed
        self._by_place[(sequence.computed - self._progress.steps) % self._pool.block_tokens] += 1

    def lacking(self, after_steps: int = 0) -> int:
        """How many of the present decodes need a block for the step that comes after so many more."""
        return self._by_place[-(self._progress.steps + after_steps) % self._pool.block_tokens]

    def held(self, sequence: Sequence) -> int:
        """Blocks that it holds: while it decodes those that its computed tokens fill, and one that it just got."""
        assert isinstance(sequence, SimulatedSequence)
        if sequence.since < 0:
            return sequence.held
        computed, size = sequence.computed, self._pool.block_tokens
        return -(-computed // size) + (sequence.grown == self._progress.steps and computed % size == 0)

    def take_blocks(self, steps: int) -> None:
        """The blocks of ``blocks_for`` are the decodes' now."""
        self._pool.allocate(self.blocks_for(steps))

    def blocks_for(self, steps: int) -> int:
        """Blocks that the present decodes need for ``steps`` steps beyond those for the first."""
        size = self._pool.block_tokens
        whole, rest = divmod(steps - 1, size)
        return whole * self.decodes + sum(self.lacking(after) for after in range(1, rest + 1))

    def steps_within(self, blocks: int, most: int) -> int:
        """Of ``most`` steps those for which ``blocks`` are enough."""
        whole, steps = divmod(blocks, max(1, self.decodes))
        left, steps = steps, 1 + whole * self._pool.block_tokens
        while steps < most and (needed := self.lacking(steps)) <= left:
            left -= needed
            steps += 1
        return min(steps, most)

    def release(self, sequence: Sequence) -> None:
        """All blocks back, last first; a preempted request may find its own again."""
        assert isinstance(sequence, SimulatedSequence)
        if sequence.held:
            self.publish_computed(sequence)  # Of a text that goes on, the answer may be found again too.
            computed, size = sequence.computed, self._pool.block_tokens
            held = self.held(sequence)
            if sequence.since >= 0:
                self.decodes -= 1
                self.context_tokens -= computed
                self._by_place[(computed - self._progress.steps) % size] -= 1
            own = max(0, computed // size - len(sequence.named))
            self._pool.give_back(held - own - len(sequence.referred))
            self._pool.keep_own(sequence.sequence_id, own, returns=sequence.finish_reason is None)
            self._pool.unshare(sequence.referred)
            sequence.forget_blocks()
        if sequence.finish_reason is not None:
            self._pool.forget_own(sequence.sequence_id)

    def publish_computed(self, sequence: Sequence) -> None:
        """Make named blocks that were computed findable; its own follow from what is computed."""
        assert isinstance(sequence, SimulatedSequence)
        full = sequence.computed // self._pool.block_tokens
        if full > sequence.published:
            for digest in sequence.named[sequence.published : full]:
                if self._pool.publish(digest):
                    sequence.referred.append(digest)
            sequence.published = full

    def _grow_decodes(self, plan: StepPlan, running: dict[int, Sequence], preempted: list[Sequence]) -> None:
        """All at once where there is enough for all, else as the engine does."""
        lacking = self.lacking()
        for sequence in self.pending:
            lacking -= sequence.computed % self._pool.block_tokens == 0
        if lacking <= self._pool.available:
            self._pool.allocate(lacking)
        else:
            super()._grow_decodes(plan, running, preempted)

    def _lacks(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which rows are decodes whose computed tokens fill their blocks, shape (rows,)."""
        full: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._rows.whole(CONTEXT) % self._pool.block_tokens == 0
        if self.decodes != len(self._rows):
            full &= self._rows.whole(DECODES) == 1
        for sequence in self.pending:
            full[self._rows.place(sequence.sequence_id)] = False
        return full

    def _lacking(self, running: dict[int, Sequence]) -> Iterable[Sequence]:
        return [running[sequence_id] for sequence_id in self._rows.whole(ID)[self._lacks()].tolist()]

    def _add_blocks(self, sequence: Sequence, count: int) -> None:
        assert isinstance(sequence, SimulatedSequence)
        self._pool.allocate(count)
        sequence.grown = self._progress.steps

    def _cached_prefix(self, sequence: Sequence) -> list[int]:
        """Digests of the blocks that are found: named ones first, -1 for each of its own."""
        assert isinstance(sequence, SimulatedSequence)
        named, own = self._found(sequence)
        return [*sequence.named[:named], *[-1] * own]

    def _take(self, sequence: Sequence, prefix: list[int], needed: int) -> None:
        assert isinstance(sequence, SimulatedSequence)
        named = prefix[: len(sequence.named)]
        self._pool.share(named)
        if len(prefix) > len(named):
            self._pool.take_own(sequence.sequence_id)
        self._pool.allocate(needed)
        sequence.referred = named
        sequence.held = len(prefix) + needed

    def _found(self, sequence: SimulatedSequence) -> tuple[int, int]:
        """Blocks that can be found of those before the last token: named, own."""
        limit = (sequence.length - 1) // self._pool.block_tokens
        named = min(limit, len(sequence.named))
        found = self._pool.found(sequence.named[:named]) if named else 0
        own = self._pool.own_cached(sequence.sequence_id) if found == len(sequence.named) and sequence.preemptions else 0
        return found, min(own, limit - found)

    def _batch(self, running: dict[int, Sequence], gone: set[int], prefills: list[BatchItem]) -> Batch:
        """Only prefills are items; decodes are in the sums."""
        read = self.context_tokens + self.decodes
        if not prefills:
            return Batch((), StepWork(self.decodes, self.decodes, read, read), 0)
        batch = make_batch(prefills)
        work = batch.work
        total = StepWork(
            work.tokens + self.decodes,
            work.sequences + self.decodes,
            work.kv_tokens_read + read,
            work.attention_products + read,
        )
        return Batch(batch.items, total, batch.prefill_tokens)
