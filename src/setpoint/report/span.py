"""When a phase was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """When a phase began and ended, on the axis of the request table. Its requests may end later: they drain."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not self.end_s > self.start_s:
            raise ValueError(f"a phase must end after its start, found {self.start_s:g} s to {self.end_s:g} s")

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, draining not included."""
        return self.end_s - self.start_s
