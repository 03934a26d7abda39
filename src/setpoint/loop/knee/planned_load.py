"""What the search has to know of the load beforehand: its arrival process at any rate, and the sizes of requests to come."""

from __future__ import annotations

import numpy as np

from setpoint.loop.errors import BadInput
from setpoint.loop.knee.probes import GapMaker, SizeMaker, constant_gaps, gamma_gaps, poisson_gaps
from setpoint.record import Phase
from setpoint.requirement import Arrival, ArrivalProcess, RequestProfile
from setpoint.requirement.arrival import STATIONARY
from setpoint.statistics import FloatArray, IntArray
from setpoint.workload.drafts import Segment
from setpoint.workload.plan import LoadPlan

SIZES_KNOWN = 20_000
SIZES_SEED = 17


def gaps_of(arrival: Arrival) -> GapMaker:
    """Gaps of mean 1 of the process. Raises ``BadInput`` for one whose rate changes: it has no one rate to search."""
    if arrival.process not in STATIONARY:
        raise BadInput(f"--find-knee: {arrival.process.value} arrivals have more than one rate; use constant, poisson or gamma")
    if arrival.process is ArrivalProcess.CONSTANT:
        return constant_gaps
    return gamma_gaps(arrival.cv) if arrival.process is ArrivalProcess.GAMMA else poisson_gaps


def profile_at(profile: RequestProfile, rate_rps: float) -> RequestProfile:
    """The same requests at another rate and without a burst."""
    return profile.model_copy(update={"arrival": profile.arrival.at_mean(rate_rps), "burst": None})


def size_maker(profile: RequestProfile) -> SizeMaker | None:
    """Draws prompt and output tokens as the plan does; ``None`` with sessions, whose prompts grow with what came before.

    The sizes are drawn once; a draw of ``n`` takes each equally often.
    """
    if any(shape.sessions is not None for shape in profile.shapes):
        return None
    drafts = Segment(SIZES_SEED, 0, Phase.SUSTAINED).drafts(np.zeros(SIZES_KNOWN), profile.shapes, SIZES_KNOWN)
    known = np.array([(draft.prompt_tokens, draft.output_tokens) for draft in drafts], dtype=np.float64)

    def draw(n: int, rng: np.random.Generator) -> FloatArray:
        rows: IntArray = rng.permutation((rng.integers(SIZES_KNOWN) + np.arange(n)) % SIZES_KNOWN)
        drawn: FloatArray = known[rows]
        return drawn

    return draw


def planned_sizes(plan: LoadPlan) -> FloatArray | None:
    """Prompt and output tokens of the plan's requests in the order of sending, shape ``[n, 2]``; ``None`` with sessions."""
    if any(request.session is not None for request in plan.requests):
        return None
    sizes = [(request.prompt_tokens, request.max_tokens) for request in plan.requests]
    return np.array(sizes, dtype=np.float64).reshape(len(sizes), 2)
