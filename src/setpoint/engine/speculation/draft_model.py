"""A smaller model with the same vocabulary guesses: it reads what the request has gained and goes on by itself.

It has a KV cache of its own. After a verification its KV is right as far as its guesses were, so only what differs is read
again. A text it has not read yet (a new prompt, or what was written while nobody drafted) is read ``READ_TOKENS`` a step,
before there is a guess: a long prompt must not hold up those who are being read. If its cache is full, whoever drafted least
recently is forgotten; who finds no room beside those of a step is not offered again until there is some, or until a step has
gone by for which nobody drafted: whoever holds the room gives way then.

Greedy requests, and sampled ones with a seed, get its arg-max; the others a token drawn from its own distribution, under the
request's temperature and filters, and the distribution with it (``rejection.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import DRAFT_MODEL_SURENESS, NOTHING, READ_TOKENS, Draft, Outlook
from setpoint.engine.speculation.rejection import draw, generator_of, probabilities

GREEDY: Final = SamplingParams(max_tokens=1, temperature=0.0)
DRAWN: Final = SamplingParams(max_tokens=1, temperature=1.0)


class Shadow:
    """A request as the draft model knows it: ``own.tokens`` are what it read and guessed, ``own.computed`` those in its KV."""

    __slots__ = ("drawn", "own")

    def __init__(self, sequence: Sequence) -> None:
        sampling = sequence.request.sampling
        self.drawn = not sampling.is_greedy and sampling.seed is None
        request = GenerationRequest(sequence.request.prompt_ids, DRAWN if self.drawn else GREEDY)
        self.own = Sequence(sequence.sequence_id, request, arrived_s=0.0, max_tokens=1)

    def catch_up(self, tokens: list[int]) -> None:
        """Take over the text; KV of guesses that did not come true is not counted any more."""
        own = self.own
        known = min(own.computed, len(tokens) - 1)
        if own.tokens[own.prompt_tokens : known] != tokens[own.prompt_tokens : known]:
            known = next(i for i in range(own.prompt_tokens, known) if own.tokens[i] != tokens[i])
        own.computed = known
        own.tokens = list(tokens)

    @property
    def behind_tokens(self) -> int:
        """Tokens to read besides the last, which every guess begins with."""
        return max(0, len(self.own.tokens) - self.own.computed - 1)


@dataclass(slots=True)
class Guess:
    """A draft in the making: ``left`` more tokens are wanted."""

    shadow: Shadow
    sampling: SamplingParams
    generator: np.random.Generator | None
    left: int
    tokens: list[int] = field(default_factory=list)
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def draft(self, vocabulary: int) -> Draft | None:
        """What there is; ``None`` if there is nothing."""
        if not self.tokens:
            return None
        proposal = None
        if self.rows:
            proposal = np.zeros((len(self.rows), vocabulary), dtype=np.float32)
            for row, known in zip(proposal, self.rows, strict=True):
                row[: len(known)] = known
        return Draft(tuple(self.tokens), proposal)


class DraftModel:
    """A ``Drafter`` over a model of its own. ``vocabulary``: of the model that verifies. ``executor`` belongs to this."""

    def __init__(self, executor: OpenVinoExecutor, *, vocabulary: int, most_tokens: int) -> None:
        self.executor = executor
        self._vocabulary = vocabulary
        self._most_tokens = most_tokens
        self._pool = BlockPool(executor.blocks, executor.block_tokens)
        self._shadows: OrderedDict[int, Shadow] = OrderedDict()
        self._kept: set[int] = set()  # whom the last step guessed or read for
        self._refused: set[int] = set()  # who found no room when last asked for
        self._passed_over: set[int] = set()  # of those, at whom was looked since the last step with drafting

    def outlook(self, sequence: Sequence) -> Outlook:
        """As much as wanted, after what has to be read; nothing for whom there is no room."""
        longest = len(sequence.tokens) + self._most_tokens
        if longest > self._pool.blocks * self._pool.block_tokens or self._is_crowded_out(sequence):
            return NOTHING
        shadow = self._shadows.get(sequence.sequence_id)
        computed = 0 if shadow is None else shadow.own.computed
        unread = max(0, len(sequence.tokens) - computed - 1)
        behind = min(READ_TOKENS, unread)
        return Outlook(self._most_tokens, DRAFT_MODEL_SURENESS, behind, unread - behind)

    def propose(self, asked: Items[tuple[Sequence, int]]) -> list[Draft | None]:
        """Rounds of one token for everybody who wants another; the first reads the text as well."""
        kept = {sequence.sequence_id for sequence, _ in asked}
        guesses = [self._begin(sequence, count, kept) for sequence, count in asked]
        self._kept = {guess.shadow.own.sequence_id for guess in guesses if guess is not None}
        self._refused = (self._refused | kept) - self._kept
        self._passed_over.clear()
        going = [guess for guess in guesses if guess is not None]
        while going:
            items = [self._item(guess) for guess in going]
            ticket = self.executor.submit(make_batch(items))
            best, logits = self.executor.collect_rows(ticket)
            self._take(going, items, best, logits)
            going = [guess for guess in going if guess.left > 0]
        return [None if guess is None else guess.draft(self._vocabulary) for guess in guesses]

    def foretell(self, sequence: Sequence) -> tuple[int, ...]:
        """Nothing: a guess costs a run of the model."""
        return ()

    def forget(self, sequence: Sequence) -> None:
        """Give its blocks back."""
        self._refused.discard(sequence.sequence_id)
        self._passed_over.discard(sequence.sequence_id)
        shadow = self._shadows.pop(sequence.sequence_id, None)
        if shadow is not None:
            self._pool.release(shadow.own.blocks)

    def close(self) -> None:
        """Drop the model and its cache."""
        self._shadows.clear()
        self.executor.close()

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if block tables and pool contradict each other."""
        self._pool.check_integrity([shadow.own.blocks for shadow in self._shadows.values()])

    # Parts

    def _begin(self, sequence: Sequence, count: int, kept: set[int]) -> Guess | None:
        """The guess to be made; ``None`` if the cache cannot hold the text beside those of this step, who are ``kept``."""
        shadow = self._shadows.get(sequence.sequence_id)
        if shadow is None:
            shadow = self._shadows[sequence.sequence_id] = Shadow(sequence)
        self._shadows.move_to_end(sequence.sequence_id)
        shadow.catch_up(sequence.tokens)
        own = shadow.own
        needed = self._needed(sequence, count)
        if needed > 0:
            self._make_room(needed, kept)
            if self._pool.available < needed:
                return None
            own.blocks += self._pool.allocate(needed)
        drawn = shadow.drawn
        return Guess(shadow, sequence.request.sampling, generator_of(sequence) if drawn else None, count)

    def _needed(self, sequence: Sequence, count: int) -> int:
        """Blocks that a text and ``count`` tokens behind it take besides those it has."""
        shadow = self._shadows.get(sequence.sequence_id)
        held = 0 if shadow is None else len(shadow.own.blocks)
        return -(-(len(sequence.tokens) + count) // self._pool.block_tokens) - held

    def _is_crowded_out(self, sequence: Sequence) -> bool:
        """Whether there was no room for it, and still is none beside those of the last step.

        A second look with no drafting between shows a step without any: nobody needs his room then.
        """
        if sequence.sequence_id not in self._refused:
            return False
        drafting = set() if sequence.sequence_id in self._passed_over else self._kept
        self._passed_over.add(sequence.sequence_id)
        staying = {*drafting, sequence.sequence_id}
        idle = sum(len(shadow.own.blocks) for each, shadow in self._shadows.items() if each not in staying)
        return self._needed(sequence, self._most_tokens) > self._pool.available + idle

    def _make_room(self, needed: int, kept: set[int]) -> None:
        for sequence_id in list(self._shadows):
            if self._pool.available >= needed:
                return
            if sequence_id not in kept:
                self._pool.release(self._shadows.pop(sequence_id).own.blocks)

    def _item(self, guess: Guess) -> BatchItem:
        own = guess.shadow.own
        count = min(own.uncomputed, READ_TOKENS + 1)
        return BatchItem(own, own.computed, count, emits=guess.left > 0 and count == own.uncomputed)

    def _take(self, going: list[Guess], items: list[BatchItem], best: list[int], logits: npt.NDArray[Any]) -> None:
        tokens, rows = iter(best), iter(logits)
        for guess, item in zip(going, items, strict=True):
            own = guess.shadow.own
            own.computed = item.start + item.count
            if not item.emits:
                guess.left = 0  # There is more to read, in the next step, or no guess was wanted.
                continue
            token = next(tokens)
            if guess.generator is not None:
                proposal = probabilities(next(rows)[: self._vocabulary], guess.sampling)
                token = draw(proposal, guess.generator)
                guess.rows.append(proposal.astype(np.float32))
            elif token >= self._vocabulary:
                guess.left = 0
                continue
            guess.tokens.append(token)
            own.tokens.append(token)
            guess.left -= 1
