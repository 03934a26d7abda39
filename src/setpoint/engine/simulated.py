"""An executor that only answers how long a step takes, on a virtual clock; tokens come from a caller's function."""

from __future__ import annotations

from collections.abc import Callable

from setpoint.engine.batch import Batch, BatchItem, StepOutput
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import StepWork


def verified_output(start_s: float, end_s: float, batch: Batch, next_token: Callable[[Sequence], int]) -> StepOutput:
    """What an executor gives back for a batch with drafts where ``next_token`` is the model."""
    emitted = [(item, verified_tokens(item, next_token)) for item in batch.items if item.emits]
    accepted = tuple(len(tokens) - 1 for item, tokens in emitted if item.draft is not None)
    return StepOutput(start_s, end_s, tuple(token for _, tokens in emitted for token in tokens), accepted)


class VirtualClock:
    """Time that moves only when told. Calling it gives the present moment in seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def __call__(self) -> float:
        return self._now_s

    def advance_to(self, moment_s: float) -> None:
        """Move forward; a moment that has passed already changes nothing."""
        self._now_s = max(self._now_s, moment_s)


def counting_tokens(sequence: Sequence) -> int:
    """A token that follows from the length of the text and its last three tokens: a lost, doubled or foreign token shows."""
    return (sum(sequence.tokens[-3:]) * 31 + len(sequence.tokens)) % 50_000 + 10


def verified_tokens(item: BatchItem, next_token: Callable[[Sequence], int]) -> list[int]:
    """The tokens that an item gives where ``next_token`` is the model: its draft's as far as they agree, and one more."""
    sequence = item.sequence
    known = len(sequence.tokens)
    emitted = []
    for guess in (*(item.draft.tokens if item.draft is not None else ()), None):
        emitted.append(next_token(sequence))
        if emitted[-1] != guess:
            break
        sequence.tokens.append(emitted[-1])
    del sequence.tokens[known:]
    return emitted


class SimulatedExecutor:
    """Steps take ``duration_s(work)`` on ``clock``; an emitting item gets ``next_token(sequence)``."""

    observation_lag = 0

    def __init__(
        self,
        clock: VirtualClock,
        duration_s: Callable[[StepWork], float],
        *,
        blocks: int,
        block_tokens: int = 32,
        next_token: Callable[[Sequence], int] = counting_tokens,
    ) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._clock = clock
        self._duration_s = duration_s
        self._next_token = next_token

    def submit(self, batch: Batch) -> Batch:
        """The ticket is the batch."""
        return batch

    def collect(self, ticket: Batch) -> StepOutput:
        """Advance the clock by the step's duration."""
        start_s = self._clock()
        end_s = start_s + self._duration_s(ticket.work)
        self._clock.advance_to(end_s)
        if not ticket.drafted:
            return StepOutput(start_s, end_s, tuple(self._next_token(i.sequence) for i in ticket.items if i.emits))
        return verified_output(start_s, end_s, ticket, self._next_token)

    def close(self) -> None:
        """Nothing is held."""
