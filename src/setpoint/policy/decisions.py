"""What a policy may decide. Every decision is data and carries its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from setpoint.policy.views import RequestView, StepView, SystemView

UNLIMITED = 1 << 40


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a code with its operands; ``str()`` puts it into words, only when somebody reads it."""

    code: str
    operands: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.code, *(f"{name}={value:.4g}" for name, value in self.operands.items())])


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may wait."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Reject:
    """The request may not wait. ``retry_after_s`` is when asking again is expected to succeed."""

    reason: Reason
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How the next step is to be made up.

    order: ids of waiting requests that may join and of running requests still in prefill, first to be served first; an
    id not listed is not prefilled in this step. Running requests that decode take part in any case.
    prefill_budget_tokens: most prompt tokens in the step. max_running: most requests running at once.
    draft_tokens: draft length by request id (absent: 0). draft_reads: requests without a draft whose text the drafter reads on.
    shed: waiting requests to end now; shed_retry_after_s: when each of them may ask again; shed_reasons: why each of
    them.
    preempt_order: running ids, first to lose its blocks first. wake_at_s: when to ask again though nothing arrives.
    valid_for_steps: how many steps the plan stands if nothing changes (at least 1).
    order_rule, preempt_rule: codes of the rules that made ``order`` and ``preempt_order`` (docs/explain.md lists them).
    """

    order: tuple[int, ...]
    prefill_budget_tokens: int
    max_running: int
    reason: Reason
    draft_tokens: Mapping[int, int] = field(default_factory=dict)
    shed: tuple[int, ...] = ()
    shed_retry_after_s: Mapping[int, float] = field(default_factory=dict)
    preempt_order: tuple[int, ...] = ()
    wake_at_s: float | None = None
    valid_for_steps: int = 1
    order_rule: str = "arrival"
    preempt_rule: str = "newest"
    shed_reasons: Mapping[int, Reason] = field(default_factory=dict)
    draft_reads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepWork:
    """What a step computed, as the step-time model sees it.

    tokens: new tokens in the step (prefill and decode). sequences: requests in it. kv_tokens_read: context tokens read
    by attention, summed over requests. attention_products: sum over requests of chunk x context.
    """

    tokens: int
    sequences: int
    kv_tokens_read: int
    attention_products: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did: measured seconds, the work, tokens emitted per request, who finished.

    stopped: of those, whose answer had ended before, by a stop string in its text; they have no new token. drafted, accepted:
    draft tokens verified and accepted, by request; ``drafted`` names everybody who had a draft.
    draft_s: seconds that drafting took before ``start_s``, also where nobody had a draft because the drafter only read.
    """

    start_s: float
    end_s: float
    work: StepWork
    new_tokens: Mapping[int, int]
    finished: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()
    accepted: Mapping[int, int] = field(default_factory=dict)
    drafted: Mapping[int, int] = field(default_factory=dict)
    draft_s: float = 0.0


class Policy(Protocol):
    """A deterministic state machine that changes only through these three calls."""

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """Whether the request may wait at all."""
        ...

    def plan(self, step: StepView) -> StepPlan:
        """How to make up the next step."""
        ...

    def observe(self, result: StepResult) -> None:
        """Feedback: what a step really took and gave."""
        ...
