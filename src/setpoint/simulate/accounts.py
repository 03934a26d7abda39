"""The account of each request: its moments, its gaps, its line in the ledger.

A stream that decodes gets a token at the end of every step, so nothing is written down for it until that ends (``follows``):
its gaps are those of the steps since. Tokens that follow no other (the first, the first after a preemption) are told singly.
"""

from __future__ import annotations

from itertools import repeat
from operator import add, sub

from setpoint.simulate.gaps import GapAccount
from setpoint.simulate.ledger import Ending, Ledger
from setpoint.simulate.sequences import SimulatedSequence


class Accounts:
    """Over one engine's gaps and everybody's ledger. streams: of each phase, those whose last token came with the last step."""

    def __init__(self, ledger: Ledger, gaps: GapAccount, phases: int) -> None:
        self.ledger, self.gaps = ledger, gaps
        self.streams = [0] * phases

    def single_token(self, sequence: SimulatedSequence, now_s: float, step: int) -> None:
        """A token that does not follow one of the step before; ``step`` is the number of the step it came with."""
        streaming = sequence.request.streaming
        if sequence.first_token_s is None:
            sequence.first_token_s = self.ledger.first_s[sequence.row] = now_s
        elif streaming:
            gap_s = now_s - float(self.ledger.last_s[sequence.row])
            self.gaps.one(gap_s, sequence.phase)
            sequence.own_gap_s = max(sequence.own_gap_s, gap_s)
            late = [gap_s > limit_s for limit_s in self.gaps.limits_s]
            sequence.own_late = tuple(map(add, sequence.own_late or repeat(0), late))
        self.gaps.emitted_at(now_s)
        sequence.follows = True
        sequence.gaps_from, sequence.late_from = step, tuple(self.gaps.late)
        self.streams[sequence.phase] += streaming

    def leaves(self, sequence: SimulatedSequence, last_end_s: float) -> None:
        """``sequence`` runs no more; its last token, if it follows, came at ``last_end_s``."""
        if sequence.follows:
            self.fold(sequence, last_end_s)
            sequence.follows = False
            self.streams[sequence.phase] -= sequence.request.streaming

    def fold(self, sequence: SimulatedSequence, last_end_s: float) -> None:
        """Take the gaps since the last single token of a request that follows into its own account."""
        self.ledger.last_s[sequence.row] = sequence.last_token_s = last_end_s
        if sequence.request.streaming:
            sequence.own_gap_s = max(sequence.own_gap_s, self.gaps.most.after(sequence.gaps_from))
            since = map(sub, self.gaps.late, sequence.late_from)
            sequence.own_late = tuple(map(add, sequence.own_late or repeat(0), since))

    def note(self, sequence: SimulatedSequence, ending: Ending, now_s: float) -> None:
        """The ledger's line."""
        ledger, row = self.ledger, sequence.row
        ledger.ending[row], ledger.ended_s[row] = ending, now_s
        if sequence.first_scheduled_s is not None:
            ledger.joined_s[row] = sequence.first_scheduled_s
        ledger.tokens[row] = sequence.emitted
        ledger.cached_tokens[row], ledger.preemptions[row] = sequence.cached_tokens, sequence.preemptions
        if sequence.request.streaming and sequence.emitted > 1:
            ledger.gap_s[row] = sequence.own_gap_s
            for place, count in enumerate(sequence.own_late):
                ledger.late_gaps[place, row] = count
