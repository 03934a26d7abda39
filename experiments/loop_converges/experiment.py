"""Predictions from a model that starts twice wrong, after each run that it has learned from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from gallery.description import Expected, Experiment, Kind, Outcome, Picture, Size
from gallery.simulated import at_rate, put, requirement_of, system
from setpoint.hardware.step_fit import StepFit, fit_steps
from setpoint.plan.facts import CHAT
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.record import PhaseMeasures
from setpoint.report.charts.picture import Series, Strip
from setpoint.report.format import round_percent, seconds
from setpoint.simulate.run import SimulatedSystem
from setpoint.simulate.timing import LineTimer, StepTimer

HARDWARE = "h100-sxm"
RATE_RPS = 12.0
CONFIG = ServingConfig(mode=BatchingMode.SETPOINT, max_running=256, token_budget=2048)
WRONG = 2.0
RUNS = (0, 25, 50, 100, 200)
MOST_STEPS = 4000
JUDGED = 2000
P50_WITHIN, P99_WITHIN = 0.10, 0.20


@dataclass(frozen=True, slots=True)
class Compared:
    """What was predicted after a number of runs, and how far that is from what is measured, for four statistics."""

    requests: int
    predicted: tuple[float, ...]
    errors: tuple[float, ...]


class Remembering(StepTimeModel):
    """What the policy knows, which also remembers the newest steps for a fit."""

    def __init__(self, prior_s: tuple[float, ...]) -> None:
        super().__init__(prior_s)
        self.steps: deque[tuple[StepWork, float]] = deque(maxlen=MOST_STEPS)

    def observe(self, work: StepWork, seconds: float) -> None:
        """See ``StepTimeModel``."""
        super().observe(work, seconds)
        self.steps.append((work, seconds))


@dataclass(frozen=True, slots=True)
class Fitted:
    """The steps' fit as a machine to simulate on."""

    fit: StepFit
    relative_error: float
    source: str = "measured"
    guess: bool = False

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer``."""
        return self.fit.affine(tokens, sequences)


def run(size: Size, seed: int) -> Outcome:
    """Predict, run, learn from the run's steps, predict again."""
    judged = JUDGED if size is Size.FULL else 500
    truth = system(HARDWARE, CONFIG)
    requirement = at_rate(requirement_of(CHAT), RATE_RPS)
    wrong = tuple(WRONG * each for each in line_of(truth.timer))
    model = Remembering(wrong)
    base_s, token_s, sequence_s, read_s, product_s = wrong
    believed: StepTimer = LineTimer(base_s, token_s, sequence_s, read_s, product_s, source="physics")
    measured = statistics(put(requirement, truth, requests=judged, seed=seed).figures())
    found, learned = [], 0
    for number, requests in enumerate(RUNS if size is Size.FULL else RUNS[:4]):
        if requests:
            put(requirement, replace(truth, model=lambda: model), requests=requests, seed=seed + 1000 + number)
            learned += requests
            believed = Fitted(*fit_steps(*zip(*model.steps, strict=True)))
        imagined = SimulatedSystem(believed, truth.kv_blocks, truth.block_tokens, CONFIG)
        predicted = statistics(put(requirement, imagined, requests=judged, seed=seed).figures())
        errors = tuple(abs(p / m - 1) for p, m in zip(predicted, measured, strict=True))
        found.append(Compared(learned, predicted, errors))
    rows = [
        (
            f"{number}",
            f"{each.requests}",
            *(f"{seconds(p, ' ')} ({e:.0%})" for p, e in zip(each.predicted, each.errors, strict=True)),
        )
        for number, each in enumerate(found)
    ]
    rows.append(("measured", "", *(seconds(value, " ") for value in measured)))
    facts = {
        "hardware": HARDWARE,
        "rate_rps": RATE_RPS,
        "judged_requests": judged,
        "wrong_by": WRONG,
        "source": truth.timer.source,
    }
    columns = ("runs learned from", "requests in them", "TTFT P50", "TTFT P99", "ITL P50", "ITL P99")
    return Outcome(expected(found), columns, rows, picture(found), facts)


def line_of(timer: StepTimer) -> tuple[float, ...]:
    """The five constants of a line through the timer's steps, to begin wrong from."""
    (base_s, read_s, product_s), more = timer.affine(1, 1), timer.affine(CONFIG.token_budget, 1)
    token_s = (more[0] - base_s) / (CONFIG.token_budget - 1)
    return base_s, token_s, token_s, read_s, product_s


def statistics(figures: PhaseMeasures) -> tuple[float, ...]:
    """P50 and P99 of TTFT and of the gaps, seconds."""
    values = (figures.ttft_s.p50, figures.ttft_s.p99, figures.itl_s.p50, figures.itl_s.p99)
    return tuple(np.nan if each is None else each for each in values)


def worst(each: Compared, *, tails: bool) -> float:
    """The larger error of the two medians, or of the two tails."""
    return max(each.errors[1::2] if tails else each.errors[::2])


def expected(found: list[Compared]) -> list[Expected]:
    """Far off at first, within what the project states after a few runs."""
    first, last = found[0], found[-1]
    return [
        Expected("error of the medians before anything was measured", worst(first, tails=False), "at least", 0.4),
        Expected("error of the medians after the last run", worst(last, tails=False), "at most", P50_WITHIN),
        Expected("error of the P99 after the last run", worst(last, tails=True), "at most", P99_WITHIN),
        Expected("error of the medians after two runs", worst(found[2], tails=False), "at most", 2 * P50_WITHIN),
    ]


def picture(found: list[Compared]) -> Picture:
    """Errors over the runs."""
    xs = np.arange(len(found), dtype=np.float64)
    medians, tails = (np.array([worst(each, tails=which) for each in found]) for which in (False, True))
    return Picture(
        "Error of the prediction after each run, begun with coefficients twice too large (simulated)",
        "runs learned from",
        [Strip("predicted against measured", [Series("medians", xs, medians), Series("P99", xs, tails)], round_percent)],
    )


EXPERIMENT = Experiment(
    name="loop_converges",
    claim="The loop converges: predictions that start twice wrong agree with the measurement after a few short runs",
    kind=Kind.SIMULATED,
    where="llama-3.1-8b in bf16 with vLLM's kernels on one simulated H100, which stands for the machine that is measured.",
    method="A step-time model begins with every coefficient twice what it is. TTFT and gaps are predicted by "
    "simulation from it; then a short "
    "run on the machine teaches it its steps, and they are predicted again, and so on. Each prediction is compared "
    "with the same "
    f"requests on the machine (chat, {RATE_RPS:g}/s).",
    shape="The first prediction is off by 40 % or more in a median; after two short runs by at most 20 %; after the "
    "last at most 10 % in the "
    "medians and 20 % in the P99.",
    reading="A hundred requests are thousands of steps, so the machine is learned long before its percentiles could be "
    "measured well. On a "
    "real machine the rest of the error is noise; how the loop decides when to stop is in docs/tuning.md.",
    run=run,
)
