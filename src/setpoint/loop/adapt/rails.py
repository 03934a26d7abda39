"""What a server that changes itself may do at most."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from setpoint.loop.adapt.effect import LOOKS
from setpoint.policy.configuration import BatchingMode, ServingConfig


@dataclass(frozen=True, slots=True)
class Bounds:
    """Configurations that may be served: modes, and from least to most of each number, both included."""

    modes: tuple[BatchingMode, ...] = (BatchingMode.CONTINUOUS, BatchingMode.SETPOINT)
    max_running: tuple[int, int] = (1, 64)
    token_budget: tuple[int, int] = (32, 2048)

    def allow(self, config: ServingConfig) -> bool:
        """Whether ``config`` may be served."""
        running, budget = self.max_running, self.token_budget
        inside = running[0] <= config.max_running <= running[1] and budget[0] <= config.token_budget <= budget[1]
        return inside and config.mode in self.modes

    def around(self, config: ServingConfig) -> Bounds:
        """These, and what ``config`` has: whatever was chosen by hand is allowed."""
        modes = self.modes if config.mode in self.modes else (*self.modes, config.mode)
        return Bounds(modes, _with(self.max_running, config.max_running), _with(self.token_budget, config.token_budget))


def _with(span: tuple[int, int], value: int) -> tuple[int, int]:
    return min(span[0], value), max(span[1], value)


@dataclass(frozen=True, slots=True)
class Rails:
    """Limits of the loop; the defaults are for requests that take seconds.

    look_s: how often records are read. false_alarms_per_hour: bound on drifts reported where there is none (``drift.py``).
    dwell_s: least time between two changes. most_changes_per_hour: rollbacks count, but are never held up. least_gain: of the
    share of good requests, below which nothing is changed; a gain must also exceed its own uncertainty. settle_s: after a
    change, before what arrives is counted as its effect. trial_s, most_trial_s, trial_requests: how long and by how many
    requests an effect is measured. forget_s: how long what was rolled back is not tried again. gather_s,
    gather_requests: how long after a drift, or until how many answers, the new traffic is watched before it is planned for.
    replan_s: least time between plans that no drift asked for. periodic_s: a plan though nothing happened. plan_cpu_s,
    plan_wall_s: seconds of one plan; cpu_share: of one core, on average, in plans that no drift asked for.
    """

    bounds: Bounds = field(default_factory=Bounds)
    look_s: float = 2.0
    false_alarms_per_hour: float = 0.05
    dwell_s: float = 20.0
    most_changes_per_hour: int = 12
    least_gain: float = 0.03
    settle_s: float = 10.0
    trial_s: float = 30.0
    most_trial_s: float = 180.0
    trial_requests: int = 20
    forget_s: float = 1800.0
    gather_s: float = 8.0
    gather_requests: int = 16
    replan_s: float = 60.0
    periodic_s: float = 900.0
    plan_cpu_s: float = 8.0
    plan_wall_s: float = 30.0
    cpu_share: float = 0.05

    @property
    def verdicts_s(self) -> tuple[float, ...]:
        """Seconds after a change at which its effect is judged: few, for each look may err (``effect.LOOKS``)."""
        first_s = self.settle_s + self.trial_s
        between_s = max(0.0, self.most_trial_s - first_s) / (LOOKS - 1)
        return tuple(first_s + between_s * look for look in range(LOOKS))

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"{each.name} is {value}; it must be above 0")


def largest_shapes(config: ServingConfig, rails: Rails) -> ServingConfig:
    """The steps that may come to be made: what the warm-up runs, so that the first of a kind pays for nothing."""
    bounds = rails.bounds.around(config)
    return config.model_copy(update={"max_running": bounds.max_running[1], "token_budget": bounds.token_budget[1]})
