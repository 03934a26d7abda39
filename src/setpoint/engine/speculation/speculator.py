"""What a step loop needs of speculation: what could be drafted, shown to the policy; the plan's drafts put into the batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from setpoint.engine.assembly import Assembled, Assembler
from setpoint.engine.batch import Batch, BatchItem, StepOutput, make_batch
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import NOTHING, Draft, Drafter, Outlook
from setpoint.engine.speculation.guesses import GuessCounters
from setpoint.policy.decisions import UNLIMITED, StepPlan, StepResult
from setpoint.policy.views import DraftView, Foretold

PATIENT_STEPS: Final = 6
LOOK_EVERY: Final = 4


@dataclass(slots=True)
class SpeculationCounters:
    """Totals since the start. ``accepted_per_position``: how often the first, the second, ... draft token was accepted."""

    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    accepted_per_position: list[int] = field(default_factory=list)
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0

    def verified(self, drafted: int, accepted: int) -> None:
        """One draft came back from verification."""
        self.drafts += 1
        self.draft_tokens += drafted
        self.accepted_tokens += accepted
        counts = self.accepted_per_position
        counts.extend([0] * (drafted - len(counts)))
        for position in range(accepted):
            counts[position] += 1

    def take(self, other: SpeculationCounters) -> None:
        """Add what ``other`` counted."""
        self.drafts += other.drafts
        self.draft_tokens += other.draft_tokens
        self.accepted_tokens += other.accepted_tokens
        mine, its = self.accepted_per_position, other.accepted_per_position
        mine.extend([0] * (len(its) - len(mine)))
        for position, count in enumerate(its):
            mine[position] += count
        self.draft_seconds += other.draft_seconds
        self.verify_seconds += other.verify_seconds

    @property
    def acceptance_length(self) -> float | None:
        """Tokens that a verified draft gave, the model's own included; ``None`` without drafts."""
        return None if not self.drafts else 1.0 + self.accepted_tokens / self.drafts


@dataclass(slots=True)
class Waiting:
    """A free guess behind the first ``length`` tokens of a text, of which ``told`` tokens were compared with what came."""

    length: int
    sureness: int
    guess: tuple[int, ...]
    told: int = 0


class Speculator:
    """One drafter and its bounds. ``most_running``: with more running than that nobody even looks for drafts."""

    def __init__(self, drafter: Drafter, clock: Callable[[], float], *, most_tokens: int, most_running: int) -> None:
        self.drafter = drafter
        self._clock = clock
        self._most_tokens = most_tokens
        self._most_running = most_running
        self._waiting: dict[int, Waiting] = {}
        self._idle = self._last_running = 0
        self.counters = SpeculationCounters()
        self.guesses = GuessCounters()

    def bound(self, *, most_tokens: int, most_running: int) -> None:
        """Other bounds from the next step on; with ``most_running`` 0 nobody drafts. The drafter itself stays as it is."""
        self._most_tokens = most_tokens
        self._most_running = most_running

    def view(self, running: Collection[Sequence]) -> DraftView | None:
        """What could be drafted for each of ``running``, in their order; ``None`` if nothing at all.

        Looking costs about a hundredth of a step. Where nothing was drafted for ``PATIENT_STEPS``, only every ``LOOK_EVERY``-th
        step is looked at, until something is drafted or somebody comes or goes.
        """
        if not running or len(running) > self._most_running or any(sequence.in_prefill for sequence in running):
            return None  # A step with prompts has no drafts.
        self._idle = self._idle + 1 if len(running) == self._last_running else 0
        self._last_running = len(running)
        if self._idle > PATIENT_STEPS and self._idle % LOOK_EVERY:
            return None
        outlooks = list(map(self._outlook, running))
        found = sum(each.most_tokens > 0 for each in outlooks)
        self.guesses.looked_for(len(outlooks), found)
        if not found:
            return None
        rows = [(each.most_tokens, each.sureness, each.behind_tokens, each.later_tokens) for each in outlooks]
        most, sureness, behind, later = np.array(rows, dtype=np.int64).T.copy()
        foretold: list[Foretold] = []
        for sequence, (able, sure, _, _) in zip(running, rows, strict=True):
            if able:
                self._compare(sequence, sure, foretold)
        return DraftView(most, sureness, behind, bool(self._waiting), tuple(foretold), later)

    def unlooked(self, running: int) -> int:
        """For how many steps, the one that is planned included, ``view`` is ``None`` if nobody comes, goes or is in prefill;
        to be asked after it said so."""
        if running > self._most_running:
            return UNLIMITED
        return LOOK_EVERY - self._idle % LOOK_EVERY if self._idle > PATIENT_STEPS else 1

    def passed(self, running: int, steps: int) -> None:
        """``view`` was not asked for so many steps, of those that ``unlooked`` named."""
        if running <= self._most_running:
            self._idle += steps

    def widen(self, batch: Batch, plan: StepPlan, assembler: Assembler) -> tuple[Batch, float]:
        """``batch`` with the plan's drafts in it, as far as there is room for them; and the seconds that drafting took.

        A step with prompts is left as it is.
        """
        if batch.prefill_tokens:
            return batch, 0.0
        drafted, draft_s = self.draft([i.sequence for i in batch.items if i.emits and i.count == 1], plan, assembler)
        if not drafted:
            return batch, draft_s
        items = list(batch.items)
        for place, item in enumerate(items):
            draft = drafted.get(item.sequence.sequence_id)
            if draft is not None:
                items[place] = BatchItem(item.sequence, item.start, 1 + len(draft.tokens), emits=True, draft=draft)
        return make_batch(items), draft_s

    def draft(self, decodes: Iterable[Sequence], plan: StepPlan, assembler: Assembler) -> tuple[dict[int, Draft], float]:
        """The plan's drafts for ``decodes`` by request, as far as there is room for them; and the seconds that took, with what
        the plan has read on."""
        asked: list[tuple[Sequence, int]] = []  # 0 tokens: only read on
        reads = set(plan.draft_reads)
        for sequence in decodes:
            wanted = plan.draft_tokens.get(sequence.sequence_id, 0)
            if wanted > 0:
                count = assembler.room_for_drafts(sequence, min(wanted, self._room(sequence)))
                if count > 0:
                    asked.append((sequence, count))
            elif sequence.sequence_id in reads:
                asked.append((sequence, 0))
        if not asked:
            return {}, 0.0
        self._idle = 0
        start_s = self._clock()
        drafts = self.drafter.propose(asked)
        draft_s = self._clock() - start_s
        self.counters.draft_seconds += draft_s
        drafted = {
            sequence.sequence_id: draft
            for (sequence, count), draft in zip(asked, drafts, strict=True)
            if draft is not None and count
        }
        for sequence_id in drafted:
            self._waiting.pop(sequence_id, None)  # Verification will tell.
        return drafted, draft_s

    def verified(self, result: StepResult, assembled: Assembled, output: StepOutput) -> StepResult:
        """``result`` with what became of the drafts: tokens by request counted anew, drafted and accepted ones beside them.

        Accepted tokens behind the end of an answer count as accepted: verification says nothing against them.
        """
        drafted: dict[int, int] = {}
        accepted: dict[int, int] = {}
        new_tokens = dict(result.new_tokens)
        counts = iter(output.accepted)
        for item in assembled.batch.items:
            if item.draft is not None:
                sequence, count = item.sequence, next(counts)
                drafted[sequence.sequence_id] = len(item.draft.tokens)
                accepted[sequence.sequence_id] = count
                if sequence.sequence_id in new_tokens:
                    new_tokens[sequence.sequence_id] = len(sequence.tokens) - item.start - 1
                self.counters.verified(len(item.draft.tokens), count)
                self.guesses.verified(len(item.draft.tokens), count)
        self.counters.verify_seconds += result.end_s - result.start_s
        return replace(result, new_tokens=new_tokens, drafted=drafted, accepted=accepted, draft_s=assembled.draft_s)

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""
        self._waiting.pop(sequence.sequence_id, None)
        self.drafter.forget(sequence)

    def close(self) -> None:
        """Give the drafter's memory back."""
        self.drafter.close()

    def _compare(self, sequence: Sequence, sureness: int, foretold: list[Foretold]) -> None:
        """Hold the guess that waits against the tokens that came; where none waits any more, the present one begins to."""
        waiting = self._waiting.get(sequence.sequence_id)
        while waiting is not None and waiting.length + waiting.told < sequence.length:
            stood = self._stood(sequence, waiting)
            self.guesses.compared(waiting.told, stood)
            foretold.append(Foretold(sequence.sequence_id, waiting.sureness, waiting.told, stood))
            waiting.told += 1
            if not stood or waiting.told == len(waiting.guess):
                del self._waiting[sequence.sequence_id]
                waiting = None
        if waiting is None:
            guess = self.drafter.foretell(sequence)
            if guess:
                self._waiting[sequence.sequence_id] = Waiting(sequence.length, sureness, guess)

    def _stood(self, sequence: Sequence, waiting: Waiting) -> bool:
        """Whether the next token of a waiting guess is the one that came."""
        return sequence.tokens[waiting.length + waiting.told] == waiting.guess[waiting.told]

    def _outlook(self, sequence: Sequence) -> Outlook:
        if not sequence.may_draft or sequence.in_prefill or self._room(sequence) < 1:
            return NOTHING
        return self.drafter.outlook(sequence)

    def _room(self, sequence: Sequence) -> int:
        """Longest draft that can be of use: after it the model's own token still comes."""
        return min(self._most_tokens, sequence.max_tokens - sequence.emitted - 1) if sequence.may_draft else 0
