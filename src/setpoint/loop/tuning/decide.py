"""What to do next: measure a configuration, measure the best one again, or stop; a pure function, with the reason in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from setpoint.loop.tuning.odds import Prospect
from setpoint.loop.tuning.trial import Comparison
from setpoint.record import Candidate, Verdict

WORTH_MEASURING = 0.05
"""A chance to be better that is worth a measurement if it is larger."""

MOST_TRIALS = 8
MOST_REPEATS = 2


class Action(StrEnum):
    """``MEASURE``: one that was not measured. ``REPEAT``: the best one once more. ``STOP``: nothing more."""

    MEASURE = "measure"
    REPEAT = "repeat"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Decision:
    """name: whom it is about (of a stop, the best one). settled: of a stop, whether there is nothing left to be found."""

    action: Action
    name: str | None
    why: str
    settled: bool = False


def decide(
    best: Candidate | None,
    prospects: Mapping[str, Prospect],
    measured: Mapping[str, int],
    comparisons: Sequence[Comparison],
    time_left_s: float | None,
    trial_s: float,
) -> Decision:
    """The next step.

    measured: how often each configuration was, failures included. comparisons: those that are independent. time_left_s:
    of the budget, ``None`` without one; a trial takes about ``trial_s``.
    """
    open_ = [each for name, each in prospects.items() if name not in measured]
    if best is None:
        if not open_ or sum(measured.values()) >= MOST_TRIALS:
            return Decision(
                Action.STOP, None, f"{sum(measured.values())} configurations were tried, and none could be measured."
            )
        if measured and time_left_s is not None and time_left_s < trial_s:
            why = f"The budget is used up, and none of the {sum(measured.values())} that were tried could be measured."
            return Decision(Action.STOP, None, why)
        first = max(open_, key=lambda each: each.chance)
        return Decision(
            Action.MEASURE, first.name, f"Predicted to be the best of {len(prospects)} with {first.chance:.0%} probability."
        )
    next_ = max(open_, key=lambda each: each.chance, default=None)
    wanted = _wanted(best, next_, measured, comparisons)
    if wanted.action is Action.STOP:
        return wanted
    if sum(measured.values()) >= MOST_TRIALS:
        return Decision(Action.STOP, best.name, f"{MOST_TRIALS} measurements are the bound. Left: {_left(wanted)}")
    if time_left_s is not None and time_left_s < trial_s:
        return Decision(
            Action.STOP,
            best.name,
            f"The budget is used up: {max(0.0, time_left_s):.0f} s are left and a measurement takes {trial_s:.0f} s."
            f" Left: {_left(wanted)}",
        )
    return wanted


def _wanted(
    best: Candidate, next_: Prospect | None, measured: Mapping[str, int], comparisons: Sequence[Comparison]
) -> Decision:
    """What there is to do if time were no matter."""
    if next_ is not None and next_.chance > WORTH_MEASURING:
        return Decision(
            Action.MEASURE,
            next_.name,
            f"With {next_.chance:.0%} probability it is better than {best.name}, the best so far ({best.slo.verdict}).",
        )
    nobody = f"No other configuration is better than {best.name} with more than {WORTH_MEASURING:.0%} probability"
    if best.slo.verdict is not Verdict.MET:
        words = "does not meet" if best.slo.verdict is Verdict.MISSED else "is not shown to meet"
        nobody += f", and {best.name} {words} the requirement"
    own = [each for each in comparisons if each.name == best.name]
    if own and own[-1].agrees:
        return Decision(
            Action.STOP, best.name, f"{nobody}, and its prediction agrees with its measurement as stated.", settled=True
        )
    if measured.get(best.name, 0) > MOST_REPEATS:
        return Decision(
            Action.STOP, best.name, f"{nobody}; its prediction does not agree with its measurement as stated, {_off(own[-1:])}."
        )
    if own:
        return Decision(Action.REPEAT, best.name, f"{nobody}, but its prediction was off: {_off(own[-1:])}.")
    return Decision(
        Action.REPEAT, best.name, f"{nobody}; once more, to compare it with what was predicted from other measurements."
    )


def _left(wanted: Decision) -> str:
    what = "measure" if wanted.action is Action.MEASURE else "repeat"
    return f"{what} {wanted.name} ({wanted.why.rstrip('.')})."


def _off(own: Sequence[Comparison]) -> str:
    words = [
        f"{figure.metric} {figure.statistic} by {figure.error:+.0%}"
        for each in own
        for figure in each.figures
        if not figure.agrees and figure.phase == "sustained"
    ]
    return ", ".join(words) or "nothing was compared"
