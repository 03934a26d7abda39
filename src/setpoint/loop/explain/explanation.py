"""What ``setpoint explain`` finds, as data: the same for the terminal and for ``--json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """Whether a policy did anything: it did, it could have but nothing called for it, it could not, or nobody knows."""

    FIRED = "fired"
    IDLE = "idle"
    IMPOSSIBLE = "impossible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Example:
    """One request of a group, in words."""

    request_id: str
    words: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Requests that ended the same way for the same reason. ``typical``: medians of what is known of them, by name.

    Names that end in ``_s`` are seconds, the others counts. outcome: a class of ``record.RequestClass``
    other than ``ok``. share: of all offered requests of the phases explained.
    """

    outcome: str
    code: str
    words: str
    count: int
    share: float
    typical: dict[str, float] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PolicyFinding:
    """One policy: how often it fired, and how near it came or why it could not."""

    name: str
    status: Status
    fired: int
    words: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One world: the run as it was measured, or a replay of its arrivals. Waiting is over time; ``None`` where unknown."""

    name: str
    words: str
    offered: int
    ok: int
    shed: int
    late: int
    unfinished: int
    waiting_p50: float | None
    waiting_p99: float | None
    waiting_max: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p99_s: float | None
    goodput_fraction: float | None


@dataclass(frozen=True, slots=True)
class Trust:
    """How well the replay under the run's own configuration matches what was measured.

    same_class: share of requests that end in the same class in both. step_error: median ``|predicted / measured - 1|`` of the
    fitted step times. words: what that means.
    """

    same_class: float
    goodput_difference: float
    ttft_p50_ratio: float | None
    step_error: float
    steps: int
    words: str


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The run beside replays of its arrivals: under its own configuration first, then without what the policy does."""

    trust: Trust
    measured: Figures
    replays: list[Figures]
    assumptions: list[str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The three answers. ``cannot``: what this run does not allow to be said, and why."""

    run: str
    candidate: str
    configuration: str
    phases: list[str]
    offered: int
    classes: dict[str, int]
    causes: list[Cause]
    policies: list[PolicyFinding]
    without: Counterfactual | None
    cannot: list[str]

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a request, ``at_s`` after the run began."""

    at_s: float | None
    words: str


@dataclass(frozen=True, slots=True)
class Story:
    """One request from its arrival to its end, and in a sentence what became of it."""

    run: str
    candidate: str
    request_id: str
    outcome: str
    verdict: str
    moments: list[Moment]

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)
