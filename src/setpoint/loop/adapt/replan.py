"""A plan from live traffic: the present configuration and others are simulated on the machine as its own steps show it.

Every configuration gets the same loads. Load number r stands for one way things may be: requests drawn anew from those that
were seen, their rate and the speed of the machine off by as much as either is uncertain, and one window's worth of chance. The
gain of a configuration is the mean over loads of its share of good requests less that of the present one; its uncertainty the
half width of the 90 % interval of that mean (Student's t). The first load is the middle of what may be: all configurations meet
it, the best of them the others, and only the others count, for whoever is chosen by a load looks better on it than it is.
Time is bounded, and what it does not suffice for is left out, the farthest choices first. Where the server drafts, the middle
load is met without, for simulations with drafts take many times as long; the others are shorter, met by fewer configurations,
and with guesses as good as the server's own were (``drafts.py``).
Runs in a process of its own at the lowest priority. When it is wrong: as ``loop/forecast/machine.py`` and ``profile.py`` say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, sqrt

import numpy as np
import pyarrow as pa

from setpoint.loop.adapt.profile import Profile
from setpoint.loop.forecast.machine import KnownMachine, MeasuredTables, StretchedTimer, machine_of_runs
from setpoint.loop.simulation.figures import gap_limits_s, phase_requests
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.policy.step_time import Sample
from setpoint.policy.views import BATCH, RequestLimits
from setpoint.record import Phase, RequestClass
from setpoint.report.figures import severity
from setpoint.requirement import Requirement
from setpoint.simulate.calibrated import TooFewSteps
from setpoint.simulate.drafter import Drafting
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.naming import SharedPrefixes
from setpoint.simulate.offered import limits_of
from setpoint.simulate.run import simulate
from setpoint.simulate.sequences import Kind
from setpoint.statistics.student import student_quantile

LOADS = 7
FINALISTS, SCREENING_SHARE = 4, 0.6
DRAFTED_FINALISTS, DRAFTED_SCREENING_SHARE = 2, 0.3
REQUESTS = 160
LEAST_DRAFTED_REQUESTS, DRAFTED_TOKENS = 60, 6000
MOST_REQUESTS = 4 * REQUESTS
WARMUP_S, WARMUP_SHARE = 5.0, 0.25
LEAST_LOAD_S, MOST_LOAD_S = 15.0, 240.0
MOST_RATE_ERROR = 0.5
MOST_CV, LEAST_CV = 5.0, 0.05
CONFIDENCE = 0.95
SUSTAINED = 1
"""Place of the phase that is judged."""
NEAR = 0.01
"""Choices whose gains are this near to each other count as equal."""


@dataclass(frozen=True, slots=True)
class Question:
    """All that a plan needs, as plain data. ``steps``: columns of the newest steps; ``samples``: steps of other shapes.

    only_restart: choices that may be recommended but not taken. drafting: what guesses where a configuration speculates, and
    how well; without it all are compared as if nothing guessed. unscreened: choices that only differ in whether they draft.
    cpu_s, wall_s: what may be spent.
    """

    requirement: Requirement
    profile: Profile
    present: ServingConfig
    choices: tuple[ServingConfig, ...]
    steps: Mapping[str, np.ndarray]
    samples: tuple[Sample, ...]
    only_restart: tuple[ServingConfig, ...] = ()
    drafting: Drafting | None = None
    unscreened: tuple[ServingConfig, ...] = ()
    cpu_s: float = 10.0
    wall_s: float = 60.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """A configuration's share of good requests, what it gains over the present one, and how sure that is (see the module)."""

    config: ServingConfig
    good: float
    gain: float
    uncertainty: float
    loads: int

    @property
    def sure(self) -> bool:
        """Whether the gain exceeds its uncertainty."""
        return self.loads > 1 and self.gain > self.uncertainty


@dataclass(frozen=True, slots=True)
class Answer:
    """``present`` and the choices that were followed to the end, best first; ``problem``: why there is no plan."""

    present: Forecast | None = None
    forecasts: tuple[Forecast, ...] = ()
    screened: int = 0
    left_out: int = 0
    cpu_s: float = 0.0
    problem: str = ""
    restart: tuple[Forecast, ...] = field(default=())


class Allowance:
    """What a plan may spend, from the moment this is made."""

    def __init__(self, question: Question) -> None:
        self._cpu_s, self._wall_s = question.cpu_s, question.wall_s
        self._began = time.process_time(), time.monotonic()

    @property
    def spent_s(self) -> float:
        """CPU seconds."""
        return time.process_time() - self._began[0]

    def used(self) -> float:
        """The share that is gone, above 1 if it is overdrawn."""
        return max(self.spent_s / self._cpu_s, (time.monotonic() - self._began[1]) / self._wall_s)


def replan(question: Question, used: Callable[[], float] | None = None) -> Answer:
    """Answer a question; deterministic but for what ``used`` (the share of the allowance that is gone) leaves time for."""
    allowance = Allowance(question)
    used = used or allowance.used
    try:
        machine = machine_of(question.steps, question.samples)
    except TooFewSteps as error:
        return Answer(problem=str(error), cpu_s=allowance.spent_s)
    most, share = FINALISTS, SCREENING_SHARE
    if question.drafting is not None:
        most, share = DRAFTED_FINALISTS, DRAFTED_SCREENING_SHARE
    worlds = [_World(question, machine, number) for number in range(LOADS)]
    first = {question.present: worlds[0].good(question.present)}
    for config in question.choices:
        if used() > share:
            break
        first[config] = worlds[0].good(config)
    ranked = sorted(list(first)[1:], key=lambda config: -first[config])
    taken = [*ranked[:most], *question.unscreened]
    finalists = [question.present, *taken, *question.only_restart]
    scores: dict[ServingConfig, list[float]] = {config: [] for config in finalists}
    for number, world in enumerate(worlds[1:]):
        if number > 1 and used() > 1.0:
            break
        for config in finalists:
            scores[config].append(world.good(config, question.drafting))
    base = scores[question.present]
    found = {config: _forecast(config, values, base) for config, values in scores.items()}
    order = {config: place for place, config in enumerate((*question.choices, *question.unscreened))}
    best = sorted((found[config] for config in taken), key=lambda each: (-each.gain, order[each.config]))
    return Answer(
        present=found[question.present],
        forecasts=tuple(_nearest_of_equals(best, order)),
        screened=len(first) - 1,
        left_out=len(question.choices) - len(first) + 1,
        cpu_s=allowance.spent_s,
        restart=tuple(found[config] for config in question.only_restart),
    )


def _nearest_of_equals(best: Sequence[Forecast], order: Mapping[ServingConfig, int]) -> list[Forecast]:
    """The first of those that are as good as the best is the one that changes least."""
    equal = [each for each in best if each.gain >= best[0].gain - NEAR] if best else []
    equal.sort(key=lambda each: order[each.config])
    return [*equal, *(each for each in best if each not in equal)]


def _forecast(config: ServingConfig, values: Sequence[float], base: Sequence[float]) -> Forecast:
    gains = np.array(values) - np.array(base)
    loads = len(gains)
    half = float("inf")
    if loads > 1:
        half = student_quantile(CONFIDENCE, loads - 1) * float(gains.std(ddof=1)) / sqrt(loads)
    return Forecast(config, float(np.mean(values)), float(gains.mean()), half, loads)


class _World:
    """One load on one speed of the machine. The first is the middle one: every configuration is screened on it."""

    def __init__(self, question: Question, machine: KnownMachine, number: int) -> None:
        dice = np.random.default_rng(np.random.SeedSequence((question.seed, number)))
        profile, self._question, self._machine = question.profile, question, machine
        self._seed = question.seed * LOADS + number
        self._deviation = float(dice.standard_normal()) if number else 0.0
        rate_error = min(MOST_RATE_ERROR, max(1.0, profile.gap_cv) / sqrt(profile.arrivals))
        rate_rps = profile.rate_rps * (exp(rate_error * dice.standard_normal()) if number else 1.0)
        requests = drafted_requests(profile) if number and question.drafting is not None else REQUESTS
        self._load = load_of(profile, question.requirement, rate_rps, dice, requests=requests)
        assert self._load.kind is not None
        batch = np.array([kind.request_class == BATCH for kind in self._load.kinds])
        self._batch = batch[self._load.kind[self._load.phase == SUSTAINED]]

    def good(self, config: ServingConfig, drafting: Drafting | None = None) -> float:
        """Share of the requests offered that meet every limit; batch requests have none and are good if they are served.

        drafting: what guesses if ``config`` speculates; ``None``: nothing does.
        """
        requirement, machine = self._question.requirement, self._machine
        if drafting is None or config.speculation is SpeculationMode.OFF:
            drafting = None
            config = config.model_copy(update={"speculation": SpeculationMode.OFF, "draft_model": None})
        stretch = exp(machine.error_for(config.max_running) * self._deviation)
        system = machine.system(config, stretch, None if drafting is None else _stretched(drafting, stretch))
        done = simulate(self._load, system, seed=self._seed, gap_limits_s=gap_limits_s(requirement))
        requests = phase_requests(done, Phase.SUSTAINED)
        batch = self._batch & requests.is_class(RequestClass.OK)
        return float(((severity(requests, requirement.slo) <= 1.0) | batch).mean()) if len(requests) else 0.0


def _stretched(drafting: Drafting, stretch: float) -> Drafting:
    """The same on a machine whose every step takes ``stretch`` times as long."""
    return drafting if drafting.passes is None else replace(drafting, passes=StretchedTimer(drafting.passes, stretch))


def drafted_requests(profile: Profile) -> int:
    """How many requests a load has that is met with drafts: every step is carried out by itself, so their tokens decide."""
    fitting = int(DRAFTED_TOKENS / max(1.0, float(profile.output_tokens.mean())))
    return min(REQUESTS, max(LEAST_DRAFTED_REQUESTS, fitting))


def load_of(
    profile: Profile, requirement: Requirement, rate_rps: float, dice: np.random.Generator, *, requests: int = REQUESTS
) -> Load:
    """Requests drawn from those that were seen, with gamma gaps as uneven as theirs, for about ``requests`` of them.

    A short window at a high rate has more, at most about ``MOST_REQUESTS`` with those of the warm-up.
    """
    rate_rps = max(rate_rps, 1e-6)
    length_s = min(MOST_LOAD_S, max(LEAST_LOAD_S, requests / rate_rps), (1 - WARMUP_SHARE) * MOST_REQUESTS / rate_rps)
    warmup_s = min(WARMUP_S, WARMUP_SHARE / (1 - WARMUP_SHARE) * length_s)
    end_s = warmup_s + length_s
    count = max(2, int(1.5 * rate_rps * end_s) + 16)
    cv = min(MOST_CV, max(LEAST_CV, profile.gap_cv))
    sent_s = np.cumsum(dice.gamma(1 / cv**2, cv**2 / rate_rps, size=count))
    sent_s = sent_s[sent_s < end_s][: 2 * MOST_REQUESTS]
    rows = dice.integers(0, len(profile), size=len(sent_s))
    kinds = {(streaming, kind): place for place, (streaming, kind) in enumerate(_kinds(profile))}
    limits = limits_of(requirement.slo)
    outputs = profile.output_tokens[rows]
    return Load(
        sent_s=sent_s,
        prompt_tokens=profile.prompt_tokens[rows],
        output_tokens=outputs,
        cap_tokens=np.maximum(profile.cap_tokens[rows], outputs),
        phases=(PhaseOfLoad(Phase.WARMUP, 0.0, warmup_s), PhaseOfLoad(Phase.SUSTAINED, warmup_s, end_s)),
        phase=(sent_s >= warmup_s).astype(np.int64) * SUSTAINED,
        kinds=tuple(
            Kind(streaming=streaming, limits=RequestLimits() if kind == BATCH else limits, request_class=kind)
            for streaming, kind in kinds
        ),
        kind=np.array([kinds[bool(profile.streaming[row]), int(profile.request_class[row])] for row in rows], dtype=np.int64),
        named=SharedPrefixes(np.zeros(len(rows), dtype=np.int64), profile.cached_tokens[rows]),
    )


def _kinds(profile: Profile) -> list[tuple[bool, int]]:
    pairs = zip(profile.streaming.tolist(), profile.request_class.tolist(), strict=True)
    return sorted({(bool(streaming), int(kind)) for streaming, kind in pairs})


def machine_of(steps: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> KnownMachine:
    """This machine from its newest steps, and from ``samples`` for shapes that are not among them. Raises ``TooFewSteps``.

    The engine's own clock is the only one there is: the way to the client and back is not in it.
    Nor are the seconds that making drafts took before a step: a simulation adds its own.
    """
    drafting_s = np.cumsum(steps["draft_s"])
    first_s, last_s = steps["start_s"] - drafting_s, steps["end_s"] - drafting_s
    works = [work for work, _ in samples]
    seconds = np.array([each for _, each in samples])
    # Before the recorded steps, each alone: nothing follows from the time between them.
    starts_s = np.arange(len(works)) * 10.0 - len(works) * 10.0 + (float(first_s[0]) if len(first_s) else 0.0)
    columns = {
        "start_s": np.concatenate((starts_s, first_s)),
        "end_s": np.concatenate((starts_s + seconds, last_s)),
        "prefill_tokens": np.concatenate(([max(0, w.tokens - w.sequences) for w in works], steps["prefill_tokens"])),
        "decode_tokens": np.concatenate(([min(w.tokens, w.sequences) for w in works], steps["decode_tokens"])),
        "sequences": np.concatenate(([w.sequences for w in works], steps["sequences"])),
        "kv_tokens_read": np.concatenate(([w.kv_tokens_read for w in works], steps["kv_tokens_read"])),
        "attention_products": np.concatenate(([w.attention_products for w in works], steps["attention_products"])),
        "running": np.concatenate((np.zeros(len(works)), steps["running"])),
    }
    table = pa.table({name: np.asarray(values, dtype=np.float64) for name, values in columns.items()})
    nobody = pa.table({name: np.zeros(0) for name in ("first_token_s", "intended_s", "ended_s")})
    return machine_of_runs([MeasuredTables(nobody, table)])
