"""One step's work as data: which tokens of which sequences, and who emits."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import Draft
from setpoint.policy.decisions import StepWork


@dataclass(frozen=True, slots=True)
class BatchItem:
    """``count`` tokens of ``sequence`` from position ``start``; ``emits`` if the last of them has no successor yet.

    draft: its tokens come after those of the sequence and are among ``count``; each is to be verified.
    """

    sequence: Sequence
    start: int
    count: int
    emits: bool
    draft: Draft | None = None

    @property
    def tokens(self) -> list[int]:
        """The token ids, draft included: [count]."""
        tokens = self.sequence.tokens[self.start : self.start + self.count]
        return tokens if self.draft is None else [*tokens, *self.draft.tokens]


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of a step and their work; ``prefill_tokens`` of ``work.tokens`` belong to prompts, ``drafted`` to drafts."""

    items: tuple[BatchItem, ...]
    work: StepWork
    prefill_tokens: int
    drafted: int = 0

    @property
    def decode_tokens(self) -> int:
        """New tokens that are not prompt, drafts included."""
        return self.work.tokens - self.prefill_tokens


def make_batch(items: list[BatchItem]) -> Batch:
    """Add up the work of ``items`` (see ``StepWork``)."""
    tokens = reads = products = prefill = drafted = 0
    for item in items:
        context = item.start + item.count
        tokens += item.count
        reads += context
        products += item.count * context
        if item.draft is not None:
            drafted += len(item.draft.tokens)
        elif item.count > 1 or not item.emits:
            prefill += item.count
    return Batch(tuple(items), StepWork(tokens, len(items), reads, products), prefill, drafted)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What an executor gives back: the clock at start and end, and a token for every item that emits, in order.

    accepted: for every item with a draft, in order, how many of its tokens were accepted; its tokens are those and one more.
    """

    start_s: float
    end_s: float
    tokens: tuple[int, ...]
    accepted: tuple[int, ...] = ()
