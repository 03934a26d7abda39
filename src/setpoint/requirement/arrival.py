"""How requests arrive when nobody waits for answers (open loop): the process, its rates, and the burst after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Self

from pydantic import Field

from setpoint.requirement.part import Fault, Part

MAX_RATE_RPS = 100_000.0
MAX_PATTERN_S = 86_400.0
MAX_STEPS = 1_000
MIN_PATTERN_S = 0.001


class ArrivalProcess(StrEnum):
    """How requests follow each other.

    ``constant``, ``poisson`` and ``gamma`` have one rate; ``ramp``, ``step`` and ``on_off`` are Poisson arrivals whose rate
    changes with the time since the phase began.
    """

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"
    RAMP = "ramp"
    STEP = "step"
    ON_OFF = "on_off"


STATIONARY = (ArrivalProcess.CONSTANT, ArrivalProcess.POISSON, ArrivalProcess.GAMMA)
"""Processes whose rate does not change."""


class Step(Part):
    """A rate and how long it lasts."""

    rate_rps: float = Field(ge=0, le=MAX_RATE_RPS)
    duration_s: float = Field(ge=MIN_PATTERN_S, le=MAX_PATTERN_S)


ARRIVAL_KEYS = {"rate_rps": "rate", "to_rps": "to", "on_s": "on", "off_s": "off", "off_rate_rps": "off_rate"}
"""How fields of ``Arrival`` are spelt in YAML where that differs."""

_OWNER = {
    "cv": ArrivalProcess.GAMMA,
    "to_rps": ArrivalProcess.RAMP,
    "steps": ArrivalProcess.STEP,
    "on_s": ArrivalProcess.ON_OFF,
    "off_s": ArrivalProcess.ON_OFF,
    "off_rate_rps": ArrivalProcess.ON_OFF,
}
_NEEDED = {
    ArrivalProcess.RAMP: {"to_rps": "to: 10/s"},
    ArrivalProcess.STEP: {"steps": "steps: [{rate: 2/s, duration: 30s}, {rate: 4/s, duration: 30s}]"},
    ArrivalProcess.ON_OFF: {"on_s": "on: 5s", "off_s": "off: 15s"},
}


class Arrival(Part):
    """Arrivals of the sustained phase, in requests per second.

    rate_rps: the rate; of a ramp the one it begins with, of ``on_off`` the one while it is on, of ``step`` the mean.
    cv: coefficient of variation of the gaps (gamma only). to_rps: the rate a ramp ends with, at the end of the phase.
    steps: of ``step``; they begin again when they are through. on_s, off_s, off_rate_rps: how long ``on_off`` is on, how
    long it is off, and the rate while it is off; it begins with being on.
    """

    process: ArrivalProcess = ArrivalProcess.POISSON
    rate_rps: float = Field(gt=0, le=MAX_RATE_RPS)
    cv: float = Field(default=1.0, gt=0, le=100)
    to_rps: float | None = Field(default=None, gt=0, le=MAX_RATE_RPS)
    steps: tuple[Step, ...] = Field(default=(), max_length=MAX_STEPS)
    on_s: float | None = Field(default=None, ge=MIN_PATTERN_S, le=MAX_PATTERN_S)
    off_s: float | None = Field(default=None, ge=MIN_PATTERN_S, le=MAX_PATTERN_S)
    off_rate_rps: float = Field(default=0.0, ge=0, le=MAX_RATE_RPS)

    @classmethod
    def stepped(cls, steps: Iterable[Step]) -> Self:
        """Arrivals with these steps, which must have a rate above 0 among them."""
        every = tuple(steps)
        return cls(process=ArrivalProcess.STEP, rate_rps=_mean_rps(every), steps=every)

    @property
    def mean_rps(self) -> float:
        """Requests per second on average over the phase, or over whole patterns of it."""
        if self.process is ArrivalProcess.RAMP and self.to_rps is not None:
            return (self.rate_rps + self.to_rps) / 2
        if self.process is ArrivalProcess.ON_OFF:
            return _mean_rps(self.pattern)
        return self.rate_rps

    @property
    def peak_rps(self) -> float:
        """The highest rate there is."""
        return max((self.rate_rps, self.to_rps or 0.0, *(step.rate_rps for step in self.steps)))

    @property
    def calm_rps(self) -> float:
        """The rate of warm-up and recovery: that with which the phase begins, for ``on_off`` the mean."""
        if self.process is ArrivalProcess.STEP:
            return next(step.rate_rps for step in self.steps if step.rate_rps > 0)
        return self.mean_rps if self.process is ArrivalProcess.ON_OFF else self.rate_rps

    @property
    def pattern(self) -> tuple[Step, ...]:
        """The steps that repeat, for ``step`` and ``on_off``; empty for the others."""
        if self.on_s is None or self.off_s is None:
            return self.steps
        on = Step(rate_rps=self.rate_rps, duration_s=self.on_s)
        return on, Step(rate_rps=self.off_rate_rps, duration_s=self.off_s)

    @property
    def pattern_s(self) -> float | None:
        """How long the pattern is that repeats, ``None`` where nothing does."""
        return sum(step.duration_s for step in self.pattern) or None

    def at_mean(self, mean_rps: float) -> Self:
        """The same arrivals, every rate changed by the factor that makes the mean ``mean_rps``.

        Raises ``ValueError`` if a rate comes to more than ``MAX_RATE_RPS``, or to nothing.
        """
        factor = mean_rps / self.mean_rps
        steps = tuple(Step(rate_rps=step.rate_rps * factor, duration_s=step.duration_s) for step in self.steps)
        changes = {
            "rate_rps": _mean_rps(steps) if steps else self.rate_rps * factor,
            "to_rps": None if self.to_rps is None else self.to_rps * factor,
            "off_rate_rps": self.off_rate_rps * factor,
            "steps": steps,
        }
        return type(self).model_validate(self.model_dump() | changes)

    def at_pattern(self, pattern_s: float) -> Self:
        """The same rates in a pattern of ``pattern_s`` seconds, each of its steps so much shorter or longer.

        No step gets shorter than ``MIN_PATTERN_S``. Raises ``ValueError`` where nothing repeats, or if one gets too long.
        """
        if self.pattern_s is None:
            raise ValueError(f"{self.process.value} arrivals have no pattern")
        factor = pattern_s / self.pattern_s

        def scaled(seconds: float) -> float:
            return max(MIN_PATTERN_S, seconds * factor)

        steps = tuple(Step(rate_rps=step.rate_rps, duration_s=scaled(step.duration_s)) for step in self.steps)
        changes = {
            "rate_rps": _mean_rps(steps) if steps else self.rate_rps,
            "on_s": None if self.on_s is None else scaled(self.on_s),
            "off_s": None if self.off_s is None else scaled(self.off_s),
            "steps": steps,
        }
        return type(self).model_validate(self.model_dump() | changes)

    def faults(self) -> Iterator[Fault]:
        """Every process has its own fields, and only those."""
        given = {name for name in _OWNER if getattr(self, name) != type(self).model_fields[name].default}
        for name in sorted(given):
            if self.process is not _OWNER[name]:
                key = ARRIVAL_KEYS.get(name, name)
                owner = _OWNER[name].value
                yield Fault((key,), f"no {key} with {self.process.value} arrivals; write process: {owner} to choose it")
        for name, example in _NEEDED.get(self.process, {}).items():
            if name not in given:
                yield Fault(
                    (ARRIVAL_KEYS.get(name, name),), f"this key is required with {self.process.value}, such as {example}"
                )
        if self.process is ArrivalProcess.ON_OFF and self.off_rate_rps > self.rate_rps:
            yield Fault(("off_rate",), f"at most the rate while it is on ({self.rate_rps:g}/s)")
        if self.process is ArrivalProcess.STEP and self.steps:
            mean_rps = _mean_rps(self.steps)
            if mean_rps == 0:
                yield Fault(("steps",), "at least one step with a rate above 0")
            elif abs(self.rate_rps - mean_rps) > 1e-6 * mean_rps:
                yield Fault(("rate",), f"no rate beside steps, which have their own ({mean_rps:g}/s on average)")


class Burst(Part):
    """A burst on top of the sustained load: total rate while it lasts, and how long."""

    rate_rps: float = Field(gt=0, le=MAX_RATE_RPS)
    duration_s: float = Field(gt=0, le=MAX_PATTERN_S)


def _mean_rps(steps: tuple[Step, ...]) -> float:
    duration_s = sum(step.duration_s for step in steps)
    return sum(step.rate_rps * step.duration_s for step in steps) / duration_s if duration_s else 0.0
