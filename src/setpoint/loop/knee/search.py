"""The sequential search: which rate to probe next, and what is known of the knee. Pure: no clock, no I/O, no dice.

Scouts find the region: few requests, rates in long strides as far as what was seen allows to extrapolate. Then every probe
goes to where the knee is believed to be, a few percent to either side, until the interval is narrow enough or the probes are
used up. Where probes come with traces the belief is a server fitted to them (``estimate``); where there are none, or where no
such server is like what was seen, a posterior over counts (``counts``) has its say, which knows less and assumes less.
"""

from __future__ import annotations

import math

from setpoint.loop.knee.counts import CountEstimator
from setpoint.loop.knee.estimate import Estimate, TwinEstimator
from setpoint.loop.knee.occupancy import Occupancy
from setpoint.loop.knee.probes import Knee, KneeOptions, Probe, ProbeResult
from setpoint.loop.knee.words import belief_words, knee_words

AROUND = (1.0, 1.04, 0.97, 1.02, 0.98)
CLOSE = math.log(1.15)
BEYOND = math.log(1.6)
STRIDE, CROWDED_STRIDE, DOWN_STRIDE = math.log(6.0), math.log(3.0), math.log(20.0)
CROWDED = 4
ENOUGH = 0.8
Z95 = 1.96
CLOSE_PROBES, ALONE_PROBES = 2, 2
MISFIT, MISFIT_MANY, MISFIT_ERROR = {3: 2.6, 4: 2.4, 5: 2.2}, 2.0, 0.08
ROUNDING = 1e-9
MET = "met"
SHOWN_BELOW = (0.95, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7, 0.65, 0.6)
SHOWN_SHARE = 0.25


class KneeSearch:
    """Ask for a probe, tell what it showed, until no more is asked for.

    The same results in the same order give the same probes. ``check_integrity`` holds after every call.
    """

    def __init__(self, options: KneeOptions) -> None:
        self._options = options
        self._results: list[ProbeResult] = []
        self._estimate: Estimate | None = None
        self._asked: Probe | None = None
        self._twin = TwinEstimator(options)
        self._counts = CountEstimator(options)
        self._showed = False

    def next_probe(self) -> Probe | None:
        """The next probe, the same until its result is observed; ``None`` when the search is over."""
        if self._asked is None:
            self._asked = self._choose()
        return self._asked

    def observe(self, result: ProbeResult) -> None:
        """What a probe showed; its rate may differ from what was asked. Raises ``ValueError`` for one without requests."""
        if result.offered < 1 or not 0 <= result.ok <= result.offered or not result.rate_rps > 0:
            raise ValueError(f"a probe of {result.offered} requests, {result.ok} ok, at {result.rate_rps}/s cannot be")
        if result.counts and len(result.counts) != len(self._options.criteria):
            raise ValueError(f"{len(result.counts)} counts for {len(self._options.criteria)} criteria")
        if not result.counts and len(self._options.criteria) > 1:
            raise ValueError("with several criteria a probe needs a count for each")
        self._results.append(result)
        self._asked = None
        self._estimate = self._believe(fine=False)

    def result(self) -> Knee:
        """What is known now; may be asked for at any time."""
        if not self._results:
            return Knee(None, (0.0, math.inf), False, "", "No probe was made.")
        belief = self._believe(fine=True)
        limited_by = self._options.criteria[belief.criterion].name
        interval = self._interval(belief)
        inside = math.isfinite(belief.log_rate) and self._seen_close(belief) > 0
        rate = math.exp(belief.log_rate) if inside else None
        settled = rate is not None and Z95 * belief.error <= self._options.tolerance
        words = knee_words(rate, interval, settled, limited_by, self._results, self._options)
        curve = self._twin.curve(belief) if inside else ()
        return Knee(rate, interval, settled, limited_by, words, tuple(self._results), curve)

    def belief_words(self) -> str:
        """Where the knee is believed to be now, in a few words."""
        if self._estimate is None:
            return "nothing is known yet"
        return belief_words(self._estimate.log_rate, self._interval(self._estimate))

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if more was probed than allowed."""
        assert len(self._results) <= self._options.probes_max or self.next_probe() is None

    def _believe(self, *, fine: bool) -> Estimate:
        near = self._estimate.log_rate if self._estimate is not None and math.isfinite(self._estimate.log_rate) else None
        counted = self._counts.estimate(self._results, near=near)
        if not self._traced() or not self._served_any():
            return counted
        believed = self._twin.estimate(self._results, near=near, fine=fine)
        limit = MISFIT.get(len(self._results), MISFIT_MANY) if len(self._results) >= min(MISFIT) else math.inf
        return _between(believed, counted) if believed.misfit > limit else believed

    def _choose(self) -> Probe | None:
        options = self._options
        if not self._results:
            return Probe(options.start_rps, min(options.scout_requests, options.requests_max))
        assert self._estimate is not None
        if len(self._results) >= options.probes_max:
            return None
        done = self._done()
        if (done or len(self._results) == options.probes_max - 1) and (shown := self._to_show()) is not None:
            return self._within(shown, options.requests_max)
        if done:
            return None
        wanted = self._estimate.log_rate
        lowest, highest = self._lowest() - self._stride_down(), self._highest() + self._stride_up()
        if lowest <= wanted <= max(highest, self._highest() + BEYOND):
            wanted += math.log(AROUND[self._seen_close(self._estimate) % len(AROUND)])
            return self._within(wanted, options.requests_max)
        return self._within(min(max(wanted, lowest), highest), min(options.scout_requests, options.requests_max))

    def _to_show(self) -> float | None:
        """Where the last probe should show that the requirement is met, if none near the knee did; the logarithm of its rate.

        Only where verdicts on probes are told, and once. The rate is the highest of a few below the knee at which so few
        are expected to be bad that a probe can show it.
        """
        belief = self._estimate
        assert belief is not None
        told = any(result.met for result in self._results)
        if not told or self._showed or not math.isfinite(belief.log_rate) or not self._seen_close(belief):
            return None
        floor = belief.log_rate + math.log(SHOWN_BELOW[-1])
        if any(result.met == MET and math.log(result.rate_rps) >= floor for result in self._results):
            return None
        self._showed = True
        allowed = self._options.criteria[belief.criterion].allowed
        for factor in SHOWN_BELOW:
            expected = self._twin.expected(belief, belief.log_rate + math.log(factor))
            if expected is not None and expected <= SHOWN_SHARE * allowed:
                return belief.log_rate + math.log(factor)
        return floor

    def _within(self, log_rate: float, requests: int) -> Probe:
        return Probe(min(max(math.exp(log_rate), self._options.least_rps), self._options.most_rps), requests)

    def _done(self) -> bool:
        """Settled with a safety margin on direct evidence, or without a knee as far as may be or need be looked."""
        assert self._estimate is not None
        belief = self._estimate
        if belief.log_rate == -math.inf:
            alone = self._traced() and len(self._results) >= ALONE_PROBES and self._missed_at_least_rate()
            return alone or self._lowest() <= math.log(self._options.least_rps) + ROUNDING
        if belief.log_rate >= math.log(self._options.most_rps):
            return self._highest() >= math.log(self._options.most_rps) - ROUNDING
        narrow = Z95 * belief.error <= ENOUGH * self._options.tolerance
        return narrow and self._seen_close(belief) >= CLOSE_PROBES

    def _missed_at_least_rate(self) -> bool:
        """Whether the slowest probe itself had too many bad samples."""
        assert self._estimate is not None
        place = self._estimate.criterion
        slowest = min(self._results, key=lambda result: result.rate_rps).count(place)
        return slowest.bad > self._options.criteria[place].allowed * slowest.samples

    def _stride_up(self) -> float:
        """How far above the highest probe may be extrapolated: farther from a server that had hardly anything to do."""
        busiest = max(self._results, key=lambda result: result.rate_rps)
        crowded = busiest.trace is None or Occupancy(busiest.trace).most_present >= CROWDED
        return CROWDED_STRIDE if crowded else STRIDE

    def _stride_down(self) -> float:
        """How far below the lowest probe: far from overload, which tells the capacity; less if that told nothing."""
        assert self._estimate is not None
        return DOWN_STRIDE if math.isfinite(self._estimate.log_rate) else CROWDED_STRIDE

    def _served_any(self) -> bool:
        """Whether anything ended well: of a server that served nobody there is nothing to fit."""
        return any(result.trace is not None and bool(result.trace.complete.any()) for result in self._results)

    def _traced(self) -> bool:
        return all(result.trace is not None for result in self._results)

    def _seen_close(self, belief: Estimate) -> int:
        return sum(abs(math.log(result.rate_rps) - belief.log_rate) < CLOSE for result in self._results)

    def _lowest(self) -> float:
        return math.log(min(result.rate_rps for result in self._results))

    def _highest(self) -> float:
        return math.log(max(result.rate_rps for result in self._results))

    def _interval(self, belief: Estimate) -> tuple[float, float]:
        if belief.log_rate == math.inf:
            return math.exp(self._highest()), math.inf
        if belief.log_rate == -math.inf:
            return 0.0, math.exp(self._lowest())
        half = Z95 * belief.error
        return math.exp(belief.log_rate - half), math.exp(belief.log_rate + half)


def _between(modelled: Estimate, counted: Estimate) -> Estimate:
    """Of two opinions, neither to be trusted much, the mean by their precision; the counts alone if the model has none."""
    if not math.isfinite(modelled.log_rate) or not math.isfinite(counted.log_rate):
        return counted
    errors = math.hypot(modelled.error, MISFIT_ERROR), counted.error
    one, other = errors[0] ** -2, errors[1] ** -2
    log_rate = (one * modelled.log_rate + other * counted.log_rate) / (one + other)
    apart = abs(modelled.log_rate - counted.log_rate) / 4.0
    return Estimate(log_rate, math.hypot((one + other) ** -0.5, apart), counted.criterion)
