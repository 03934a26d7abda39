"""Fit effects to closed-loop measurements: the most probable factors, given prior means and how far levels usually differ.

Each coefficient's logarithm is a prior mean plus one normal deviation for every level of its row, with a standard deviation
``SPREADS[coefficient] x LEVEL_SPREADS[kind][level]``. Mean TTFT and TPOT depend on them through ``closed_loop.py``; the
observed logarithms have noise ``NOISE``, with Student's heavy tails (``TAILS`` degrees of freedom): odd rows pull little.
The maximum is found by Gauss and Newton's iteration with a line search; each iteration is a linear system with two equations a
row, solved in the space of observations, as there are fewer of them than deviations (C. E. Rasmussen and C. K. I. Williams,
"Gaussian Processes for Machine Learning", chapter 2).

The observable is a mean over a benchmark and not the time of a step, so least squares that is linear in the coefficients, as
``calibrate_steps.py`` does it, has nothing to hold on to here. Deterministic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from setpoint.hardware.closed_loop import SHARPNESS, ClosedLoop, closed_loop_s
from setpoint.hardware.coefficients import NAMES, PRIORS, Coefficients
from setpoint.hardware.effects import (
    ALL_NAMES,
    AROUND,
    COUNTED_LEVELS,
    KIND_OF,
    LOCAL,
    STEP,
    WHOLE,
    Array,
    Effects,
    all_levels_of,
    coefficients_from,
    harness_from,
    same_level,
)
from setpoint.hardware.measurements import Setting
from setpoint.hardware.terms import Terms, stacked, terms_of

KINDS = (STEP, WHOLE, AROUND, LOCAL)
# One standard deviation of a coefficient's logarithm about its prior mean.
SPREADS = {
    "memory": 0.25, "experts": 0.35, "compute": 0.35, "expert_compute": 0.45, "pad": 0.7, "kv": 0.4, "attention": 0.4,
    "link": 0.6, "activations": 0.6, "reduction_s": 0.6, "layer_s": 0.5, "moe_layer_s": 0.7, "sequence_s": 0.7,
    "step_s": 0.6, "scale": 0.25, "burst": 0.6, "front_s": 1.0, "queue": 0.8, "cap": 0.25, "limit": 1.5, "output_s": 1.0,
    "slot": 1.0, "length": 0.06, "lag": 0.8, "first": 0.35,
}  # fmt: skip
# How much of it shows between the members of a level, by kind of coefficient. What a version gains as a whole it gains on
# every accelerator for the most part: only so does it reach one that was never measured.
LEVEL_SPREADS: Mapping[str, dict[str, float]] = {
    STEP: {
        "all": 0.5, "engine": 0.25, "accelerator": 0.6, "engine accelerator": 0.4, "family": 0.3, "engine family": 0.3,
        "engine model": 0.3, "engine parallel": 0.15, "family accelerator": 0.2, "model": 0.35, "parallel": 0.25,
        "version": 0.35, "protocol": 0.2,
    },
    WHOLE: {
        "all": 0.5, "engine": 0.25, "accelerator": 0.4, "engine accelerator": 0.3, "family": 0.3, "engine family": 0.5,
        "engine model": 0.6, "engine parallel": 0.15, "family accelerator": 0.15, "model": 0.25, "parallel": 0.2,
        "engine version": 2.0, "version": 0.6, "protocol": 0.2,
    },
    AROUND: {
        "all": 0.35, "engine": 0.35, "accelerator": 0.2, "engine accelerator": 0.28, "family": 0.2, "engine family": 0.35,
        "engine model": 0.2, "family accelerator": 0.15, "model": 0.25, "parallel": 0.18, "version": 0.25, "protocol": 0.42,
        "engine lengths": 0.28, "model lengths": 0.18, "engine clients": 0.14, "model clients": 0.1,
    },
    LOCAL: {"model": 0.3, "version": 1.5},
}  # fmt: skip
# Standard deviations of ln TTFT and ln TPOT between repeats of one benchmark and what the formula leaves out.
NOISE = (0.2, 0.05)
TAILS = 2.0
# The first rounds have lighter tails and more noise: what several rows of one version agree on is not taken for an outlier.
FIRST_TAILS, FIRST_ROUNDS = 200.0, 8
ROUNDS = 16
FIRST_SHARPNESS, SHARPER = 4.0, 1.35
FIRST_NOISE, QUIETER = 6.0, 0.5
NUDGE = 0.02
# How much of a full step is taken: the first that makes the whole more likely.
SHARES = (1.0, 0.5, 0.25, 0.1, 0.03)
MOST_ROWS = 2000
# Effects below this are left out of the file: 0.2 % of a coefficient.
LEAST_EFFECT = 2e-3


@dataclass(frozen=True, slots=True)
class Rows:
    """Measured settings as arrays. levels: one mapping a row. logs: ln TTFT and ln TPOT in seconds, shape (rows, 2)."""

    levels: tuple[Mapping[str, str], ...]
    terms: Terms
    load: ClosedLoop
    prior: Coefficients
    logs: Array

    def some(self, places: Sequence[int]) -> Rows:
        """Those at ``places``."""
        chosen = np.array(places, dtype=np.intp)
        return Rows(
            tuple(self.levels[place] for place in places),
            Terms(**{each.name: getattr(self.terms, each.name)[chosen] for each in fields(Terms)}),
            ClosedLoop(**{each.name: getattr(self.load, each.name)[chosen] for each in fields(ClosedLoop)}),
            Coefficients(**{name: getattr(self.prior, name)[chosen] for name in NAMES}),
            self.logs[chosen],
        )

    def predicted(self, logarithms: Array, *, sharpness: float = SHARPNESS) -> Array:
        """ln TTFT and ln TPOT, shape (rows, 2), with coefficients at prior means times the exponentials."""
        ttft_s, tpot_s = closed_loop_s(
            self.terms,
            coefficients_from(logarithms, self.prior),
            harness_from(logarithms),
            self.load,
            sharpness=sharpness,
        )
        return np.log(np.stack([ttft_s, tpot_s], axis=1))


def rows_of(settings: Sequence[Setting], ttft_s: Sequence[float], tpot_s: Sequence[float]) -> Rows:
    """Arrays of ``settings`` and what was measured there (NaN where it was not; such rows can be predicted, not fitted)."""
    priors = [PRIORS[each.deployment.accelerator.kind] for each in settings]
    return Rows(
        tuple(all_levels_of(each) for each in settings),
        stacked([terms_of(each.deployment) for each in settings]),
        ClosedLoop(
            np.array([each.prompt_tokens for each in settings]),
            np.array([each.output_tokens for each in settings]),
            np.array([each.concurrency for each in settings]),
            np.array([each.capacity for each in settings]),
        ),
        Coefficients(**{name: np.array([getattr(each, name) for each in priors]) for name in NAMES}),
        np.log(np.stack([np.array(ttft_s, dtype=np.float64), np.array(tpot_s, dtype=np.float64)], axis=1)),
    )


def logarithms_of(effects: Effects, rows: Rows) -> Array:
    """What ``effects`` say of each row, shape (rows, coefficients)."""
    return np.array([effects.logarithms(levels) for levels in rows.levels]).reshape(-1, len(ALL_NAMES))


def fit_effects(rows: Rows) -> Effects:
    """The most probable effects given ``rows``, at most ``MOST_ROWS``: time grows with their cube, memory with their square."""
    count = len(rows.levels)
    if not 0 < count <= MOST_ROWS:
        raise ValueError(f"between 1 and {MOST_ROWS} rows can be fitted, found {count}")
    prior = _Prior(rows.levels)
    pulls, logarithms = np.zeros((count, len(ALL_NAMES))), np.zeros((count, len(ALL_NAMES)))
    noise = np.tile(np.array(NOISE), count)
    for turn in range(ROUNDS):
        sharpness = min(SHARPNESS, FIRST_SHARPNESS * SHARPER**turn)
        louder = noise * max(1.0, FIRST_NOISE * QUIETER**turn)
        found = rows.predicted(logarithms, sharpness=sharpness)
        tails = FIRST_TAILS if turn < FIRST_ROUNDS else TAILS
        weights = (tails + 1) / (tails + ((rows.logs - found).reshape(-1) / louder) ** 2)
        slopes = _slopes(rows, logarithms, found, sharpness)
        wanted = (rows.logs - found + np.einsum("rok,rk->ro", slopes, logarithms)).reshape(-1)
        scaled = (slopes * prior.spreads).reshape(2 * count, -1)
        solved = np.linalg.solve(prior.covariance(scaled) + np.diag(louder**2 / weights), wanted)
        step = (scaled * solved[:, None]).reshape(count, 2, -1).sum(axis=1) - pulls
        now = _unlikely(rows, found, prior.size(pulls), louder, tails)
        for share in SHARES:
            tried = prior.logarithms(pulls + share * step)
            found = rows.predicted(tried, sharpness=sharpness)
            if _unlikely(rows, found, prior.size(pulls + share * step), louder, tails) < now:
                pulls, logarithms = pulls + share * step, tried
                break
    return _by_level(rows.levels, pulls * prior.spreads)


class _Prior:
    """Deviations of the rows' coefficients before anything is measured: normal, shared by rows of one level."""

    def __init__(self, levels: Sequence[Mapping[str, str]]) -> None:
        self.spreads = np.array([SPREADS[name] for name in ALL_NAMES])
        kinds = np.array([KIND_OF[name] for name in ALL_NAMES])
        self._columns = {kind: np.flatnonzero(kinds == kind) for kind in KINDS}
        self._shared = {kind: _shared(levels, LEVEL_SPREADS[kind]) for kind in KINDS}

    def covariance(self, scaled: Array) -> Array:
        """Of the predictions, for slopes times spreads, shape (2 rows, coefficients)."""
        total = np.zeros((len(scaled), len(scaled)))
        for kind, columns in self._columns.items():
            part = scaled[:, columns]
            total += (part @ part.T) * np.repeat(np.repeat(self._shared[kind], 2, axis=0), 2, axis=1)
        return total

    def logarithms(self, pulls: Array) -> Array:
        """The deviations that ``pulls`` stand for."""
        found = np.empty_like(pulls)
        for kind, columns in self._columns.items():
            found[:, columns] = self._shared[kind] @ pulls[:, columns]
        return np.asarray(found * self.spreads)

    def size(self, pulls: Array) -> float:
        """Minus twice their log density, up to a constant."""
        return sum(
            float((pulls[:, columns] * (self._shared[kind] @ pulls[:, columns])).sum())
            for kind, columns in self._columns.items()
        )


def _unlikely(rows: Rows, found: Array, size: float, noise: Array, tails: float) -> float:
    """Minus the log density of measurements and deviations together, up to a constant."""
    off = (rows.logs - found).reshape(-1) / noise
    if not np.isfinite(off).all():
        return np.inf
    return 0.5 * size + 0.5 * (tails + 1) * float(np.log1p(off**2 / tails).sum())


def _shared(levels: Sequence[Mapping[str, str]], spreads: Mapping[str, float]) -> Array:
    """How much of each other's deviations two rows have, shape (rows, rows)."""
    total = np.zeros((len(levels), len(levels)))
    for level, spread in spreads.items():
        number = same_level(levels, level, {})
        total += spread**2 * (number[:, None] == number[None])
    return total


def _slopes(rows: Rows, logarithms: Array, found: Array, sharpness: float) -> Array:
    """Derivatives of both logarithms by each coefficient's, shape (rows, 2, coefficients)."""
    slopes = np.empty((*found.shape, len(ALL_NAMES)))
    for each in range(len(ALL_NAMES)):
        moved = logarithms.copy()
        moved[:, each] += NUDGE
        slopes[:, :, each] = (rows.predicted(moved, sharpness=sharpness) - found) / NUDGE
    return slopes


def _by_level(levels: Sequence[Mapping[str, str]], pulls: Array) -> Effects:
    """What the rows of one name pull together, times the level's variance: the deviation of that name; and the rows counted."""
    sums: dict[str, dict[str, Array]] = defaultdict(lambda: defaultdict(lambda: np.zeros(len(ALL_NAMES))))
    for row, pull in zip(levels, pulls, strict=True):
        for level, name in row.items():
            sums[level][name] += pull
    factors: dict[str, dict[str, dict[str, float]]] = {}
    for level, names in sums.items():
        variance = np.array([LEVEL_SPREADS[KIND_OF[name]].get(level, 0.0) ** 2 for name in ALL_NAMES])
        for name, total in names.items():
            effect = variance * total
            factors.setdefault(level, {})[name] = {
                each: round(float(value), 4)
                for each, value in zip(ALL_NAMES, effect, strict=True)
                if abs(value) >= LEAST_EFFECT
            }
    return Effects(factors, {level: dict(Counter(row[level] for row in levels)) for level in COUNTED_LEVELS})
