"""Successive halving over serving configurations, then the load curves of the best of each hardware.

1. **Scouts**: configurations that join requests at every step, one a budget and batch, are simulated briefly at one load near
   the most that their shape could carry; those that did exactly alike count once.
2. **Others**: with the numbers of the best scouts, the ``setpoint`` mode; ``static`` and ``immediate`` where their bound
   (``fluid``) says that they could carry ``NEARLY`` of that load. The best ``MOST_KEPT`` of a shape go on.
3. **Knee**: their load is moved up or down until the knee is bracketed, ``KNEE_ROUNDS`` times, longer each time, the better
   half of each hardware going on after each; where it is worth less than ``FAR`` of the best of all, only its best.
4. **Curve**: the best of each hardware and scheduler are simulated at loads around the knee and at the share of the offered
   load that so many replicas would get, with ``CURVE_TAIL_SAMPLES`` requests beyond the tightest percentile, then once more
   halfway between what held and what did not if the two are ``FAR_APART``; a closer look takes ``TAIL_SAMPLES``.

The same seed everywhere: all configurations see the same requests, only closer or farther apart, so that differences between
them are not of the draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from setpoint.hardware.step_time import StepTimer
from setpoint.plan.curve import LEAST_INTERPOLATED, LoadCurve
from setpoint.plan.economy import MOST_REPLICAS, Goal, most_replicas
from setpoint.plan.fluid import answer_s, at_load, capacity
from setpoint.plan.limits import Limit, ttft_places
from setpoint.plan.shadow import Bounds
from setpoint.plan.sketch import LoadSketch
from setpoint.plan.topology import Serving, Shape
from setpoint.plan.trial import Job, Runner, Trial
from setpoint.policy.configuration import BatchingMode

SIFT_LOAD, SIFT_REQUESTS = 0.75, 120
SCOUTS_FOLLOWED, MOST_KEPT = 2, 3
NEARLY, FAR = 0.5, 0.5
KNEE_ROUNDS, KNEE_REQUESTS = 2, 200
CURVE_LOADS = (0.12, 0.5, 0.85, 1.1, 1.5)
TAIL_SAMPLES, CURVE_TAIL_SAMPLES = 20, 8
LEAST_REQUESTS, MOST_REQUESTS = 400, 2000
WARMUP_BATCHES, WARMUP_GROUPS, MOST_WARMUP = 1.1, 3.0, 2000
LATE_S = 1e6
CALM_LOAD = 0.25
WIDENINGS, WIDER = 2, 1.6
FAR_APART = 1.3
FAR_BEYOND = 1.4
MEETING_SHARE = 5.0
"""Of shared prefixes a trial meets in its warm-up as many as it takes, within so many times the requests it measures."""

Progress = Callable[[str, int, int], None]


@dataclass(slots=True, eq=False)
class Arm:
    """A configuration on a shape and what is known of it; ``knee_rps`` is a guess until its curve is there.

    first: its first trial, at the load at which all of its shape were compared. passes: how long a pass of its draft model
    takes, if it has one; passes_share: of a step with guesses where it runs, how much these passes are.
    """

    shape: Shape
    serving: Serving
    timer: StepTimer
    capacity_rps: float
    trials: dict[float, Trial] = field(default_factory=dict)
    first: Trial | None = None
    passes: StepTimer | None = None
    passes_share: float = 0.0

    @property
    def step_error(self) -> float:
        """That of its steps, drafting included: a model and its draft model are off together, as one factor on all steps is.

        At least the model's own: steps that take in prompts alone have no guesses.
        """
        own = self.timer.relative_error
        beyond = 0.0 if self.passes is None else max(self.passes.relative_error - own, 0.0)
        return own + self.passes_share * beyond

    @property
    def guess(self) -> bool:
        """Whether that error is itself a guess: of its steps, or of what drafting takes."""
        return self.timer.guess or self.guesses_drafting

    @property
    def guesses_drafting(self) -> bool:
        """Whether the error of its draft model's passes is a guess."""
        return self.passes is not None and self.passes.guess

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

    def fits(self, rate_rps: float) -> bool:
        """Whether its bound lets it carry nearly such a load."""
        return self.capacity_rps >= NEARLY * rate_rps

    def latency_at(self, rate_rps: float) -> float:
        """The latency that candidates are compared by, at a load between those simulated; ``nan`` without a trial."""
        rates = sorted(self.trials)
        if not rates:
            return math.nan
        latencies = [min(self.trials[rate].latency_s, LATE_S) for rate in rates]
        return float(np.interp(rate_rps, rates, latencies))

    def curve(self, limits: Sequence[Limit]) -> LoadCurve:
        """The load curve of ``limits`` from all trials."""
        return LoadCurve([trial.point for trial in self.trials.values()], len(limits), ttft_places(limits))


def requests_for(limits: Sequence[Limit], beyond: int = TAIL_SAMPLES) -> int:
    """How many requests the tightest percentile takes: so many ``beyond`` it."""
    shares = [1.0 - limit.percent / 100.0 for limit in limits if limit.percent is not None]
    shares += [1.0 - limit.limit for limit in limits if limit.metric == "goodput_fraction"]
    shares += [0.01 for limit in limits if limit.metric == "spread"]
    tightest = min((share for share in shares if share > 0), default=0.05)
    return min(MOST_REQUESTS, max(LEAST_REQUESTS, math.ceil(beyond / tightest)))


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

    def arms(self, shapes: Sequence[tuple[Shape, StepTimer]], servings: Callable[[Shape], Sequence[Serving]]) -> list[Arm]:
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

    def measure(self, arms: Sequence[Arm]) -> None:
        """The load curves of just these arms, whatever they are worth."""
        self._simulate("configurations", [(arm, SIFT_LOAD * arm.capacity_rps, SIFT_REQUESTS) for arm in arms if not arm.trials])
        for round_number in range(KNEE_ROUNDS):
            jobs = [(arm, _next_load(arm), KNEE_REQUESTS * (1 + round_number)) for arm in arms]
            self._simulate(f"knee, round {round_number + 1} of {KNEE_ROUNDS}", jobs)
        self._draw_curves(arms)

    def _sift(self, arms: Sequence[Arm]) -> list[Arm]:
        groups = _by_shape(arms)
        rates = [self._sift_rps(group) for group in groups]
        scouts = [[arm for arm in group if arm.serving.config.mode is BatchingMode.CONTINUOUS] or group for group in groups]
        self._simulate(
            "configurations",
            [(arm, rate, SIFT_REQUESTS) for group, rate in zip(scouts, rates, strict=True) for arm in group if arm.fits(rate)],
        )
        followers = [
            [arm for arm in group if arm not in tried and arm.fits(rate) and _follows(arm, self._best(tried)[:SCOUTS_FOLLOWED])]
            for group, tried, rate in zip(groups, scouts, rates, strict=True)
        ]
        self._simulate(
            "other modes",
            [(arm, rate, SIFT_REQUESTS) for group, rate in zip(followers, rates, strict=True) for arm in group],
        )
        kept = []
        for tried, others in zip(scouts, followers, strict=True):
            half = MOST_KEPT // 2
            best, best_others = self._best(tried), self._best(others)
            kept += best[: MOST_KEPT - min(half, len(best_others))] + best_others[:half]
        return kept

    def _best(self, arms: Sequence[Arm]) -> list[Arm]:
        """Those that were tried and are distinct, best first."""
        return _distinct(sorted((arm for arm in arms if arm.trials), key=self._sifted))

    def _find_knees(self, arms: Sequence[Arm]) -> None:
        for round_number in range(KNEE_ROUNDS):
            jobs = [(arm, _next_load(arm), KNEE_REQUESTS * (1 + round_number)) for arm in arms]
            self._simulate(f"knee, round {round_number + 1} of {KNEE_ROUNDS}", jobs)
            arms = self._better_half(arms)

    def _sift_rps(self, arms: Sequence[Arm]) -> float:
        """The load at which the configurations of a shape are compared first: near the most it carries, or calm for latency."""
        most_rps = max(arm.capacity_rps for arm in arms)
        if self.goal is not Goal.LATENCY:
            return SIFT_LOAD * most_rps
        replicas = most_replicas(arms[0].shape, self.bounds.max_gpus, self.bounds.max_usd_per_h)
        if replicas >= MOST_REPLICAS:
            return CALM_LOAD * most_rps
        return min(SIFT_LOAD * most_rps, self.load_rps / max(replicas, 1))

    def _sifted(self, arm: Arm) -> tuple[float, float]:
        """What configurations are sorted by after the sift, least first."""
        latency_s = arm.first.latency_s if arm.first is not None else math.inf
        return (latency_s if self.goal is Goal.LATENCY else arm.excess, latency_s)

    def value(self, arm: Arm) -> float:
        """What is wanted, more being better: load at the knee per dollar (per watt for power, per device without a price)."""
        device = arm.shape.deployment.accelerator
        if self.goal is Goal.LATENCY:
            return -arm.first.latency_s if arm.first is not None else -math.inf
        price = 1.0 if arm.shape.usd_per_gpu_h is None else arm.shape.usd_per_gpu_h
        unit = device.power_w if self.goal is Goal.POWER else price
        return arm.knee_rps / (arm.shape.gpus * max(unit, 1e-9))

    def _better_half(self, arms: Sequence[Arm]) -> list[Arm]:
        """Of each hardware and scheduler the better half, at least one; see ``_near``."""
        return self._near(
            [
                arm
                for group in _by_hardware(arms)
                for arm in sorted(group, key=self.value, reverse=True)[: math.ceil(len(group) / 2)]
            ]
        )

    def _finalists(self, arms: Sequence[Arm]) -> list[Arm]:
        """The best of each hardware and scheduler; see ``_near``."""
        return self._near([max(group, key=self.value) for group in _by_hardware(arms)])

    def _near(self, arms: Sequence[Arm]) -> list[Arm]:
        """Without those that are worth less than ``FAR`` of the best of all, but for the best of each hardware."""
        if self.goal is Goal.LATENCY:
            return list(arms)
        least = FAR * max((self.value(arm) for arm in arms), default=0.0)
        best: dict[str, Arm] = {}
        for arm in sorted(arms, key=self.value, reverse=True):
            best.setdefault(arm.shape.hardware, arm)
        return [arm for arm in arms if self.value(arm) >= least or arm is best[arm.shape.hardware]]

    def _draw_curves(self, arms: Sequence[Arm]) -> None:
        requests = requests_for(self.limits, CURVE_TAIL_SAMPLES)
        jobs = []
        for arm in arms:
            knee_rps = arm.knee_rps
            arm.trials.clear()
            rates = {share * knee_rps for share in CURVE_LOADS}
            replicas = max(1, math.ceil(self.load_rps / knee_rps)) if knee_rps > 0 else 1
            rates |= {self.load_rps / (replicas + 1)} if knee_rps > 0 else {self.load_rps}
            if self.goal is Goal.LATENCY and arm.first is not None:
                rates.add(arm.first.job.rate_rps)
            jobs += [(arm, rate, _curve_requests(rate / knee_rps if knee_rps else 1.0, requests)) for rate in rates if rate > 0]
        self._simulate("load curves", jobs)
        for _ in range(WIDENINGS):
            self._simulate("load curves, farther out", [(arm, rate, LEAST_REQUESTS) for arm in arms for rate in _beyond(arm)])
        self._simulate("load curves, nearer", [(arm, rate, requests) for arm in arms for rate in _amid(arm)])

    def _simulate(self, stage: str, planned: Sequence[tuple[Arm, float, int]]) -> None:
        jobs = [self.job(arm, rate_rps, requests) for arm, rate_rps, requests in planned]
        for (arm, rate_rps, _), trial in zip(planned, self.simulate(stage, jobs), strict=True):
            arm.trials[rate_rps] = trial
            arm.first = arm.first or trial

    def simulate(self, stage: str, jobs: Sequence[Job]) -> list[Trial]:
        """The trials of ``jobs``, told of as ``stage``."""
        self.simulations += len(jobs)
        return self.runner.run(jobs, lambda done: self.progress(stage, done, len(jobs)))

    def job(self, arm: Arm, rate_rps: float, requests: int, *, full: bool = False) -> Job:
        """A trial of an arm, its warm-up as long as the batch takes to fill and every shared prefix to be met.

        The cool-down is as long as an answer takes, at most as long as what is measured; far beyond capacity, where nothing
        holds anyway, there is none.
        """
        steady = at_load(arm.timer, self.load, arm.serving, arm.shape.kv_tokens, rate_rps)
        held = steady or capacity(arm.timer, self.load, arm.serving, arm.shape.kv_tokens)
        filling = WARMUP_BATCHES * held.batch + 8
        meeting = min(WARMUP_GROUPS * self.load.prefix_groups, MEETING_SHARE * requests)
        lasts_s = answer_s(arm.timer, self.load, held)
        return Job(
            arm.shape,
            arm.serving,
            rate_rps,
            requests,
            min(MOST_WARMUP, math.ceil(max(filling, meeting))),
            self.seed,
            full,
            answer_s=lasts_s,
            cool_down_s=min(lasts_s, requests / rate_rps) if rate_rps <= FAR_BEYOND * arm.capacity_rps else 0.0,
        )


def _beyond(arm: Arm) -> list[float]:
    """Loads outside those of a curve that has its knee outside of them as well."""
    lowest, highest = min(arm.trials), max(arm.trials)
    farther = [highest * WIDER] if arm.trials[highest].worst <= 1.0 else []
    return farther + ([lowest / WIDER**2] if arm.trials[lowest].worst > 1.0 else [])


def _amid(arm: Arm) -> list[float]:
    """A load halfway between the last that held and the first that did not, where they are far apart."""
    held = max((rate for rate, trial in arm.trials.items() if trial.worst <= 1.0), default=0.0)
    missed = min((rate for rate, trial in arm.trials.items() if trial.worst > 1.0), default=math.inf)
    return [math.sqrt(held * missed)] if 0 < FAR_APART * held < missed < math.inf else []


def _curve_requests(load: float, requests: int) -> int:
    """All of them near the knee, where a limit is decided; fewer where it is not near."""
    return requests if 0.6 < load < 1.2 else max(LEAST_REQUESTS // 2, requests // 3)


def _follows(arm: Arm, scouts: Sequence[Arm]) -> bool:
    """Whether a configuration is worth trying after these scouts: it has the numbers of one, or is of a mode without them."""
    config = arm.serving.config
    if config.mode is not BatchingMode.SETPOINT:
        return True
    numbers = {(scout.serving.config.max_running, scout.serving.config.token_budget) for scout in scouts}
    return (config.max_running, config.token_budget) in numbers


def _by_hardware(arms: Sequence[Arm]) -> list[list[Arm]]:
    groups: dict[tuple[str, str], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.shape.hardware, arm.serving.scheduler), []).append(arm)
    return list(groups.values())


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
        latency_s = arm.first.latency_s if arm.first is not None else math.inf
        did = (arm.serving.scheduler, arm.serving.config.mode, round(arm.excess, 9), latency_s)
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
    low, high = math.log(max(held.worst, LEAST_INTERPOLATED)), math.log(min(missed.worst, 1e3))
    share = min(1.0, max(0.0, -low / (high - low))) if high > low else 0.5
    return math.exp(math.log(held.job.rate_rps) + share * math.log(missed.job.rate_rps / held.job.rate_rps))


def deadlines_declared(limits: Sequence[Limit]) -> bool:
    """Whether any limit is on a latency, so that the ``setpoint`` mode has something to decide by."""
    return any(limit.is_latency or limit.metric == "spread" for limit in limits)
