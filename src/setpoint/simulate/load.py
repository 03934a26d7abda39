"""What is put on a simulated system: arrivals and lengths as columns, and what prompts have in common as digests of blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from setpoint.policy.views import FloatColumn, IntColumn
from setpoint.record import Phase
from setpoint.simulate.sequences import Kind

Named = Callable[[int, int], tuple[int, ...]]
"""Digests of the leading full blocks of a request's text, by its row and the tokens of a block (``simulate/naming.py``)."""


def nothing_shared(row: int, block_tokens: int) -> tuple[int, ...]:
    """No two prompts have anything in common."""
    return ()


@dataclass(frozen=True, slots=True)
class PhaseOfLoad:
    """A phase on the load's axis, ``start_s`` included, ``end_s`` not."""

    phase: Phase
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Load:
    """Requests in order of time, as columns of one length.

    sent_s: intended sends, seconds, ascending. prompt_tokens, output_tokens: lengths (at least 1); cap_tokens: what a request
    asks for at most, which is all that a policy sees of its answer (never below output_tokens). phase: index into ``phases``.
    kind: index into ``kinds``. named: what a request's text has in common with others. drain_s: how long after the last phase
    those still under way are followed. followed: of how many requests, from the first on, the ends are wanted: once they have
    come the simulation ends, whoever else is under way; ``None``: of all.
    """

    sent_s: FloatColumn
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    cap_tokens: IntColumn
    phases: tuple[PhaseOfLoad, ...]
    phase: IntColumn
    kinds: tuple[Kind, ...] = (Kind(),)
    kind: IntColumn | None = None
    named: Named = nothing_shared
    drain_s: float = float("inf")
    notes: tuple[str, ...] = field(default=())
    followed: int | None = None

    def __len__(self) -> int:
        return len(self.sent_s)

    def check(self) -> None:
        """Raise ``ValueError`` for columns that contradict each other."""
        lengths = {len(self.sent_s), len(self.prompt_tokens), len(self.output_tokens), len(self.cap_tokens), len(self.phase)}
        if len(lengths) != 1:
            raise ValueError(f"the columns of a load must have one length, found {sorted(lengths)}")
        if len(self) and (np.diff(self.sent_s) < 0).any():
            raise ValueError("requests must be in order of time")
        if len(self) and min(self.prompt_tokens.min(), self.output_tokens.min()) < 1:
            raise ValueError("prompts and answers have at least one token")
        if (self.cap_tokens < self.output_tokens).any():
            raise ValueError("an answer is longer than what its request asks for at most")
