"""Counted blocks where drafts are made: a decode may hold more blocks than its computed tokens fill.

As ``counting_assembler.py``, but every decode's blocks are a number in its row: room that was made for a draft stays with the
request when the draft is rejected, as in the engine.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from setpoint.engine.assembly import Assembler
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import StepPlan
from setpoint.policy.views import IntColumn
from setpoint.simulate.counting_assembler import CountingAssembler
from setpoint.simulate.rows import CONTEXT, DECODES, HELD
from setpoint.simulate.sequences import SimulatedSequence

ROW_KNOWS = -1


class HeldAssembler(CountingAssembler):
    """Blocks of decodes are in their rows (``HELD``), those of the others with the request."""

    def held(self, sequence: Sequence) -> int:
        """See ``Assembler``."""
        assert isinstance(sequence, SimulatedSequence)
        if sequence.held != ROW_KNOWS:
            return sequence.held
        return int(self._rows.whole(HELD)[self._rows.place(sequence.sequence_id)])

    def decode(self, sequence: SimulatedSequence) -> None:
        """From now on ``sequence`` decodes; its row is there."""
        super().decode(sequence)
        self._rows.whole(HELD)[self._rows.place(sequence.sequence_id)] = sequence.held
        sequence.held = ROW_KNOWS

    def leave(self, sequence: SimulatedSequence) -> None:
        """The row of ``sequence`` is about to go."""
        sequence.held = self.held(sequence)

    def gained(self, tokens: int) -> None:
        """Decodes have so many tokens of context more than a step gave them."""
        self.context_tokens += tokens

    def take_blocks(self, steps: int) -> None:
        """See ``CountingAssembler``."""
        super().take_blocks(steps)
        held = self._rows.whole(HELD)
        held += self._missing(steps)

    def blocks_for(self, steps: int) -> int:
        """See ``CountingAssembler``."""
        return int(self._missing(steps).sum())

    def steps_within(self, blocks: int, most: int) -> int:
        """See ``CountingAssembler``."""
        return max(1, bisect_right(range(1, most + 1), blocks, key=self.blocks_for))

    def _missing(self, steps: int) -> IntColumn:
        """Blocks that each decode lacks for its next ``steps`` tokens, shape (rows,); 0 for the others."""
        rows = self._rows
        wanted = -(-(rows.whole(CONTEXT) + steps) // self._pool.block_tokens)
        missing: IntColumn = np.maximum(wanted - rows.whole(HELD), 0) * rows.whole(DECODES)
        return missing

    def _grow_decodes(self, plan: StepPlan, running: dict[int, Sequence], preempted: list[Sequence]) -> None:
        missing = self._missing(1)
        lacking = int(missing.sum())
        if lacking <= self._pool.available:
            self._pool.allocate(lacking)
            held = self._rows.whole(HELD)
            held += missing
        else:
            Assembler._grow_decodes(self, plan, running, preempted)

    def _lacks(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return self._missing(1) > 0

    def _add_blocks(self, sequence: Sequence, count: int) -> None:
        self._pool.allocate(count)
        self._rows.whole(HELD)[self._rows.place(sequence.sequence_id)] += count
