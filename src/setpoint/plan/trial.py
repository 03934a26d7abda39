"""One trial of the search: a replica under a share of the load, and what every limit came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from setpoint.plan.curve import CurvePoint, Floats
from setpoint.plan.topology import Serving, Shape
from setpoint.record import Predicted, SloReport


@dataclass(frozen=True, slots=True)
class Job:
    """What to simulate: one replica at ``rate_rps``, ``requests`` of them measured after ``warmup_requests``.

    full: whether figures and checks are wanted besides the excesses. answer_s: about how long an answer takes there, by which
    turns of a conversation follow each other. cool_down_s: how long requests go on arriving after those that are measured, so
    that these do not decode in a replica that empties.
    """

    shape: Shape
    serving: Serving
    rate_rps: float
    requests: int
    warmup_requests: int
    seed: int
    full: bool = False
    answer_s: float = 0.0
    cool_down_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What a job came to. ``excess`` has shape [limits, stretches] (``curve``); ``latency_s`` is that of ``latency``.

    ``predicted`` and ``slo``: of a full one.
    """

    job: Job
    excess: Floats
    latency_s: float
    predicted: Predicted | None = None
    slo: SloReport | None = None

    @property
    def worst(self) -> float:
        """The largest excess, time as predicted."""
        return float(self.excess[:, self.excess.shape[1] // 2].max()) if self.excess.size else 0.0

    @property
    def point(self) -> CurvePoint:
        """As a point of the load curve."""
        return CurvePoint(self.job.rate_rps, self.excess)


class Runner(Protocol):
    """Runs jobs, several at once where it can."""

    def run(self, jobs: Sequence[Job], done: Callable[[int], None]) -> list[Trial]:
        """The trials in the order of the jobs, always the same for the same jobs; ``done`` hears how many there are."""
        ...
