"""How much a forecast is to be distrusted, learned from its own errors: adaptive conformal inference (Gibbs and Candes, 2021).

The margin q (a share of the limit) follows ``q += RATE x (1[error > q] - MISS_RATE)`` over the errors, actual less forecast
as a share of the limit, of admitted requests. In the long run errors are above q in ``MISS_RATE`` of the cases whatever their
distribution. Only forecasts within the limit that were close to a refusal teach (forecast and margin over
``TEACHES_FROM`` of the limit, or the limit missed): elsewhere an error decides nothing. Of steps a missed limit alone does not
teach (``binding``): a machine that now and then stands still misses with any margin, and would end up refusing everybody. Nor
does a second miss among the next ``rest`` lessons: misses in a row have one cause (a model that has not seen such steps yet, a
neighbour on the machine), and what they teach is kept for thousands of steps.

Defaults: start 0.10, never under 0.02 nor over 0.6; one miss in 200 is the aim, half of what a P99 limit allows. For the steps
beside readers (``policy/slack.py``): start and least 0.25, one in 1000 is the aim, for an answer has many steps and one of
them over the limit makes it late, and a rest of 64. When it is wrong: after a sudden change of the machine it takes tens of
misses to widen, and thousands of hits to narrow again.
"""

from __future__ import annotations

MISS_RATE = 0.005
RATE = 0.02
START = 0.10
LEAST = 0.02
MOST = 0.6
TEACHES_FROM = 0.75


class LearnedMargin:
    """A share of the limit that is kept back, at least ``least``; ``miss_rate``: how often it may be too little; ``rate``: how
    much wider a miss makes it; ``binding``: only what was close to the limit by its forecast teaches; ``rest``: lessons after a
    miss in which there is no other."""

    def __init__(
        self,
        start: float = START,
        *,
        least: float = LEAST,
        miss_rate: float = MISS_RATE,
        rate: float = RATE,
        binding: bool = False,
        rest: int = 0,
    ) -> None:
        self.share = start
        self._rest = rest
        self._resting = 0
        self._binding = binding
        self._least = least
        self._miss_rate = miss_rate
        self._rate = rate

    def learn(self, *, forecast_s: float, actual_s: float, limit_s: float) -> None:
        """One request, or one step: what was forecast, what came; both from the moment its limit runs from."""
        if forecast_s > limit_s:
            return  # Nothing kept back would have made it fit: it was let in for another reason.
        close = forecast_s >= (TEACHES_FROM - self.share) * limit_s
        if limit_s <= 0 or not (close or (actual_s >= limit_s and not self._binding)):
            return
        missed = (actual_s - forecast_s) / limit_s > self.share
        self._resting = max(0, self._resting - 1)
        if missed and self._resting:
            return
        if missed:
            self._resting = self._rest + 1
        self.share = min(MOST, max(self._least, self.share + self._rate * (float(missed) - self._miss_rate)))
