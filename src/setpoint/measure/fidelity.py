"""Arrival fidelity: whether requests went out when the plan said, at its rate and with its dispersion.

Pure functions over arrays of seconds. Three lists are compared: what was declared (a process), what was planned (one
draw of it) and what was realised (the sends). A difference of realised from planned is somebody's fault; a difference of
planned from declared is chance, stated with its false-alarm rate.

Figures of a list of arrivals in a span: the rate; the coefficient of variation (CV) of the gaps; and the index of
dispersion, the variance over the mean of the counts in windows (Cox and Lewis, The Statistical Analysis of Series of
Events, 1966, section 4.5). Constant arrivals have CV 0 and dispersion 0, Poisson 1 and 1, gamma gaps of a given CV a
dispersion that tends to CV squared in long windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW_ARRIVALS, WINDOW_ARRIVALS_MIN = 10.0, 2.0
WINDOW_MIN_S = 0.05
WINDOWS_MIN, WINDOWS_MAX, WINDOW_OVERLAP = 20, 100_000, 16
ARRIVALS_MIN = 20

# What realised may differ from planned. 0.25 is a quarter of the way from constant arrivals to Poisson arrivals.
RATE_TOLERANCE, RATE_TOLERANCE_REQUESTS = 0.02, 2.0
SHAPE_TOLERANCE, SHAPE_TOLERANCE_SHARE = 0.25, 0.10
# Gaps shorter than this are of the size of a scheduler's jitter, and below what a server's step would notice.
GAP_MIN_S = 0.005

SIMULATIONS = 999
SIMULATED_ARRIVALS_MAX = 2_000_000
FALSE_ALARM = 2.0 / (SIMULATIONS + 1)


@dataclass(frozen=True, slots=True)
class ArrivalFigures:
    """A list of arrivals in a span. ``None`` where too few arrivals or windows are there to tell.

    rate_rps: arrivals per second. gap_cv: CV of the gaps. dispersion: of the counts in windows of ``window_s``.
    """

    n: int
    rate_rps: float
    gap_cv: float | None
    dispersion: float | None
    window_s: float | None


@dataclass(frozen=True, slots=True)
class ArrivalFidelity:
    """Realised against planned arrivals of one span. Lags are send minus intended, in seconds, of what was sent.

    unsent: planned in the span, never sent. reasons: what is off, one sentence each; empty if the sends are faithful.
    """

    planned: ArrivalFigures
    realised: ArrivalFigures
    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_max_s: float | None
    unsent: int
    reasons: tuple[str, ...]

    @property
    def faithful(self) -> bool:
        """Whether the realised arrivals are those of the plan."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and ``faithful``."""
        return asdict(self) | {"reasons": list(self.reasons), "faithful": self.faithful}


@dataclass(frozen=True, slots=True)
class DeclaredFit:
    """A planned list against many draws of the declared process.

    Each interval holds the middle 99.8 % of that figure over the draws; ``None`` where it cannot be told. unusual: the
    figures of the plan that lie outside, each with a false-alarm probability of ``FALSE_ALARM``.
    """

    rate_rps: tuple[float, float]
    gap_cv: tuple[float, float] | None
    dispersion: tuple[float, float] | None
    unusual: tuple[str, ...]


def window_for(rate_rps: float, duration_s: float) -> float | None:
    """Window length for counts: ``WINDOW_ARRIVALS`` expected arrivals, fewer where ``WINDOWS_MIN`` would not fit.

    ``None`` where even ``WINDOW_ARRIVALS_MIN`` cannot be had, or the windows would be shorter than ``WINDOW_MIN_S``.
    """
    if rate_rps <= 0 or duration_s <= 0:
        return None
    longest_s = duration_s / WINDOWS_MIN
    window_s = max(WINDOW_MIN_S, min(WINDOW_ARRIVALS / rate_rps, longest_s), duration_s / WINDOWS_MAX)
    return window_s if window_s <= longest_s and rate_rps * window_s >= WINDOW_ARRIVALS_MIN else None


def arrival_figures(times_s: ArrayLike, start_s: float, end_s: float, *, window_s: float | None = None) -> ArrivalFigures:
    """The figures of the arrivals in ``[start_s, end_s)``; ``times_s`` has shape ``[n]``, in any order.

    window_s: for the dispersion, by default from the rate that is found. Raises ``ValueError`` for an empty span.
    """
    if not end_s > start_s:
        raise ValueError(f"span from {start_s} s to {end_s} s is empty")
    inside = _inside(np.asarray(times_s, dtype=np.float64), start_s, end_s)
    duration_s = end_s - start_s
    rate_rps = inside.size / duration_s
    if window_s is None:
        window_s = window_for(rate_rps, duration_s)
    return ArrivalFigures(
        n=int(inside.size),
        rate_rps=rate_rps,
        gap_cv=_gap_cv(inside),
        dispersion=None if window_s is None else _dispersion(inside, start_s, end_s, window_s),
        window_s=window_s,
    )


def arrival_fidelity(intended_s: ArrayLike, sent_s: ArrayLike, start_s: float, end_s: float) -> ArrivalFidelity:
    """Compare what was sent in ``[start_s, end_s)`` with what was planned there.

    intended_s, sent_s: shape ``[n]``, one entry a request of the whole run, NaN in ``sent_s`` where it was never sent.
    Sends of other phases that fall into the span count as realised: the server saw them there. Raises ``ValueError``
    for an empty span or arrays of different length.
    """
    intended = np.asarray(intended_s, dtype=np.float64)
    sent = np.asarray(sent_s, dtype=np.float64)
    if intended.shape != sent.shape:
        raise ValueError(f"intended_s has shape {intended.shape}, sent_s {sent.shape}; they must be the same")
    planned = arrival_figures(intended, start_s, end_s)
    realised = arrival_figures(sent, start_s, end_s, window_s=planned.window_s)
    here = (intended >= start_s) & (intended < end_s)
    was_sent = here & ~np.isnan(sent)
    lags = sent[was_sent] - intended[was_sent]
    return ArrivalFidelity(
        planned=planned,
        realised=realised,
        lag_p50_s=_percentile(lags, 50),
        lag_p99_s=_percentile(lags, 99),
        lag_max_s=float(lags.max()) if lags.size else None,
        unsent=int(here.sum() - was_sent.sum()),
        reasons=tuple(_differences(planned, realised)),
    )


def declared_fit(
    planned_s: ArrayLike,
    duration_s: float,
    draw: Callable[[float, np.random.Generator], NDArray[np.float64]],
    *,
    seed: int = 0,
) -> DeclaredFit:
    """Compare a planned list on ``[0, duration_s)`` with ``SIMULATIONS`` draws of the process it claims to come from.

    draw: ``draw(duration_s, rng)`` gives the arrival times of one draw. Of a long list only the first part is looked at,
    so that about ``SIMULATED_ARRIVALS_MAX`` arrivals are drawn. Deterministic in ``seed``.
    """
    planned = np.asarray(planned_s, dtype=np.float64)
    most = SIMULATED_ARRIVALS_MAX / SIMULATIONS
    looked_at_s = min(duration_s, duration_s * most / max(1, planned.size))
    found = arrival_figures(planned, 0.0, looked_at_s)
    rng = np.random.default_rng(seed)
    draws = [arrival_figures(draw(looked_at_s, rng), 0.0, looked_at_s, window_s=found.window_s) for _ in range(SIMULATIONS)]
    unusual: list[str] = []

    def judge(name: str, value: float | None, drawn: list[float | None]) -> tuple[float, float] | None:
        known = [one for one in drawn if one is not None]
        if value is None or len(known) < SIMULATIONS:
            return None
        low, high = min(known), max(known)
        margin = 1e-9 * (1.0 + abs(high))
        if not low - margin <= value <= high + margin:
            unusual.append(f"the {name} of the plan is {value:.3g}; draws of the process have {low:.3g} to {high:.3g}")
        return low, high

    rate = judge("rate", found.rate_rps, [one.rate_rps for one in draws])
    assert rate is not None
    gap_cv = judge("CV of the gaps", found.gap_cv, [one.gap_cv for one in draws])
    dispersion = judge("index of dispersion", found.dispersion, [one.dispersion for one in draws])
    return DeclaredFit(rate, gap_cv, dispersion, tuple(unusual))


def _differences(planned: ArrivalFigures, realised: ArrivalFigures) -> list[str]:
    """What realised arrivals lack of the plan's, in words with numbers."""
    reasons = []
    if abs(realised.n - planned.n) > RATE_TOLERANCE * planned.n + RATE_TOLERANCE_REQUESTS:
        reasons.append(f"{realised.rate_rps:.4g} requests/s were sent where {planned.rate_rps:.4g} were planned")
    if (
        planned.gap_cv is not None
        and realised.gap_cv is not None
        and planned.rate_rps * GAP_MIN_S <= 1.0
        and _shape_differs(planned.gap_cv, realised.gap_cv)
    ):
        reasons.append(f"the gaps between sends have a CV of {realised.gap_cv:.2f} where {planned.gap_cv:.2f} was planned")
    if (
        planned.dispersion is not None
        and realised.dispersion is not None
        and _shape_differs(planned.dispersion, realised.dispersion)
    ):
        reasons.append(
            f"sends have an index of dispersion of {realised.dispersion:.2f} in windows of "
            f"{(planned.window_s or 0.0) * 1e3:.0f} ms where {planned.dispersion:.2f} was planned"
        )
    return reasons


def _shape_differs(planned: float, realised: float) -> bool:
    return abs(realised - planned) > max(SHAPE_TOLERANCE, SHAPE_TOLERANCE_SHARE * planned)


def _inside(times_s: NDArray[np.float64], start_s: float, end_s: float) -> NDArray[np.float64]:
    """The times within the span, in order; NaN is outside."""
    return np.sort(times_s[(times_s >= start_s) & (times_s < end_s)])


def _gap_cv(inside_s: NDArray[np.float64]) -> float | None:
    gaps_s = np.diff(inside_s)
    if inside_s.size < ARRIVALS_MIN or not gaps_s.sum() > 0:
        return None
    return float(gaps_s.std(ddof=1) / gaps_s.mean())


def _dispersion(inside_s: NDArray[np.float64], start_s: float, end_s: float, window_s: float) -> float | None:
    """Variance over mean of the counts in windows that begin every ``WINDOW_OVERLAP``-th part of a window.

    Windows that overlap use the arrivals better, and an arrival that slips over the edge of one changes little.
    """
    steps = int((end_s - start_s) / window_s * WINDOW_OVERLAP + 1e-9)
    if steps < WINDOWS_MIN * WINDOW_OVERLAP or not inside_s.size:
        return None
    places = ((inside_s - start_s) / window_s * WINDOW_OVERLAP).astype(np.int64)
    up_to = np.concatenate([[0], np.cumsum(np.bincount(places[places < steps], minlength=steps))])
    counts = up_to[WINDOW_OVERLAP:] - up_to[:-WINDOW_OVERLAP]
    return float(counts.var(ddof=1) / counts.mean()) if counts.any() else None


def _percentile(values: NDArray[np.float64], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values.size else None
