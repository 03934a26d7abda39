"""A machine for simulated worlds: it takes its time, it fails, and it knows what every block of its memory holds.

A block's contents depend on all tokens before them, so a block is remembered as (hash of everything before it, its tokens).
What a step reads is compared with the text of the request that reads it: in full when a request joins, is new to the memory
or comes up for its turn, and in between it follows from nobody else having been able to write (one reference, one writer).
"""

from __future__ import annotations

import random
from math import exp

from simulation_recipe import Recipe

from setpoint.engine.batch import Batch, BatchItem, StepOutput
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.request import EngineFailed
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import VirtualClock, verified_output
from setpoint.policy.configuration import SpeculationMode
from setpoint.policy.decisions import StepWork

STOP_TOKEN = 0
FULL_LOOK_EVERY = 16


def next_token(sequence: Sequence) -> int:
    """A token that follows from the text alone, so that a lost, doubled or foreign one shows; ``STOP_TOKEN`` at its end.

    The request's name says after how many tokens the answer ends of itself.
    """
    if sequence.emitted + 1 >= int(sequence.request.name.rpartition(":")[2]):
        return STOP_TOKEN
    return (sum(sequence.tokens[-3:]) * 31 + len(sequence.tokens)) % 50_000 + 10


class WorldExecutor:
    """``Executor`` on a virtual clock. ``pool`` is set by whoever builds the loop: the memory is checked against it."""

    observation_lag = 0

    def __init__(self, recipe: Recipe, clock: VirtualClock, dice: random.Random) -> None:
        self.blocks = recipe.blocks
        self.block_tokens = recipe.block_tokens
        self.pool: BlockPool | None = None
        self.batch: Batch | None = None
        self.steps = 0
        self.drafts = recipe.config.speculation is not SpeculationMode.OFF
        self._machine = recipe.machine
        self._clock = clock
        self._dice = dice
        self._last_tokens = 0
        self._memory: list[tuple[int, list[int]]] = [(0, [])] * recipe.blocks
        self._seen: dict[int, int] = {}

    def submit(self, batch: Batch) -> Batch:
        self.batch = batch
        self._check_writes(batch)
        if self._fails():
            raise EngineFailed("the machine broke at submit")
        return batch

    def collect(self, ticket: Batch) -> StepOutput:
        if self._fails():
            raise EngineFailed("the machine broke at collect")
        self.steps += 1
        for item in ticket.items:
            self._write(item)
        for item in ticket.items:
            self._read(item)
        start_s = self._clock()
        end_s = start_s + self._duration_s(ticket.work)
        self._clock.advance_to(end_s)
        return verified_output(start_s, end_s, ticket, next_token)

    def close(self) -> None:
        """Nothing is held."""

    def _fails(self) -> bool:
        return self._machine.fault > 0 and self._dice.random() < self._machine.fault

    def _duration_s(self, work: StepWork) -> float:
        c0, c1, c2, c3, c4 = self._machine.coefficients_s
        seconds = c0 + c1 * work.tokens + c2 * work.sequences + c3 * work.kv_tokens_read + c4 * work.attention_products
        if work.tokens != self._last_tokens:
            self._last_tokens = work.tokens
            seconds += self._machine.change_s
        if self._machine.noise:
            seconds *= exp(self._machine.noise * self._dice.gauss(0.0, 1.0))
        if self._machine.slow and self._dice.random() < self._machine.slow:
            seconds *= self._dice.uniform(1, 50)
        return seconds

    def _check_writes(self, batch: Batch) -> None:
        """Every block that is written belongs to one request only, which is the one that writes it."""
        assert self.pool is not None
        references = self.pool._references
        size = self.block_tokens
        for item in batch.items:
            blocks = item.sequence.blocks
            assert item.count > 0, "an item without tokens"
            assert item.start == item.sequence.computed, "a request does not go on where it stopped"
            text = len(item.sequence.tokens) + (0 if item.draft is None else len(item.draft.tokens))
            assert item.emits == (item.start + item.count == text), "it emits with tokens missing"
            for index in range(item.start // size, (item.start + item.count - 1) // size + 1):
                assert references[blocks[index]] == 1, "a block is written that somebody else uses, or nobody owns"

    def _write(self, item: BatchItem) -> None:
        size, tokens = self.block_tokens, [*item.sequence.tokens[: item.start], *item.tokens]
        position, end = item.start, item.start + item.count
        while position < end:
            offset = position % size
            stop = min(end, position - offset + size)
            block = item.sequence.blocks[position // size]
            if offset == 0:
                self._memory[block] = (hash(tuple(tokens[:position])), tokens[position:stop])
            else:
                held = self._memory[block][1]
                if self.drafts and len(held) > offset:
                    del held[offset:]  # of a draft that was rejected
                assert len(held) == offset, "a block has a hole, or is written twice"
                held += tokens[position:stop]
            position = stop

    def _read(self, item: BatchItem) -> None:
        sequence = item.sequence
        last = self._seen.get(sequence.sequence_id)
        self._seen[sequence.sequence_id] = self.steps
        if last == self.steps - 1 and (self.steps + sequence.sequence_id) % FULL_LOOK_EVERY:
            return
        size, end = self.block_tokens, item.start + item.count
        tokens = [*sequence.tokens[: item.start], *item.tokens]
        for position in range(0, end, size):
            before, held = self._memory[sequence.blocks[position // size]]
            assert before == hash(tuple(tokens[:position])), "a block was computed behind another text"
            assert held == tokens[position : min(end, position + size)], "a block holds other tokens"
