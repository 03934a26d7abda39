"""What a sample is, and its percentiles: by nearest rank, in bounds, and by Kaplan and Meier's estimate.

A sample is a 1-d array of floats in arrival order. ``inf`` is a value like any other: a request that never got an
answer. A value marked in the mask ``censored`` is only a lower bound: a request still running at cut-off.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
Interval: TypeAlias = tuple[float, float]

ROUNDING = 1e-9


def percentile(samples: npt.ArrayLike, p: float, censored: npt.ArrayLike | None = None) -> float | None:
    """The ``p``-th percentile (0 < p < 100) by nearest rank: the smallest value with p % of the sample up to it.

    Censored values are ranked above all others, so that they can raise a percentile and never lower it. Returns
    ``None`` where the percentile falls among the censored, and where the sample has fewer than 100 / (100 - p) values
    (the percentile would be the maximum under another name). Raises ``ValueError`` on a bad ``p`` or a NaN.
    """
    check_percentile(p)
    values, mask = as_sample(samples, censored)
    if not enough_for(len(values), p):
        return None
    known = np.sort(values[~mask])
    rank = nearest_rank(len(values), p)
    return float(known[rank - 1]) if rank <= len(known) else None


def percentile_bounds(samples: npt.ArrayLike, p: float, censored: npt.ArrayLike | None = None) -> Interval | None:
    """The least and the greatest the ``p``-th percentile of the sample can be, whatever the censored values came to.

    The least takes them at their bounds, the greatest as infinite; both are alike where the censored do not matter.
    ``None`` where the sample has fewer than 100 / (100 - p) values.
    """
    check_percentile(p)
    values, mask = as_sample(samples, censored)
    if not enough_for(len(values), p):
        return None
    rank = nearest_rank(len(values), p) - 1
    least = float(np.partition(values, rank)[rank])
    return least, float(np.partition(above_all(values, mask), rank)[rank]) if mask.any() else least


def kaplan_meier_percentile(samples: npt.ArrayLike, p: float, censored: npt.ArrayLike | None = None) -> float | None:
    """The ``p``-th percentile by the product-limit estimate (Kaplan and Meier, JASA 53, 1958).

    Right where when a value was cut off has nothing to do with how large it would have become: requests of a steady load
    that were still running when the watching ended. Wrong where lateness grows during the run, since then it is the
    latest that are cut off. Without censored values it is ``percentile``. ``None`` where the estimate does not reach p,
    and where the sample has fewer than 100 / (100 - p) values.
    """
    check_percentile(p)
    values, mask = as_sample(samples, censored)
    n = len(values)
    if not enough_for(n, p):
        return None
    order = np.lexsort((mask, values))
    ended = ~mask[order]
    at_risk = np.arange(n, 0, -1, dtype=np.float64)
    surviving = np.cumprod(np.where(ended, 1.0 - 1.0 / at_risk, 1.0))
    reached = np.flatnonzero(ended & (surviving <= 1.0 - p / 100.0 + ROUNDING))
    return float(values[order][reached[0]]) if len(reached) else None


def as_sample(samples: npt.ArrayLike, censored: npt.ArrayLike | None) -> tuple[FloatArray, BoolArray]:
    """Values and mask, both of shape ``[n]``. Raises ``ValueError`` for other shapes and for a NaN."""
    values = np.asarray(samples, dtype=np.float64)
    mask = np.zeros(values.shape, dtype=np.bool_) if censored is None else np.asarray(censored, dtype=np.bool_)
    if values.ndim != 1 or values.shape != mask.shape:
        raise ValueError(f"samples and censored must be 1-d and alike, found shapes {values.shape} and {mask.shape}")
    if np.isnan(values).any():
        raise ValueError("samples must not contain NaN: leave unknown values out or mark them as censored")
    return values, mask


def above_all(values: FloatArray, mask: BoolArray) -> FloatArray:
    """The values with the censored ones taken as infinite."""
    return np.where(mask, np.inf, values) if mask.any() else values


def check_percentile(p: float) -> None:
    """Raises ``ValueError`` unless 0 < p < 100."""
    if not 0.0 < p < 100.0:
        raise ValueError(f"a percentile must lie between 0 and 100, exclusive; found {p:g}")


def enough_for(n: int, p: float) -> bool:
    """Whether the ``p``-th percentile of ``n`` values is more than their maximum under another name."""
    return n >= 100.0 / (100.0 - p) - ROUNDING


def nearest_rank(n: int, p: float) -> int:
    """The 1-based rank of the ``p``-th percentile among ``n`` values in order."""
    return min(max(math.ceil(n * p / 100.0 - ROUNDING), 1), n)


def finite(value: float | None) -> float | None:
    """The value, or ``None`` if it is infinite."""
    return value if value is not None and math.isfinite(value) else None
