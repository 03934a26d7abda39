"""``--trace``: what production saw, replayed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from setpoint.loop.describe import described_requirement
from setpoint.loop.errors import BadInput, first_problem
from setpoint.loop.flags import LoadFlags
from setpoint.loop.init_from import profile_of_trace
from setpoint.loop.schedule import Schedule
from setpoint.loop.shorthand import seconds
from setpoint.requirement import Arrival, ConstantSeconds, Requirement
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompt import PromptMaker
from setpoint.workload.traces import FORMATS, Trace, plan_trace, read_trace

MAX_SPEED_UP = 1_000_000.0
DEFAULT_LENGTH_S = 60.0
"""Of a trace without times, where nothing says how long."""


@dataclass(frozen=True, slots=True)
class TraceChoice:
    """A trace that was read, and how it is to be replayed.

    start_s: on the trace's own axis. arrival, think_time_s: of a trace without times; how its requests come, and the
    time between the turns of its conversations (``None``: only their first turns are asked).
    """

    path: Path
    trace: Trace
    speed_up: float
    start_s: float
    arrival: Arrival | None = None
    think_time_s: float | None = None

    @classmethod
    def read(cls, path: Path, format_: str | None, speed_up: float | None, start_s: float, load: LoadFlags) -> Self:
        """Raises ``BadInput`` naming the file and the line, or the option."""
        factor = 1.0 if speed_up is None else speed_up
        if not 0 < factor <= MAX_SPEED_UP:
            raise BadInput(f"--speed-up {speed_up}: allowed: more than 0 and at most {MAX_SPEED_UP:g}")
        if format_ is not None and format_ not in FORMATS:
            raise BadInput(f"--trace-format {format_}: allowed are {', '.join(FORMATS)}")
        try:
            trace = read_trace(path, format=format_)
        except (ValueError, OSError) as error:
            raise BadInput(f"--trace: {error}") from error
        if trace.times_s is None:
            return cls(path, trace, factor, start_s, _arrival(load), _think_time_s(load))
        for name in ("rate", "arrival", "cv", "think_time"):
            if getattr(load, name) is not None:
                raise BadInput(f"--{name.replace('_', '-')}: not together with --trace: {path} has times of its own")
        return cls(path, trace, factor, start_s)

    def length_s(self, limit_s: float | None, warmup_s: float) -> float:
        """Seconds of the sustained phase, at most ``limit_s``. Raises ``BadInput`` if nothing is left of the trace."""
        duration_s = self.trace.duration_s
        if duration_s is None:
            return DEFAULT_LENGTH_S if limit_s is None else limit_s
        left_s = (duration_s - self.start_s) / self.speed_up - warmup_s
        if left_s <= 0:
            raise BadInput(
                f"--trace {self.path}: nothing is left after --trace-start and the warm-up: it is {duration_s:g} s long, "
                f"replayed {self.speed_up:g} times as fast"
            )
        return left_s if limit_s is None else min(left_s, limit_s)

    def plan(self, schedule: Schedule, *, seed: int, make_prompt: PromptMaker, most_tokens: int | None) -> LoadPlan:
        """Its requests as a plan; what is longer than ``most_tokens`` is cut, which the plan notes. Raises ``BadInput``."""
        think = None if self.think_time_s is None else ConstantSeconds(value_s=self.think_time_s)
        try:
            return plan_trace(
                self.trace,
                seed=seed,
                speed_up=self.speed_up,
                start_s=self.start_s,
                duration_s=schedule.sustained_s,
                warmup_s=schedule.warmup_s,
                make_prompt=make_prompt,
                max_total_tokens=most_tokens,
                arrival=self.arrival,
                think_time=think,
            )
        except ValueError as error:
            raise BadInput(f"--trace: {error}") from error

    def requirement(self, base: Requirement | None, load: LoadFlags) -> Requirement:
        """``base`` (or one without limits) with a profile that describes the trace in place of its own."""
        streaming = base.profile.streaming if base is not None else True
        rate_rps = self.arrival.mean_rps if self.arrival is not None else None
        found = base or described_requirement(None, LoadFlags())
        try:
            profile = profile_of_trace(
                self.trace,
                streaming=streaming if load.streaming is None else load.streaming,
                speed_up=self.speed_up,
                rate_rps=rate_rps,
            )
            return Requirement.model_validate(
                found.model_dump() | {"profile": profile.model_dump(), "slo_burst": {}} | ({} if base else {"name": self.name})
            )
        except ValidationError as error:
            field, problem = first_problem(error)
            raise BadInput(f"--trace {self.path.name}: with this trace {field}: {problem}") from error

    @property
    def has_conversations(self) -> bool:
        """Whether turns of its conversations follow each other in the run."""
        return self.think_time_s is not None

    @property
    def name(self) -> str:
        """What to call it."""
        return self.path.stem[:100] or "trace"

    def facts(self) -> dict[str, Any]:
        """As ``record.Report.load`` has it."""
        return {"trace": self.path.name, "format": self.trace.format, "speed_up": self.speed_up, "start_s": self.start_s}


def _arrival(load: LoadFlags) -> Arrival:
    wanted = LoadFlags(rate=load.rate, arrival=load.arrival, cv=load.cv)
    return described_requirement(None, wanted).profile.arrival


def _think_time_s(load: LoadFlags) -> float | None:
    return None if load.think_time is None else seconds("think-time", load.think_time)
