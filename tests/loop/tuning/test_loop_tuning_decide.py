"""What to do next: by chance, by what was compared, by the budget, always with a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tuning_world import SPACE, requirement

from setpoint.loop.forecast.forecast import Forecast, Outcome, summed_up
from setpoint.loop.forecast.worlds import World
from setpoint.loop.tuning.agreement import Compared
from setpoint.loop.tuning.decide import MOST_REPEATS, MOST_TRIALS, WORTH_MEASURING, Action, decide
from setpoint.loop.tuning.odds import Prospect
from setpoint.loop.tuning.trial import Comparison
from setpoint.record import Candidate, Phase, PhaseMeasures, Predicted, SloReport, Summary, Verdict

NAMES = tuple(SPACE)
BEST = NAMES[0]


def figures() -> PhaseMeasures:
    nothing = Summary(n=0)
    return PhaseMeasures(
        offered=0, ok=0, late=0, shed=0, failed=0, dropped=0, unfinished=0, duration_s=1.0,
        ttft_s=nothing, itl_s=nothing, max_gap_s=nothing, tpot_s=nothing, e2e_s=nothing,
        goodput_rps=0.0, goodput_fraction=None, output_tokens_per_s=0.0, prompt_tokens_per_s=0.0,
    )  # fmt: skip


def foretold(name: str) -> Forecast:
    outcome = Outcome(World(0.0, 0, 0), Predicted(sustained=figures(), source="measured"), SloReport(verdict=Verdict.MET))
    return summed_up(SPACE[name], (outcome,), 0.05)


def seen(chances: dict[str, float]) -> dict[str, Prospect]:
    return {name: Prospect(name, foretold(name), chance, closely=True) for name, chance in chances.items()}


def best(verdict: Verdict = Verdict.MET) -> Candidate:
    return Candidate(name=BEST, config={}, slo=SloReport(verdict=verdict))


def compared(*, agrees: bool) -> Comparison:
    high = 0.2 if agrees else 0.11
    figure = Compared(Phase.SUSTAINED, "ttft", "p50", predicted=0.1, measured=0.15, low=0.09, high=high)
    return Comparison(BEST, 1, (0,), "measured", "steps", (figure,))


def test_the_most_likely_one_is_first() -> None:
    assert requirement().name == "virtual"
    decision = decide(None, seen({NAMES[1]: 0.2, NAMES[2]: 0.7}), {}, (), None, 60.0)
    assert (decision.action, decision.name) == (Action.MEASURE, NAMES[2])


def test_one_that_may_be_better_is_measured_before_anything_is_repeated() -> None:
    decision = decide(best(), seen({BEST: 0.0, NAMES[1]: 0.06}), {BEST: 1}, (), None, 60.0)
    assert (decision.action, decision.name) == (Action.MEASURE, NAMES[1])


def test_without_a_comparison_the_best_one_is_measured_again() -> None:
    decision = decide(best(), seen({BEST: 0.0, NAMES[1]: 0.05}), {BEST: 1}, (), None, 60.0)
    assert (decision.action, decision.name) == (Action.REPEAT, BEST)


def test_it_stops_where_prediction_and_measurement_agree() -> None:
    decision = decide(best(), seen({BEST: 0.0, NAMES[1]: 0.05}), {BEST: 1}, (compared(agrees=True),), None, 60.0)
    assert decision.action is Action.STOP
    assert decision.settled


def test_where_they_do_not_agree_it_looks_again_but_not_for_ever() -> None:
    chances = seen({BEST: 0.0})
    once = decide(best(), chances, {BEST: 2}, (compared(agrees=False),), None, 60.0)
    assert once.action is Action.REPEAT
    assert "ttft p50 by -33%" in once.why
    often = decide(best(), chances, {BEST: MOST_REPEATS + 1}, (compared(agrees=False),), None, 60.0)
    assert often.action is Action.STOP
    assert not often.settled


def test_what_does_not_meet_is_confirmed_as_well() -> None:
    """Seen: a slow machine missed the requirement, and the run ended with figures from physics that were a third off."""
    chances = seen({BEST: 0.0, NAMES[1]: 0.0})
    once = decide(best(Verdict.MISSED), chances, {BEST: 1}, (), None, 60.0)
    assert once.action is Action.REPEAT
    confirmed = decide(best(Verdict.MISSED), chances, {BEST: 2}, (compared(agrees=True),), None, 60.0)
    assert confirmed.action is Action.STOP
    assert confirmed.settled
    assert "does not meet" in confirmed.why


@given(
    chances=st.lists(st.floats(0, 1), min_size=1, max_size=len(NAMES)),
    measured=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 4)),
    verdict=st.sampled_from(Verdict),
    agrees=st.none() | st.booleans(),
    left_s=st.none() | st.floats(-10, 1000),
)
def test_it_never_goes_on_for_ever_nor_over_the_budget(
    chances: list[float], measured: dict[str, int], verdict: Verdict, agrees: bool | None, left_s: float | None
) -> None:
    known = seen(dict(zip(NAMES, chances, strict=False)))
    told = () if agrees is None else (compared(agrees=agrees),)
    measured = {BEST: 1, **measured}
    decision = decide(best(verdict), known, measured, told, left_s, 60.0)
    if decision.action is Action.STOP:
        return
    assert sum(measured.values()) < MOST_TRIALS
    assert left_s is None or left_s >= 60.0
    assert decision.name is not None
    if decision.action is Action.MEASURE:
        assert decision.name not in measured
        assert known[decision.name].chance > WORTH_MEASURING
