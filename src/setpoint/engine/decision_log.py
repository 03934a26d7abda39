"""Every decision about a request and why, kept in a bounded ring for whoever asks (``record.columns.DECISION_COLUMNS``).

Recording stores references and numbers that are at hand; names and words are made when somebody reads. What a step as a whole
was given (its prefill budget and why) is in its ``StepRecord``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from itertools import islice
from math import isfinite

from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import Reason

RING_DECISIONS = 1 << 13


class DecisionKind(StrEnum):
    """What was decided. ``END`` decides nothing; it completes a request's story (its code is the finish reason)."""

    ADMIT = "admit"
    REJECT = "reject"
    JOIN = "join"
    PREEMPT = "preempt"
    SHED = "shed"
    END = "end"


_ASKED = ("prompt_tokens", "uncached_tokens", "cap_tokens", "request_class", "tenant", "waiting", "running")
FACTS: Mapping[DecisionKind, tuple[str, ...]] = {
    DecisionKind.ADMIT: _ASKED,
    DecisionKind.REJECT: (*_ASKED, "retry_after_s"),
    DecisionKind.JOIN: ("waited_s", "left_s", "waiting", "cached_tokens", "preemptions"),
    DecisionKind.PREEMPT: ("lost_tokens", "running"),
    DecisionKind.SHED: ("retry_after_s",),
    DecisionKind.END: ("output_tokens", "preemptions", "first_token_after_s"),
}
"""Names of the numbers that the engine puts beside the operands of the policy's reason, by kind."""


# Number, moment, step, kind, request, other request, code, the policy's operands, the engine's facts. A plain tuple of plain
# values: the garbage collector stops looking at it, so that a full ring does not slow the engine's steps.
_Entry = tuple[int, float, int, str, str, str, str, Mapping[str, float], tuple[float | None, ...]]
_ADMIT, _REJECT, _JOIN, _PREEMPT, _SHED, _END = (kind.value for kind in DecisionKind)
_FACTS = {kind.value: names for kind, names in FACTS.items()}
_NOTHING: Mapping[str, float] = {}


class DecisionLog:
    """The newest ``most`` decisions; ``total`` were made since the start. Moments are on the engine's clock."""

    def __init__(self, most: int = RING_DECISIONS) -> None:
        self._entries: deque[_Entry] = deque(maxlen=most)
        self.total = 0

    def asked(
        self,
        sequence: Sequence,
        reason: Reason,
        *,
        step: int,
        waiting: int,
        running: int,
        retry_after_s: float | None = None,
    ) -> None:
        """A request was admitted, or, with ``retry_after_s``, refused; ``waiting`` and ``running`` without it."""
        facts = (
            sequence.prompt_tokens,
            sequence.uncached_tokens,
            sequence.max_tokens,
            sequence.request.request_class,
            sequence.tenant,
            waiting,
            running,
        )
        if retry_after_s is None:
            self._add(sequence.arrived_s, step, _ADMIT, sequence, reason.code, reason.operands, facts)
        else:
            self._add(sequence.arrived_s, step, _REJECT, sequence, reason.code, reason.operands, (*facts, retry_after_s))

    def joined(self, sequence: Sequence, rule: str, *, now_s: float, step: int, waiting: int) -> None:
        """A request got a place by ``rule`` of the order; so many still wait. ``left_s``: seconds to its next deadline."""
        facts = (now_s - sequence.arrived_s, sequence.deadline_s - now_s, waiting, sequence.computed, sequence.preemptions)
        self._add(now_s, step, _JOIN, sequence, rule, _NOTHING, facts)

    def preempted(self, sequence: Sequence, rule: str, *, now_s: float, step: int, running: int) -> None:
        """A request, chosen by ``rule``, lost its blocks to ``sequence.preempted_for``; its tokens are to be computed again."""
        facts = (len(sequence.tokens), running)
        self._add(now_s, step, _PREEMPT, sequence, rule, _NOTHING, facts, other=sequence.preempted_for)

    def shed(self, sequence: Sequence, reason: Reason, *, now_s: float, step: int, retry_after_s: float) -> None:
        """A waiting request was ended."""
        self._add(now_s, step, _SHED, sequence, reason.code, reason.operands, (retry_after_s,))

    def ended(self, sequence: Sequence, finish: str, *, now_s: float, step: int) -> None:
        """A request is over; ``step`` is the last one it was in."""
        first_s = sequence.first_token_s
        facts = (sequence.emitted, sequence.preemptions, None if first_s is None else first_s - sequence.arrived_s)
        self._add(now_s, step, _END, sequence, finish, _NOTHING, facts)

    def columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        """Decisions numbered ``since`` and later as columns (``record.columns.DECISION_COLUMNS``), and the next number."""
        kept = list(self._entries)
        total = kept[-1][0] + 1 if kept else 0
        chosen = list(islice(kept, max(0, since - (total - len(kept))), None))
        names = ("decision", "time_s", "step", "kind", "request_id", "other_id", "code")
        columns: dict[str, list[object]] = {name: [entry[place] for entry in chosen] for place, name in enumerate(names)}
        for name in ("request_id", "other_id"):
            columns[name] = [value or None for value in columns[name]]
        return columns | {"operands": [_operands(entry) for entry in chosen]}, total

    def _add(
        self,
        time_s: float,
        step: int,
        kind: str,
        sequence: Sequence,
        code: str,
        operands: Mapping[str, float],
        facts: tuple[float | None, ...],
        *,
        other: str = "",
    ) -> None:
        self._entries.append((self.total, time_s, step, kind, sequence.request.name, other, code, operands, facts))
        self.total += 1


def _operands(entry: _Entry) -> dict[str, float]:
    """The policy's operands and the engine's facts; what is not a finite number says nothing and is left out."""
    *_, kind, _, _, _, operands, facts = entry
    told = {name: value for name, value in zip(_FACTS[kind], facts, strict=True) if value is not None}
    return {name: float(value) for name, value in {**operands, **told}.items() if isfinite(value)}
