"""How long a step takes: ``t = c0 + c1*tokens + c2*sequences + c3*kv_tokens_read + c4*attention_products``.

Formula: DESIGN.md section 4, the reduction of a physical model (weights read once, FLOPs per token, per-sequence overhead, KV
read, attention over chunk x context) to one model on one machine. Coefficients are non-negative: more work never takes
less time. They are fitted online by non-negative least squares of the relative error, over samples kept spread over load
buckets, beside a prior that counts as half a sample and is taken at this machine's speed. Two rounds of trimming leave out
steps that took a multiple of what the others say (a core lost to another process): fit, drop those off by
``OUTLIER_RATIO``, fit again.

Defaults: 8 samples a bucket, buckets by powers of two of tokens and sequences, a refit every 16 observations, every 128
once there are 512 of them (a refit of 160 samples costs about a millisecond).
When it is wrong: kernels with tiers (a step function of tokens) are only followed on average; a machine whose cores are
shared has a heavy upper tail, of which this model predicts the middle; a bucket nobody visits keeps its old samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from setpoint.policy.decisions import StepWork

FEATURES = 5
SAMPLES_PER_BUCKET = 8
REFIT_EVERY = 16
REFIT_EVERY_LATER = 128
SETTLED_AFTER = 512
PRIOR_SAMPLES = 0.5
TRIM_ROUNDS = 2
OUTLIER_RATIO = 3.0
LEAST_STEP_S = 1e-9
# Prior: a 135M-parameter model on two CPU cores; replaced by observation within the first few dozen steps.
CPU_PRIOR_S = (7e-3, 3e-4, 3e-4, 2e-7, 2e-8)

Coefficients = npt.NDArray[np.float64]


def features(work: StepWork) -> tuple[float, float, float, float, float]:
    """The five terms of the model, in the order of the coefficients."""
    return (1.0, work.tokens, work.sequences, work.kv_tokens_read, work.attention_products)


def non_negative_least_squares(gram: Coefficients, moment: Coefficients) -> Coefficients:
    """The exact minimiser of ``x'Gx/2 - m'x`` over ``x >= 0`` for a positive definite ``gram`` of at most a few columns.

    Where no bound is active that is one small solve. Else every set of free variables is tried (2^k - 1 solves) and the
    best feasible one kept: exact, with no iteration that could fail to end. Shapes: gram (k, k), moment (k,), result (k,).
    """
    size = len(moment)
    unbounded = np.asarray(np.linalg.solve(gram, moment), dtype=np.float64)
    if (unbounded >= 0).all():
        return unbounded
    best, best_value = np.zeros(size), 0.0
    for count in range(1, size):
        for free in combinations(range(size), count):
            index = np.array(free)
            solution = np.linalg.solve(gram[np.ix_(index, index)], moment[index])
            if (solution < 0).any():
                continue
            value = -0.5 * float(moment[index] @ solution)
            if value < best_value:
                best_value = value
                best = np.zeros(size)
                best[index] = solution
    return best


class StepTimeModel:
    """Predicts seconds of a step from its work, and learns from observed steps."""

    def __init__(self, prior_s: Sequence[float] = CPU_PRIOR_S) -> None:
        if len(prior_s) != FEATURES or min(prior_s) < 0:
            raise ValueError(f"prior_s must be {FEATURES} non-negative numbers, found {tuple(prior_s)}")
        self._prior = np.array(prior_s, dtype=np.float64)
        self._coefficients: tuple[float, ...] = tuple(float(c) for c in prior_s)
        self._buckets: dict[tuple[int, int], deque[tuple[tuple[float, ...], float]]] = {}
        self._since_fit = 0
        self.observations = 0

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Seconds per unit of each feature, in the order of the formula."""
        return self._coefficients

    @property
    def source(self) -> str:
        """Where the coefficients come from: ``physics`` (the prior alone) or ``measured``."""
        return "measured" if self.observations >= REFIT_EVERY else "physics"

    def predict_s(self, work: StepWork) -> float:
        """Predicted seconds of a step that does ``work``."""
        c0, c1, c2, c3, c4 = self._coefficients
        return c0 + c1 * work.tokens + c2 * work.sequences + c3 * work.kv_tokens_read + c4 * work.attention_products

    def observe(self, work: StepWork, seconds: float) -> None:
        """Learn from one step. Steps of no work or no time carry nothing and are ignored."""
        if seconds <= 0 or work.tokens <= 0:
            return
        bucket = (work.tokens.bit_length(), work.sequences.bit_length())
        samples = self._buckets.setdefault(bucket, deque(maxlen=SAMPLES_PER_BUCKET))
        samples.append((features(work), seconds))
        self.observations += 1
        self._since_fit += 1
        if self._since_fit >= (REFIT_EVERY if self.observations <= SETTLED_AFTER else REFIT_EVERY_LATER):
            self._refit()

    def _refit(self) -> None:
        self._since_fit = 0
        samples = [sample for bucket in self._buckets.values() for sample in bucket]
        work = np.array([row for row, _ in samples])
        seconds = np.array([each for _, each in samples])
        speed = np.median(seconds / np.maximum(work @ self._prior, LEAST_STEP_S))
        coefficients = _fit(work, seconds, expected_s=seconds, prior=self._prior * speed)
        for _ in range(TRIM_ROUNDS):
            expected_s = np.maximum(work @ coefficients, LEAST_STEP_S)
            ratio = seconds / expected_s
            ratio /= np.median(ratio)
            keep = (ratio < OUTLIER_RATIO) & (ratio > 1 / OUTLIER_RATIO)
            coefficients = _fit(work[keep], seconds[keep], expected_s=expected_s[keep], prior=self._prior * speed)
        self._coefficients = tuple(coefficients.tolist())


def _fit(work: Coefficients, seconds: Coefficients, *, expected_s: Coefficients, prior: Coefficients) -> Coefficients:
    """Least squares of ``(predicted - seconds) / expected_s``, each scaled feature pulled to its prior.

    Shapes: work (samples, FEATURES), seconds and expected_s (samples,). A feature that no sample has keeps its prior.
    """
    design = work / expected_s[:, None]
    size = np.sqrt((design**2).mean(axis=0))
    seen = size > 0
    design, size = design[:, seen] / size[seen], size[seen]
    gram = design.T @ design + PRIOR_SAMPLES * np.eye(len(size))
    moment = design.T @ (seconds / expected_s) + PRIOR_SAMPLES * prior[seen] * size
    fitted = prior.copy()
    fitted[seen] = non_negative_least_squares(gram, moment) / size
    return fitted
