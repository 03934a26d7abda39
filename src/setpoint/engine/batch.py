"""One step's work as data: which tokens of which sequences, and who emits."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import StepWork


@dataclass(frozen=True, slots=True)
class BatchItem:
    """``count`` tokens of ``sequence`` from position ``start``; ``emits`` if the last of them has no successor yet."""

    sequence: Sequence
    start: int
    count: int
    emits: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of a step and their work; ``prefill_tokens`` of ``work.tokens`` belong to prompts."""

    items: tuple[BatchItem, ...]
    work: StepWork
    prefill_tokens: int

    @property
    def decode_tokens(self) -> int:
        """New tokens that are not prompt."""
        return self.work.tokens - self.prefill_tokens


def make_batch(items: list[BatchItem]) -> Batch:
    """Add up the work of ``items`` (see ``StepWork``)."""
    tokens = reads = products = prefill = 0
    for item in items:
        context = item.start + item.count
        tokens += item.count
        reads += context
        products += item.count * context
        if item.count > 1 or not item.emits:
            prefill += item.count
    return Batch(tuple(items), StepWork(tokens, len(items), reads, products), prefill)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What an executor gives back: the clock at start and end, and a token for every item that emits, in order."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]
