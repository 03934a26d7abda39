"""The drafter of a simulation (``engine/speculation/draft.py``): no tokens, but how many would stand, and what they cost.

A draft model makes a token of every request in a pass, one pass after the other; the first also reads what the request gained
since, at most ``read_tokens`` of it in a step, as the engine's does (``engine/speculation/draft_model.py``). Each pass takes
what ``passes`` says, on the virtual clock, before the step that verifies. Prompt lookup is free: ``passes`` is ``None``.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import VirtualClock
from setpoint.engine.speculation.draft import DRAFT_MODEL_SURENESS, NOTHING, READ_TOKENS, Draft, Outlook
from setpoint.policy.decisions import StepWork
from setpoint.simulate.acceptance import AcceptanceDraws, AcceptedDrafts
from setpoint.simulate.sequences import SimulatedSequence
from setpoint.simulate.timing import StepTimer

LOOKUP_SURENESS = 1
WHOLE_TEXT = 1 << 30
"""vLLM's draft model reads a prompt as soon as the model has; setpoint's reads ``READ_TOKENS`` of it in a step."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """What guesses, and how well. ``passes``: of a draft model, ``None`` for prompt lookup.

    read_tokens: most that a draft model reads of a text in a step. warmed_up: whether the policy was shown what steps with
    drafts take before the first request, as the engine's warm-up does.
    """

    accepted: AcceptedDrafts
    passes: StepTimer | None = None
    read_tokens: int = READ_TOKENS
    warmed_up: bool = True


class ProfiledDrafter:
    """A ``Drafter`` by profile. ``right``: of the drafts of the last ``propose``, how many tokens stand, in their order."""

    def __init__(self, drafting: Drafting, clock: VirtualClock, *, seed: int, most_tokens: int) -> None:
        self.draws = AcceptanceDraws(drafting.accepted, seed)
        self.right: list[int] = []
        self._clock = clock
        self._passes, self._read_tokens = drafting.passes, drafting.read_tokens
        self._most_tokens = min(most_tokens, drafting.accepted.longest)
        self._sureness = LOOKUP_SURENESS if drafting.passes is None else DRAFT_MODEL_SURENESS
        self._known: dict[int, int] = {}  # Tokens of a text that are in the draft model's cache.

    def row(self, sequence: Sequence) -> int:
        """By which number the request's draws are made."""
        assert isinstance(sequence, SimulatedSequence)
        return sequence.row

    def outlook(self, sequence: Sequence) -> Outlook:
        """As long as the profile knows, where there is a guess."""
        if self._passes is None:
            found = self.draws.found(self.row(sequence), sequence.emitted)
            return Outlook(self._most_tokens, self._sureness) if found else NOTHING
        unread = max(0, sequence.length - self._known.get(sequence.sequence_id, 0) - 1)
        behind = min(self._read_tokens, unread)
        return Outlook(self._most_tokens, self._sureness, behind, unread - behind)

    def propose(self, asked: Items[tuple[Sequence, int]]) -> list[Draft | None]:
        """Drafts whose tokens mean nothing, and ``right`` beside them; time passes for a draft model."""
        rows = np.array([self.row(sequence) for sequence, _ in asked], dtype=np.int64)
        emitted = np.array([sequence.emitted for sequence, _ in asked], dtype=np.int64)
        counts = np.array([count for _, count in asked], dtype=np.int64)
        right: list[int] = self.draws.accepted(rows, emitted, counts).tolist()
        ready = [True] * len(asked) if self._passes is None else self._draft(self._passes, asked, right)
        self.right = [count for count, able in zip(right, ready, strict=True) if able]
        return [Draft((0,) * count) if able else None for (_, count), able in zip(asked, ready, strict=True)]

    def foretell(self, sequence: Sequence) -> tuple[int, ...]:
        """A guess that costs nothing; its tokens mean nothing."""
        free = self._passes is None and self.draws.found(self.row(sequence), sequence.emitted)
        return (0,) * self._most_tokens if free else ()

    def forget(self, sequence: Sequence) -> None:
        """The request has ended."""
        self._known.pop(sequence.sequence_id, None)

    def close(self) -> None:
        """Nothing is held."""

    def _draft(self, passes: StepTimer, asked: Items[tuple[Sequence, int]], right: list[int]) -> list[bool]:
        """Let the passes go by; gives who has a guess: who has still to read has none."""
        ready, wanted, lengths = [], [], []
        tokens = reads = products = 0
        for (sequence, count), good in zip(asked, right, strict=True):
            length = sequence.length
            known = min(self._known.get(sequence.sequence_id, 0), length - 1)
            fresh = min(length - known, self._read_tokens + 1)
            able = count > 0 and fresh == length - known
            tokens, reads, products = tokens + fresh, reads + known + fresh, products + fresh * (known + fresh)
            # What it guessed itself is in its cache, but for the last guess; what did not come true counts for nothing.
            self._known[sequence.sequence_id] = length + min(good, count - 1) if able else known + fresh
            ready.append(able)
            if able:
                wanted.append(count)
                lengths.append(length)
        now_s = self._clock() + pass_s(passes, StepWork(tokens, len(asked), reads, products))
        left, texts = np.array(wanted, dtype=np.int64), np.array(lengths, dtype=np.int64)
        for number in range(1, int(left.max(initial=0))):
            going = left > number
            count, context = int(going.sum()), int(texts[going].sum())
            read = context + number * count
            now_s += pass_s(passes, StepWork(count, count, read, read))
        self._clock.advance_to(now_s)
        return ready


def pass_s(timer: StepTimer, work: StepWork) -> float:
    """Seconds of a pass, or of a step."""
    base_s, per_read_s, per_product_s = timer.affine(work.tokens, work.sequences)
    return base_s + per_read_s * work.kv_tokens_read + per_product_s * work.attention_products
