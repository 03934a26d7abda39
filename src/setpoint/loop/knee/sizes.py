"""Works of new requests: seen ones drawn again, or, where the planned sizes explain them, made anew from planned sizes.

A few thousand requests know the mean of what they drew to a few percent only, and the knee moves with it one for one. The
planned token counts of all requests to come are known exactly, though. Where ``work = (b . sizes) * residual`` explains
enough, new works are drawn as fresh sizes times a seen residual, and only the residual is as uncertain as the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from setpoint.loop.knee.families import fitting_family
from setpoint.loop.knee.model import Works
from setpoint.loop.knee.probes import SizeMaker
from setpoint.statistics import FloatArray

REWEIGHTINGS = 3
WORTH_IT = 0.8


@dataclass(frozen=True)
class WorkSource:
    """Draws works. cv: coefficient of variation of what only the sample knows; family: of distributions, if they fit one."""

    works: Works
    cv: float
    sizes: SizeMaker | None = None
    per_size: FloatArray | None = None
    family: str = ""

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Works of ``n`` requests, seconds alone; each seen one serves as often as its weight says, to within one."""
        shares = np.cumsum(self.works.weight) / self.works.weight.sum()
        rows = np.searchsorted(shares, (rng.random() + np.arange(n)) / n)
        rows = rng.permutation(np.minimum(rows, len(shares) - 1))
        drawn: FloatArray = self.works.work[rows]
        if self.sizes is None or self.per_size is None:
            return drawn
        return drawn * _expected(self.sizes(n, rng), self.per_size)


def work_source(works: Works, sizes: FloatArray | None, make: SizeMaker | None) -> WorkSource:
    """Works made from sizes if they leave less than ``WORTH_IT`` of the variation unexplained, else the works as seen.

    Works as seen are replaced by the family of distributions that they fit, if there is one. sizes: planned sizes of the
    same requests, shape ``[n, features]``.
    """
    plain = _smoothed(works)
    if sizes is None or make is None or not np.ptp(sizes, axis=0).any():
        return plain
    per_size = _regression(works.work, sizes, works.weight)
    expected = _expected(sizes, per_size)
    relative = Works(works.work / expected, works.weight)
    cv = _cv(relative.work, works.weight)
    return WorkSource(relative, cv, make, per_size) if cv < WORTH_IT * plain.cv else plain


def _smoothed(works: Works) -> WorkSource:
    cv = _cv(works.work, works.weight)
    family = fitting_family(works.work, works.weight)
    if family is None:
        return WorkSource(works, cv)
    return WorkSource(Works(family.quantiles, np.ones(len(family.quantiles))), cv, family=family.name)


def _regression(work: FloatArray, sizes: FloatArray, weight: FloatArray) -> FloatArray:
    """Coefficients of a constant and each size by least squares of the relative error."""
    columns = np.column_stack((np.ones(len(work)), sizes))
    expected = np.full(len(work), float(np.average(work, weights=weight)))
    found = np.zeros(columns.shape[1])
    for _ in range(REWEIGHTINGS):
        scale = np.sqrt(weight) / expected
        found = np.linalg.lstsq(columns * scale[:, None], work * scale, rcond=None)[0]
        expected = _expected(sizes, found)
    return found


def _expected(sizes: FloatArray, per_size: FloatArray) -> FloatArray:
    """The work that sizes lead to expect, kept above a small share of its mean."""
    expected: FloatArray = per_size[0] + sizes @ per_size[1:]
    return np.maximum(expected, 0.02 * max(float(expected.mean()), 1e-12))


def _cv(values: FloatArray, weight: FloatArray) -> float:
    mean = float(np.average(values, weights=weight))
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weight))) / mean if mean > 0 else 0.0
