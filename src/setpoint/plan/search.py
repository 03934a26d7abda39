"""Successive halving over serving configurations, then the load curves of the best of each hardware.

1. **Sift**: every configuration of a shape is simulated briefly at one load, a share of what the shape could carry at most; the
   ``KEPT_SHARE`` with the least excess go on. Bounds (``fluid``) drop what cannot be among them.
2. **Knee**: for those the load is moved up or down ``KNEE_ROUNDS`` times, longer each time, until the knee is bracketed; the best of
   each hardware go on: the most load per dollar, and the best of the other scheduler beside it.
3. **Curve**: those are simulated at loads around the knee and at the share of the offered load that so many replicas would get,
   with as many requests as the tightest percentile takes.

The same seed everywhere: all configurations see the same requests, only closer or farther apart, so that differences between
them are not of the draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from setpoint.plan.curve import LoadCurve
from setpoint.plan.fluid import Timer, at_load, capacity
from setpoint.plan.economy import Goal, most_replicas
from setpoint.plan.limits import Limit
from setpoint.plan.shadow import Bounds
from setpoint.plan.sketch import LoadSketch
from setpoint.plan.topology import Serving, Shape
from setpoint.plan.trial import Job, Runner, Trial
from setpoint.policy.configuration import BatchingMode

SIFT_LOAD, SIFT_REQUESTS = 0.75, 150
KEPT_SHARE, LEAST_KEPT, MOST_KEPT = 0.34, 2, 5
KNEE_ROUNDS, KNEE_REQUESTS = 3, 250
CURVE_LOADS = (0.25, 0.5, 0.7, 0.85, 1.0, 1.15, 1.35, 1.7)
FINALISTS = 2
TAIL_SAMPLES, LEAST_REQUESTS, MOST_REQUESTS = 30, 400, 4000
WARMUP_BATCHES, MOST_WARMUP = 1.5, 3000
NEARLY_IDLE = 0.02
LATE_S = 1e6
CALM_LOAD = 0.25

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Arm:
    """A configuration on a shape and what is known of it; ``knee_rps`` is a guess until its curve is there."""

    shape: Shape
    serving: Serving
    timer: Timer
    capacity_rps: float
    trials: dict[float, Trial] = field(default_factory=dict)

    @property
    def knee_rps(self) -> float:
        """The largest load that held, else half of the smallest that did not; 0 without a trial."""
        held = [rate for rate, trial in self.trials.items() if trial.worst <= 1.0]
        missed = [rate for rate, trial in self.trials.items() if trial.worst > 1.0]
        if held and missed and min(missed) > max(held):
            return _between(self.trials[max(held)], self.trials[min(missed)])
        if held:
            return max(held)
        return min(missed) / 2 / min(4.0, self.trials[min(missed)].worst) if missed else 0.0

    @property
    def excess(self) -> float:
        """The least excess seen."""
        return min((trial.worst for trial in self.trials.values()), default=math.inf)

    def latency_at(self, rate_rps: float) -> float:
        """The latency that candidates are compared by, at a load between those simulated; ``nan`` without a trial."""
        rates = sorted(self.trials)
        if not rates:
            return math.nan
        latencies = [min(self.trials[rate].latency_s, LATE_S) for rate in rates]
        return float(np.interp(rate_rps, rates, latencies))

    def curve(self, limits: int) -> LoadCurve:
        """The load curve from all trials."""
        return LoadCurve([trial.point for trial in self.trials.values()], limits)


def requests_for(limits: Sequence[Limit]) -> int:
    """How many requests the tightest percentile takes: ``TAIL_SAMPLES`` beyond it."""
    shares = [1.0 - limit.percent / 100.0 for limit in limits if limit.percent is not None]
    shares += [1.0 - limit.limit for limit in limits if limit.metric == "goodput_fraction"]
    shares += [0.01 for limit in limits if limit.metric == "spread"]
    tightest = min((share for share in shares if share > 0), default=0.05)
    return min(MOST_REQUESTS, max(LEAST_REQUESTS, math.ceil(TAIL_SAMPLES / tightest)))


@dataclass(slots=True)
class Search:
    """The search over ``arms``. ``load``: the profile in a few numbers; ``load_rps``: the load of all replicas together."""

    runner: Runner
    limits: tuple[Limit, ...]
    load: LoadSketch
    load_rps: float
    seed: int
    progress: Progress = lambda stage, done, total: None
    goal: Goal = Goal.COST
    bounds: Bounds = field(default_factory=Bounds)
    simulations: int = 0

    def arms(self, shapes: Sequence[tuple[Shape, Timer]], servings: Callable[[Shape], Sequence[Serving]]) -> list[Arm]:
        """One arm a configuration, without those that would decide as another does."""
        found = []
        for shape, timer in shapes:
            seen: set[tuple[object, ...]] = set()
            for serving in servings(shape):
                most = capacity(timer, self.load, serving, shape.kv_tokens)
                config = serving.config
                room = shape.kv_tokens / self.load.mean_resident
                same = (serving.scheduler, config.mode, config.token_budget, min(config.max_running, math.ceil(room * 1.5)))
                if same not in seen:
                    seen.add(same)
                    found.append(Arm(shape, serving, timer, most.rate_rps))
        return found

    def run(self, arms: Sequence[Arm]) -> list[Arm]:
        """The finalists of each hardware, their curves simulated."""
        kept = self._sift(arms)
        self._find_knees(kept)
        finalists = self._finalists(kept)
        self._draw_curves(finalists)
        return finalists

    def _sift(self, arms: Sequence[Arm]) -> list[Arm]:
        jobs = []
        for shape_arms in _by_shape(arms):
            rate_rps = self._sift_rps(shape_arms)
            jobs += [(arm, rate_rps, SIFT_REQUESTS) for arm in shape_arms if arm.capacity_rps > NEARLY_IDLE * rate_rps]
        self._simulate("configurations", jobs)
        kept = []
        for shape_arms in _by_shape(arms):
            tried = _distinct(sorted((arm for arm in shape_arms if arm.trials), key=self._sifted))
            most = min(MOST_KEPT, max(LEAST_KEPT, math.ceil(KEPT_SHARE * len(tried))))
            kept += tried[:most]
            others = [arm for arm in tried[most:] if arm.serving.scheduler != tried[0].serving.scheduler]
            if others and all(arm.serving.scheduler == tried[0].serving.scheduler for arm in tried[:most]):
                kept.append(others[0])
        return kept

    def _find_knees(self, arms: Sequence[Arm]) -> None:
        for round_number in range(KNEE_ROUNDS):
            jobs = [(arm, _next_load(arm), KNEE_REQUESTS * (1 + round_number)) for arm in arms]
            self._simulate(f"knee, round {round_number + 1} of {KNEE_ROUNDS}", jobs)
            if round_number == 0:
                arms = self._better_half(arms)

    def _sift_rps(self, arms: Sequence[Arm]) -> float:
        """The load at which the configurations of a shape are compared first: near the most it carries, or calm for latency."""
        most_rps = max(arm.capacity_rps for arm in arms)
        if self.goal is not Goal.LATENCY:
            return SIFT_LOAD * most_rps
        replicas = most_replicas(arms[0].shape, self.bounds.max_gpus, self.bounds.max_usd_per_h)
        return min(SIFT_LOAD * most_rps, max(CALM_LOAD * most_rps, self.load_rps / max(replicas, 1)))

    def _sifted(self, arm: Arm) -> tuple[float, float]:
        """What configurations are sorted by after the sift, least first."""
        latency_s = min(trial.latency_s for trial in arm.trials.values())
        return (latency_s if self.goal is Goal.LATENCY else arm.excess, latency_s)

    def value(self, arm: Arm) -> float:
        """What is wanted, more being better: load at the knee per dollar (per watt for power, per device without a price)."""
        device = arm.shape.deployment.accelerator
        if self.goal is Goal.LATENCY:
            return -min(trial.latency_s for trial in arm.trials.values()) if arm.knee_rps > 0 else -math.inf
        unit = device.power_w if self.goal is Goal.POWER else arm.shape.usd_per_gpu_h or 1.0
        return arm.knee_rps / (arm.shape.gpus * max(unit, 1e-9))

    def _better_half(self, arms: Sequence[Arm]) -> list[Arm]:
        """Of each hardware and scheduler the better half, and at least ``LEAST_KEPT``."""
        groups: dict[tuple[str, str], list[Arm]] = {}
        for arm in arms:
            groups.setdefault((arm.shape.hardware, arm.serving.scheduler), []).append(arm)
        return [
            arm
            for group in groups.values()
            for arm in sorted(group, key=self.value, reverse=True)[: max(LEAST_KEPT, math.ceil(len(group) / 2))]
        ]

    def _finalists(self, arms: Sequence[Arm]) -> list[Arm]:
        """Of each hardware the ``FINALISTS`` best, and the best of a scheduler that is not among them."""
        groups: dict[str, list[Arm]] = {}
        for arm in arms:
            groups.setdefault(arm.shape.hardware, []).append(arm)
        found = []
        for group in groups.values():
            ranked = sorted(group, key=self.value, reverse=True)
            chosen = ranked[:FINALISTS]
            schedulers = {each.serving.scheduler for each in chosen}
            found += chosen + [arm for arm in ranked[FINALISTS:] if arm.serving.scheduler not in schedulers][:1]
        return found

    def _draw_curves(self, arms: Sequence[Arm]) -> None:
        requests = requests_for(self.limits)
        jobs = []
        for arm in arms:
            knee_rps = arm.knee_rps
            arm.trials.clear()
            rates = {share * knee_rps for share in CURVE_LOADS}
            replicas = max(1, math.ceil(self.load_rps / knee_rps)) if knee_rps > 0 else 1
            rates |= {self.load_rps / (replicas + more) for more in (0, 1)} if knee_rps > 0 else {self.load_rps}
            near = [rate for rate in rates if rate > 0]
            jobs += [(arm, rate, requests if 0.6 * knee_rps < rate < 1.2 * knee_rps else requests // 2) for rate in near]
        self._simulate("load curves", jobs)

    def _simulate(self, stage: str, planned: Sequence[tuple[Arm, float, int]]) -> None:
        jobs = [self.job(arm, rate_rps, requests) for arm, rate_rps, requests in planned]
        for (arm, rate_rps, _), trial in zip(planned, self.simulate(stage, jobs), strict=True):
            arm.trials[rate_rps] = trial

    def simulate(self, stage: str, jobs: Sequence[Job]) -> list[Trial]:
        """The trials of ``jobs``, told of as ``stage``."""
        self.simulations += len(jobs)
        return self.runner.run(jobs, lambda done: self.progress(stage, done, len(jobs)))

    def job(self, arm: Arm, rate_rps: float, requests: int, *, full: bool = False) -> Job:
        """A trial of an arm, its warm-up as long as the batch takes to fill."""
        steady = at_load(arm.timer, self.load, arm.serving, arm.shape.kv_tokens, rate_rps)
        batch = steady.batch if steady is not None else arm.capacity_rps * self.load.mean_output * 0.02
        warmup = min(MOST_WARMUP, math.ceil(WARMUP_BATCHES * batch) + 8)
        return Job(arm.shape, arm.serving, rate_rps, requests, warmup, self.seed, full)


def _by_shape(arms: Sequence[Arm]) -> list[list[Arm]]:
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.shape.name, []).append(arm)
    return list(groups.values())


def _distinct(arms: Sequence[Arm]) -> list[Arm]:
    """Without those that did exactly as an earlier one: their bounds were never reached."""
    seen: set[tuple[object, ...]] = set()
    found = []
    for arm in arms:
        did = (arm.serving.scheduler, arm.serving.config.mode, round(arm.excess, 9))
        if did not in seen:
            seen.add(did)
            found.append(arm)
    return found


def _next_load(arm: Arm) -> float:
    """Where to look for the knee next: between what held and what did not, else farther out."""
    held = [rate for rate, trial in arm.trials.items() if trial.worst <= 1.0]
    missed = [rate for rate, trial in arm.trials.items() if trial.worst > 1.0]
    if held and missed and min(missed) > max(held):
        return math.sqrt(max(held) * min(missed))
    if held:
        return min(max(held) * 1.5, max(max(held) * 1.05, arm.capacity_rps * 0.97))
    lowest = min(missed)
    return lowest / min(3.0, 1.3 * math.sqrt(arm.trials[lowest].worst))


def _between(held: Trial, missed: Trial) -> float:
    """Where the excess is 1, on logarithms."""
    low, high = math.log(max(held.worst, 1e-3)), math.log(min(missed.worst, 1e3))
    share = min(1.0, max(0.0, -low / (high - low))) if high > low else 0.5
    return math.exp(math.log(held.job.rate_rps) + share * math.log(missed.job.rate_rps / held.job.rate_rps))


def deadlines_declared(limits: Sequence[Limit]) -> bool:
    """Whether any limit is on a latency, so that the ``setpoint`` mode has something to decide by."""
    return any(limit.is_latency or limit.metric == "spread" for limit in limits)


def runs_today(serving: Serving, hardware: str) -> bool:
    """Whether a released engine runs this as simulated: vLLM's own scheduler, or setpoint's engine on this machine."""
    return serving.scheduler == "vllm" or hardware == "this-machine" or serving.config.mode is BatchingMode.IMMEDIATE
