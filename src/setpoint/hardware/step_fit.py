"""Coefficients of one model on one machine from observed steps, by non-negative least squares of relative errors.

    t = c0 + prompt x [tokens > sequences] + sum of slopes over pieces of tokens + sequences + kv tokens read + products

The cost of tokens is piecewise linear (a non-negative slope for each piece between ``KNOTS``), as kernels have tiers; a step
that holds a piece of a prompt costs ``prompt`` more, as its shape is new and kernels are set up again. Robust: steps are
weighted down by how far they are off (least absolute relative error, re-weighted), so one that lost its core to another process
pulls little. Affine in the context for fixed tokens and sequences, as ``StepTimer`` asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.hardware.errors import HardwareError
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import non_negative_least_squares

Array = npt.NDArray[np.float64]
KNOTS = (0.0, 8.0, 32.0, 128.0, 512.0)
ROUNDS = 8
LEAST_ERROR = 0.02
HELD = 0.02
LEAST_STEPS = 32
# Every so many steps one is kept aside to learn the error from.
ASIDE = 4
LEAST_STEP_S = 1e-9


@dataclass(frozen=True, slots=True)
class StepFit:
    """Seconds: a step, a step with a prompt in it, a token in each piece, a sequence, a token read, a pair."""

    step_s: float
    prompt_s: float
    token_s: tuple[float, ...]
    sequence_s: float
    kv_token_s: float
    product_s: float

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer.affine``."""
        pieces = sum(slope * size for slope, size in zip(self.token_s, _pieces(float(tokens)), strict=True))
        base = self.step_s + (self.prompt_s if tokens > sequences else 0.0) + float(pieces) + self.sequence_s * sequences
        return base, self.kv_token_s, self.product_s

    def seconds(self, work: StepWork) -> float:
        """Predicted seconds of a step."""
        base, kv, product = self.affine(work.tokens, work.sequences)
        return base + kv * work.kv_tokens_read + product * work.attention_products

    def as_dict(self) -> dict[str, Any]:
        """As a calibration file has it."""
        return {name: getattr(self, name) for name in ("step_s", "prompt_s", "sequence_s", "kv_token_s", "product_s")} | {
            "token_s": list(self.token_s)
        }


def step_fit_from(document: Mapping[str, Any]) -> StepFit:
    """The fit of a calibration file. Raises ``HardwareError`` if a number is missing or negative."""
    try:
        numbers = [float(document[name]) for name in ("step_s", "prompt_s", "sequence_s", "kv_token_s", "product_s")]
        slopes = tuple(float(each) for each in document["token_s"])
    except (KeyError, TypeError, ValueError) as error:
        raise HardwareError(f"a calibration of steps lacks {error}") from error
    if len(slopes) != len(KNOTS) or min(*numbers, *slopes) < 0:
        raise HardwareError(f"a calibration of steps must have {len(KNOTS)} slopes and no negative number")
    return StepFit(numbers[0], numbers[1], slopes, *numbers[2:])


def fit_steps(works: Sequence[StepWork], seconds: Sequence[float]) -> tuple[StepFit, float]:
    """The fit, and the standard deviation of ln(predicted / true) on every ``ASIDE``-th step, which is not fitted.

    Raises ``HardwareError`` for fewer than ``LEAST_STEPS`` steps that took any time.
    """
    kept = [(work, took) for work, took in zip(works, seconds, strict=True) if took > LEAST_STEP_S and work.tokens > 0]
    if len(kept) < LEAST_STEPS:
        raise HardwareError(f"{len(kept)} steps that took time; at least {LEAST_STEPS} are needed for a calibration")
    aside = kept[ASIDE - 1 :: ASIDE]
    fitted = [pair for number, pair in enumerate(kept) if number % ASIDE != ASIDE - 1]
    fit = _fit([work for work, _ in fitted], np.array([took for _, took in fitted]))
    off = np.log([fit.seconds(work) / took for work, took in aside])
    # Half of the spread between the 16th and the 84th percentile: one standard deviation, unmoved by the tail.
    low, high = np.quantile(off, (0.16, 0.84)).tolist()
    return fit, max((high - low) / 2, abs(float(np.median(off))), 1e-3)


def _fit(works: Sequence[StepWork], seconds: Array) -> StepFit:
    design = np.array([_features(work) for work in works]) / seconds[:, None]
    size = np.sqrt((design**2).mean(axis=0))
    seen = size > 0
    scaled = design[:, seen] / size[seen]
    weights = np.ones(len(seconds))
    found = np.zeros(int(seen.sum()))
    for _ in range(ROUNDS):
        weighted = scaled * weights[:, None]
        gram = weighted.T @ scaled + HELD * np.eye(scaled.shape[1])
        found = non_negative_least_squares(gram, weighted.sum(axis=0))
        weights = 1 / np.maximum(np.abs(scaled @ found - 1), LEAST_ERROR)
        weights /= weights.mean()
    coefficients = np.zeros(design.shape[1])
    coefficients[seen] = found / size[seen]
    first, prompt, sequence, kv, product, *slopes = coefficients.tolist()
    return StepFit(first, prompt, tuple(slopes), sequence, kv, product)


def _features(work: StepWork) -> tuple[float, ...]:
    prompt = float(work.tokens > work.sequences)
    return (1.0, prompt, work.sequences, work.kv_tokens_read, work.attention_products, *_pieces(float(work.tokens)))


def _pieces(tokens: float) -> list[float]:
    """How many of ``tokens`` lie between each knot and the next."""
    ends = [*KNOTS[1:], np.inf]
    return [float(min(max(tokens - low, 0.0), high - low)) for low, high in zip(KNOTS, ends, strict=True)]
