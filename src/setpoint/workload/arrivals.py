"""When requests arrive, generated before the run (an open loop): at one rate, or at a rate that changes.

All times come from one generator in one process, so the arrivals have the dispersion they claim: the variance of the
count in a window over its mean is 1 for Poisson and whatever is made of it, 0 (nearly) for constant, and tends to
``cv**2`` for gamma. How many worker processes send them changes nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from setpoint.requirement import Arrival, ArrivalProcess
from setpoint.requirement.arrival import STATIONARY
from setpoint.workload.rate_curve import curve_of

MAX_ARRIVALS = 1_000_000
SPARE_ARRIVALS = 1.01
"""So many times ``MAX_ARRIVALS`` may be expected of a phase: one that is to have exactly so many may by chance be longer."""


def offsets_of(arrival: Arrival, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Arrival times of a sustained phase in ``[0, duration_s)``, ascending, in seconds, shape ``[n]``.

    A ramp goes from its first rate to its last within the phase; steps and on/off patterns repeat as often as the phase is
    long. Raises ``ValueError`` if more than ``MAX_ARRIVALS`` are to be expected.
    """
    if arrival.process in STATIONARY:
        return arrival_offsets_s(arrival.process, arrival.rate_rps, duration_s, rng, cv=arrival.cv)
    if duration_s <= 0:
        return np.zeros(0)
    curve = curve_of(arrival, duration_s)
    _check_count(curve.total, arrival.mean_rps, duration_s)
    return curve.times_s(_renewal(1.0, 1.0, curve.total, rng))


def arrival_offsets_s(
    process: ArrivalProcess, rate_rps: float, duration_s: float, rng: np.random.Generator, *, cv: float = 1.0
) -> NDArray[np.float64]:
    """Arrival times at one rate in ``[0, duration_s)``, ascending, in seconds, shape ``[n]``.

    Poisson and gamma arrivals are stationary from the first instant: the expected count is exactly ``rate_rps *
    duration_s``. Constant arrivals come at ``0, 1/rate, 2/rate, ...``.

    cv: coefficient of variation of the gaps (gamma only; 1 is Poisson, above 1 comes in clumps).
    Raises ``ValueError`` if more than ``MAX_ARRIVALS`` are to be expected, and for a process whose rate changes.
    """
    if process not in STATIONARY:
        raise ValueError(f"{process.value} arrivals have more than a rate: use offsets_of")
    if rate_rps <= 0 or duration_s < 0 or cv <= 0:
        raise ValueError(f"rate_rps ({rate_rps}) and cv ({cv}) must be above 0, duration_s ({duration_s}) at least 0")
    expected = rate_rps * duration_s
    _check_count(expected, rate_rps, duration_s)
    if process is ArrivalProcess.CONSTANT:
        offsets = np.arange(math.ceil(expected) + 1) / rate_rps
        return offsets[offsets < duration_s]
    shape = 1.0 if process is ArrivalProcess.POISSON else cv**-2
    return _renewal(shape, rate_rps, duration_s, rng)


def _renewal(shape: float, rate_rps: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Stationary renewal process with gamma gaps of the given shape and mean ``1 / rate_rps``.

    The wait from a random instant to the next arrival is a uniform share of a length-biased gap, and a length-biased
    gamma gap is a gamma gap with its shape raised by one (Cox, Renewal Theory, 1962, section 5).
    """
    scale_s = 1.0 / (rate_rps * shape)
    last_s = rng.random() * rng.gamma(shape + 1.0, scale_s)
    pieces = [np.array([last_s])]
    arrivals = 1
    while last_s < duration_s and arrivals <= 2 * MAX_ARRIVALS:
        left = rate_rps * (duration_s - last_s)
        gaps = rng.gamma(shape, scale_s, size=int(left + 4 * math.sqrt(left / shape)) + 16)
        pieces.append(last_s + np.cumsum(gaps))
        last_s = float(pieces[-1][-1])
        arrivals += gaps.size
    offsets = np.concatenate(pieces)
    return offsets[offsets < duration_s]


def _check_count(expected: float, rate_rps: float, duration_s: float) -> None:
    if expected > SPARE_ARRIVALS * MAX_ARRIVALS:
        raise ValueError(
            f"{rate_rps:g} requests/s for {duration_s:g} s are {expected:.0f} requests, at most {MAX_ARRIVALS} can be "
            "planned: lower the rate or the duration"
        )
