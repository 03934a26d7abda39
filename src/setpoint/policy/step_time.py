"""How long a step takes: ``t = c0 + c1*tokens + c2*sequences + c3*kv_tokens_read + c4*attention_products + c5*[new shape]``.

Formula: DESIGN.md section 4, the reduction of a physical model (weights read once, FLOPs per token, per-sequence overhead, KV
read, attention over chunk x context) to one model on one machine. The last term is what measured steps showed besides: a
step whose number of tokens differs from the step before costs a fixed time more (kernels are set up again), about half
of a small step on a CPU. All coefficients are non-negative: more work never takes less time.

They are fitted online by non-negative least absolute relative error (iteratively re-weighted least squares: the middle of noisy
steps, unmoved by those that lost a core to another process), over samples kept spread over load buckets, beside a prior that
counts as half a sample and is taken at this machine's speed. A speed factor follows the machine beside the fit: it moves by
``TRACKING`` of each step's error, an error counting at most ``MOST_ERROR``. A sample's weight halves every ``HALF_LIFE``
observations down to ``LEAST_WEIGHT``, and a bucket that nobody has visited for ``RETIRE_AFTER`` observations is retired.

Defaults: 8 samples a bucket, buckets by powers of two of tokens and sequences and by changed shape, a refit every 16
observations, every 128 once there are 512 of them (a refit of 200 samples costs about a millisecond).
When it is wrong: kernels with tiers (a step function of tokens) are only followed on average; a machine whose cores are
shared has a heavy upper tail, of which this model predicts the middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import exp, inf, log

import numpy as np
import numpy.typing as npt

from setpoint.policy.decisions import StepWork

FEATURES = 5
SAMPLES_PER_BUCKET = 8
REFIT_EVERY = 16
REFIT_EVERY_LATER = 128
SETTLED_AFTER = 512
PRIOR_SAMPLES = 0.5
PRIOR_SAMPLES_OF_CHANGE = 2.0  # where nearly every step has a new shape, its cost cannot be told from that of any step
ROUNDS = 5
LEAST_ERROR = 0.03
TRACKING = 0.2
TRACKED_AFTER = 64
MOST_ERROR = 0.1
MOST_SLOWNESS = 10.0
HALF_LIFE = 1024
LEAST_WEIGHT = 0.05
RETIRE_AFTER = 1 << 15
RECENT_ERRORS = 512
LEAST_STEP_S = 1e-9
# Prior: a 135M-parameter model on two CPU cores; replaced by observation within the first few dozen steps.
CPU_PRIOR_S = (7e-3, 3e-4, 3e-4, 2e-7, 2e-8)

Coefficients = npt.NDArray[np.float64]
Sample = tuple[StepWork, float]


def features(work: StepWork) -> tuple[float, float, float, float, float]:
    """The five terms that follow from the work itself, in the order of the coefficients."""
    return (1.0, work.tokens, work.sequences, work.kv_tokens_read, work.attention_products)


def non_negative_least_squares(gram: Coefficients, moment: Coefficients) -> Coefficients:
    """The exact minimiser of ``x'Gx/2 - m'x`` over ``x >= 0`` for a positive definite ``gram`` of at most a few columns.

    Variables that come out negative are fixed at 0 until none is; if the gradient there is not negative for any fixed one,
    that is the minimum (Karush, Kuhn, Tucker). Else every set of free variables is tried (2^k - 1 solves) and the best
    feasible one kept: exact, with no iteration that could fail to end. Shapes: gram (k, k), moment (k,), result (k,).
    """
    size = len(moment)
    free = np.ones(size, dtype=bool)
    solution = np.zeros(size)
    while free.any():
        solution = np.zeros(size)
        solution[free] = np.linalg.solve(gram[free][:, free], moment[free])
        if (solution >= 0).all():
            break
        free &= solution > 0
    else:
        solution = np.zeros(size)
    if (gram @ solution - moment >= -1e-12 * (1 + np.abs(moment).max())).all():
        return solution
    return _best_of_all(gram, moment)


def _best_of_all(gram: Coefficients, moment: Coefficients) -> Coefficients:
    best, best_value = np.zeros(len(moment)), 0.0
    for free in _sets(len(moment)):
        part = moment[free]
        solutions = np.linalg.solve(gram[free[:, :, None], free[:, None, :]], part[:, :, None])[:, :, 0]
        values = np.where((solutions < 0).any(axis=1), inf, -0.5 * (part * solutions).sum(axis=1))
        least = int(np.argmin(values))
        if values[least] < best_value:
            best_value = float(values[least])
            best = np.zeros(len(moment))
            best[free[least]] = solutions[least]
    return best


@cache
def _sets(size: int) -> tuple[npt.NDArray[np.intp], ...]:
    """Every set of variables that may be free, those of one size together: shapes (sets, count) for count 1 to ``size``."""
    return tuple(np.array(list(combinations(range(size), count)), dtype=np.intp) for count in range(1, size + 1))


@dataclass(frozen=True, slots=True)
class PredictionError:
    """Relative error of the newest predictions, ``|predicted / measured - 1|``: a live metric."""

    steps: int
    median: float
    p95: float


class StepTimeModel:
    """Predicts seconds of a step from its work, and learns from observed steps."""

    def __init__(self, prior_s: Sequence[float] = CPU_PRIOR_S) -> None:
        if len(prior_s) != FEATURES or min(prior_s) < 0:
            raise ValueError(f"prior_s must be {FEATURES} non-negative numbers, found {tuple(prior_s)}")
        self._prior = np.array([*prior_s, 0.0], dtype=np.float64)
        self._fitted: tuple[float, ...] = tuple(self._prior.tolist())
        self._coefficients: tuple[float, ...] = self._fitted
        self._slowness = 0.0  # logarithm of the machine's present slowness against the last fit
        self._buckets: dict[tuple[int, int, bool], deque[tuple[tuple[float, ...], float, int]]] = {}
        self._visited: dict[tuple[int, int, bool], int] = {}
        self._errors: deque[float] = deque(maxlen=RECENT_ERRORS)
        self._last_tokens = -1
        self._since_fit = 0
        self.observations = 0

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Seconds per unit of the first five features, in the order of the formula, at the machine's present speed."""
        return self._coefficients[:FEATURES]

    @property
    def usual(self) -> tuple[float, ...]:
        """``coefficients`` as of the last fit: whatever slows the machine at the moment is not in them."""
        return self._fitted[:FEATURES]

    @property
    def change_s(self) -> float:
        """Seconds that a step of another number of tokens than the one before costs more."""
        return self._coefficients[FEATURES]

    @property
    def source(self) -> str:
        """Where the coefficients come from: ``physics`` (the prior alone) or ``measured``."""
        return "measured" if self.observations >= REFIT_EVERY else "physics"

    @property
    def recent_error(self) -> PredictionError | None:
        """Error over the newest ``RECENT_ERRORS`` observed steps, each predicted before it was learned from."""
        if not self._errors:
            return None
        median, p95 = np.quantile(np.array(self._errors), (0.5, 0.95)).tolist()
        return PredictionError(len(self._errors), median, p95)

    def predict_s(self, work: StepWork) -> float:
        """Predicted seconds of a step that does ``work``, its shape being that of the step before."""
        c0, c1, c2, c3, c4, _ = self._coefficients
        return c0 + c1 * work.tokens + c2 * work.sequences + c3 * work.kv_tokens_read + c4 * work.attention_products

    def predict_next_s(self, work: StepWork) -> float:
        """Predicted seconds of ``work`` as the step that follows the last one observed."""
        return self.predict_s(work) + (self.change_s if work.tokens != self._last_tokens else 0.0)

    def observe(self, work: StepWork, seconds: float) -> None:
        """Learn from one step. One of no work is ignored; of one of no time only the shape is noted, for the next."""
        if work.tokens <= 0:
            return
        changed = work.tokens != self._last_tokens
        expected_s = self.predict_next_s(work)
        self._last_tokens = work.tokens
        if seconds < LEAST_STEP_S:
            return
        bucket = (work.tokens.bit_length(), work.sequences.bit_length(), changed)
        samples = self._buckets.setdefault(bucket, deque(maxlen=SAMPLES_PER_BUCKET))
        samples.append(((*features(work), float(changed)), seconds, self.observations))
        self._visited[bucket] = self.observations
        self._errors.append(abs(expected_s / seconds - 1))
        self.observations += 1
        self._since_fit += 1
        if self._since_fit >= (REFIT_EVERY if self.observations <= SETTLED_AFTER else REFIT_EVERY_LATER):
            self._refit()
        elif self.observations >= TRACKED_AFTER:
            self._track(expected_s, seconds)

    def samples(self) -> list[Sample]:
        """The steps it learns from at present, each with its seconds: spread over shapes, a bounded number."""
        every = [sample for bucket in self._buckets.values() for sample in bucket]
        return [(StepWork(*(int(each) for each in row[1:FEATURES])), seconds) for row, seconds, _ in every]

    def _track(self, expected_s: float, seconds: float) -> None:
        error = log(seconds / max(expected_s, LEAST_STEP_S))
        self._slowness += TRACKING * max(-MOST_ERROR, min(MOST_ERROR, error))
        self._slowness = max(-MOST_SLOWNESS, min(MOST_SLOWNESS, self._slowness))
        slower = exp(self._slowness)
        self._coefficients = tuple(slower * each for each in self._fitted)

    def _refit(self) -> None:
        self._since_fit = 0
        for bucket in [each for each, seen in self._visited.items() if seen + RETIRE_AFTER < self.observations]:
            del self._buckets[bucket], self._visited[bucket]
        samples = [sample for bucket in self._buckets.values() for sample in bucket]
        work = np.array([row for row, _, _ in samples])
        seconds = np.array([each for _, each, _ in samples])
        age = self.observations - np.array([number for _, _, number in samples], dtype=np.float64)
        recent = np.maximum(0.5 ** (age / HALF_LIFE), LEAST_WEIGHT)
        speed = np.median(seconds / np.maximum(work @ self._prior, LEAST_STEP_S))
        weights = recent / recent.mean()
        coefficients = self._prior
        for _ in range(ROUNDS):
            coefficients = _fit(work, seconds, weights=weights, prior=self._prior * speed)
            error = np.abs(work @ coefficients / seconds - 1)
            weights = recent / np.maximum(error, LEAST_ERROR)
            weights /= weights.mean()
        self._fitted = tuple(coefficients.tolist())
        slower = exp(self._slowness)
        self._coefficients = tuple(slower * each for each in self._fitted)


def _fit(work: Coefficients, seconds: Coefficients, *, weights: Coefficients, prior: Coefficients) -> Coefficients:
    """Weighted least squares of ``predicted / seconds - 1``, each scaled feature pulled to its prior.

    Shapes: work (samples, features), seconds and weights (samples,). A feature that no sample has keeps its prior.
    """
    design = work / seconds[:, None]
    size = np.sqrt((design**2).mean(axis=0))
    seen = size > 0
    design, size = design[:, seen] / size[seen], size[seen]
    held = np.full(len(prior), PRIOR_SAMPLES)
    held[FEATURES:] = PRIOR_SAMPLES_OF_CHANGE
    gram = (design * weights[:, None]).T @ design + np.diag(held[seen])
    moment = design.T @ weights + held[seen] * prior[seen] * size
    fitted = prior.copy()
    fitted[seen] = non_negative_least_squares(gram, moment) / size
    return fitted
