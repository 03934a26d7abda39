"""Drives a step loop by hand, as the engine's thread would: requests arrive while others run, and some are cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from setpoint.engine.batch import Batch, StepOutput
from setpoint.engine.emission import Emission
from setpoint.engine.executor import Executor, Ticket
from setpoint.engine.request import FinishReason, GenerationRequest
from setpoint.engine.sequence import Sequence
from setpoint.engine.step_loop import StepLoop

MOST_STEPS = 20_000
ARRIVALS_PER_STEP = 2


class FewerBlocks:
    """An executor that admits to only ``blocks`` of its blocks: a small KV cache without compiling the model again."""

    observation_lag = 0

    def __init__(self, executor: Executor, blocks: int) -> None:
        assert blocks <= executor.blocks
        self.blocks = blocks
        self.block_tokens = executor.block_tokens
        self._executor = executor

    def submit(self, batch: Batch) -> Ticket:
        return self._executor.submit(batch)

    def collect(self, ticket: Ticket) -> StepOutput:
        return self._executor.collect(ticket)

    def close(self) -> None:
        """The executor belongs to somebody else."""


@dataclass
class Outcome:
    """What became of every request: its sequence, its tokens, how it ended."""

    sequences: dict[str, Sequence] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, FinishReason] = field(default_factory=dict)

    def add(self, emissions: Items[Emission]) -> None:
        """Take over what a step gave."""
        for emission in emissions:
            name = emission.sequence.request.name
            assert name not in self.ends, f"{name} gained something after its end"
            if emission.token is not None:
                self.tokens[name].append(emission.token)
            if emission.finish_reason is not None:
                self.ends[name] = emission.finish_reason


def drive(loop: StepLoop, requests: Items[GenerationRequest], cancel_after: dict[str, int]) -> Outcome:
    """Run until all have ended. ``cancel_after``: steps in which a request runs before it is cancelled; 0: on arrival.

    Cancellations come while a step is running and between two steps in turn. Requests arrive in order,
    ``ARRIVALS_PER_STEP`` before each step. The loop's integrity is checked after every step.
    """
    outcome = Outcome()
    patience = dict(cancel_after)
    arrivals = iter(requests)
    left = len(requests)
    for step in range(MOST_STEPS):
        for request in (next(arrivals) for _ in range(min(ARRIVALS_PER_STEP, left))):
            left -= 1
            outcome.sequences[request.name] = loop.submit(request)
        started = loop.begin_step()
        cancelled = _out_of_patience(loop, patience)
        for sequence in cancelled if step % 2 else ():
            loop.end(sequence, FinishReason.CANCELLED)
        outcome.add(loop.finish_step() if started else [])
        for sequence in cancelled:
            loop.end(sequence, FinishReason.CANCELLED)
        outcome.add(loop.take_notices())
        loop.check_integrity()
        if not (left or loop.busy):
            return outcome
    raise AssertionError(f"not done after {MOST_STEPS} steps: {len(loop.running)} running, {len(loop.waiting)} waiting")


def _out_of_patience(loop: StepLoop, patience: dict[str, int]) -> list[Sequence]:
    cancelled = []
    for sequence in (*loop.waiting.values(), *loop.running.values()):
        name = sequence.request.name
        if name in patience:
            if patience[name] == 0:
                cancelled.append(sequence)
            patience[name] -= sequence.sequence_id in loop.running
    return cancelled
