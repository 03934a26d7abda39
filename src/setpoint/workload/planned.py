"""What a plan is: the phases of a run, and every request with its time, prompt and limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from setpoint.record import Phase


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request of a plan.

    index: position in the plan. intended_s: when it is to be sent, on the time axis of the plan (0 is its start).
    prompt: text or token ids. prompt_tokens: how many tokens it has. max_tokens: how many the answer is to have.
    session, turn: which conversation it belongs to (``None``: none), and its place in it, from 0.
    follows: index of the turn before, always smaller than its own; ``None`` for a first turn. A turn that follows is
    intended ``think_s`` after the last token of the turn before, or when that is known to be the last, if that is later; its
    ``intended_s`` and ``phase`` are those of the earliest time that can be. Its prompt is what the user adds to the
    conversation, and so are its ``prompt_tokens``.
    profile: name of the profile of a mix that it was drawn from, empty where there is only one.
    """

    index: int
    intended_s: float
    phase: Phase
    prompt: str | tuple[int, ...]
    prompt_tokens: int
    max_tokens: int
    session: str | None = None
    turn: int = 0
    follows: int | None = None
    think_s: float = 0.0
    profile: str = ""


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase on the time axis of the plan, ``start_s`` included, ``end_s`` not. A burst may occur several times."""

    phase: Phase
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length of the phase."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class LoadPlan:
    """Every request of a run in the order of sending, and the phases back to back on one time axis.

    prompt_tokens_exact: whether the prompt tokens were counted with the tokenizer (otherwise they are estimates).
    notes: what a reader of the figures should know of how the plan came about, one sentence each.
    concurrency: ``None`` for an open loop, where ``intended_s`` says when a request is sent. A closed loop has so many
    slots: each takes the next request in order of index that no other took (``intended_s`` is 0 and says nothing), and
    with a session its turns to the end, think times included, before it takes another.

    What comes to be intended only in the run (turns that follow, every request of a closed loop) belongs to the phase
    in whose span that instant lies, and is neither sent nor counted as offered if it lies after the last phase. The
    exception is a closed loop by number of requests: its spans have no length (``by_time`` is false), every request is
    sent, keeps the phase that the plan says, and the spans are what the run makes them.
    """

    seed: int
    phases: list[PhaseSpan]
    requests: list[PlannedRequest]
    prompt_tokens_exact: bool
    concurrency: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """From the start to the end of the last phase."""
        return self.phases[-1].end_s

    @property
    def by_time(self) -> bool:
        """Whether time ends the phases; otherwise their requests do (a closed loop by number of requests)."""
        return self.duration_s > 0

    @cached_property
    def offered(self) -> dict[Phase, int]:
        """How many requests each phase intends to send."""
        counts = dict.fromkeys((span.phase for span in self.phases), 0)
        for request in self.requests:
            counts[request.phase] += 1
        return counts


def largest_context_tokens(requests: Iterable[PlannedRequest]) -> int:
    """Most tokens, prompt and answer together, that a request of the plan can come to, 0 for none.

    A turn of a session has everything before it in its prompt; what a chat template adds is not known here.
    """
    context_tokens: dict[int, int] = {}
    for request in requests:
        before = 0 if request.follows is None else context_tokens[request.follows]
        context_tokens[request.index] = before + request.prompt_tokens + request.max_tokens
    return max(context_tokens.values(), default=0)
