"""Conversations of several turns: what was said so far, and the request of the next turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setpoint.measure.outcome import RequestOutcome
    from setpoint.workload.plan import LoadPlan, PlannedRequest


@dataclass(frozen=True, slots=True)
class Said:
    """What one side said in one turn."""

    by_user: bool
    text: str


class Conversations:
    """The turns of each session of a plan; a turn's request holds everything said before it, answers as they came.

    Raises ``ValueError`` for sessions whose prompts are token ids: an answer is text, and could not stand between them.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self._after = {planned.follows: planned for planned in plan.requests if planned.follows is not None}
        self._said: dict[int, tuple[Said, ...]] = {}
        of_sessions = {*self._after, *(planned.index for planned in self._after.values())}
        for planned in plan.requests:
            if planned.index in of_sessions and not isinstance(planned.prompt, str):
                raise ValueError(f"plan: request {planned.index} of a session has token ids; sessions need text prompts")

    def goes_on(self, index: int) -> bool:
        """Whether a turn follows the request."""
        return index in self._after

    def before(self, planned: PlannedRequest) -> tuple[Said, ...]:
        """What was said before this turn."""
        return self._said.get(planned.index, ())

    def next_turn(self, planned: PlannedRequest, row: RequestOutcome, text: str, known_s: float) -> PlannedRequest:
        """The turn after ``planned``, which ended as ``row`` with the answer ``text``; intended when its time comes.

        That is its think time after the last token, but not before ``known_s``: when the client knew that this was the last.
        Its prompt is still what the user adds; its ``prompt_tokens`` count the whole conversation.
        """
        follower = self._after[planned.index]
        said = (Said(True, str(planned.prompt)), Said(False, text))
        self._said[follower.index] = self._said.pop(planned.index, ()) + said
        tokens = row.prompt_tokens + row.output_tokens + follower.prompt_tokens
        end_s = row.last_token_s if row.last_token_s is not None else row.ended_s
        assert end_s is not None
        return replace(follower, intended_s=max(end_s + follower.think_s, known_s), prompt_tokens=tokens)

    def lost_turns(self, planned: PlannedRequest, end_s: float) -> list[PlannedRequest]:
        """The turns after one that did not end well, each at the earliest instant that it could have been intended."""
        lost = []
        self._said.pop(planned.index, None)
        while (follower := self._after.get(planned.index)) is not None:
            end_s += follower.think_s
            planned = replace(follower, intended_s=end_s)
            lost.append(planned)
        return lost
