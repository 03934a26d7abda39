"""What happened in a run of the loop, in order, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from setpoint.loop.forecast.forecast import Forecast
from setpoint.loop.forecast.machine import KnownMachine
from setpoint.loop.tuning.decide import Decision
from setpoint.loop.tuning.learning import Lesson
from setpoint.loop.tuning.odds import Prospect
from setpoint.loop.tuning.trial import Comparison, Trial
from setpoint.record import Candidate
from setpoint.report.choice import best_of
from setpoint.requirement import Objective


@dataclass(frozen=True, slots=True)
class Iteration:
    """One turn: why whom was measured, the forecast made before, how the two compare, and what was learned.

    trial: place among the trials, ``None`` if the server failed; then ``failure`` says how.
    """

    decision: Decision
    forecast: Forecast
    trial: int | None
    comparison: Comparison | None = None
    lesson: Lesson | None = None
    failure: Exception | None = None


@dataclass(slots=True)
class History:
    """``ended``: the decision that ended it; ``None`` if the user did. ``held_out``: comparisons made afterwards, with the
    machine as other trials show it. ``prospects``: every configuration as it was seen last."""

    objective: Objective
    trials: list[Trial] = field(default_factory=list)
    iterations: list[Iteration] = field(default_factory=list)
    held_out: list[tuple[Forecast, Comparison]] = field(default_factory=list)
    prospects: Mapping[str, Prospect] = field(default_factory=dict)
    machine: KnownMachine | None = None
    ended: Decision | None = None
    interrupted: bool = False

    @property
    def attempts(self) -> Counter[str]:
        """How often each configuration was served, whether or not it came to a measurement."""
        return Counter(each.decision.name for each in self.iterations if each.decision.name is not None)

    @property
    def latest(self) -> dict[str, tuple[int, Trial]]:
        """The last measurement of each configuration, with its place among the trials, in the order of the first ones."""
        found: dict[str, tuple[int, Trial]] = {}
        for place, trial in enumerate(self.trials):
            found[trial.name] = (place, trial)
        return found

    def entries(self) -> list[Candidate]:
        """What was measured, one entry a configuration, each with what was predicted of it."""
        return [trial.entry(self.prediction_of(name)) for name, (_, trial) in self.latest.items()]

    def best(self) -> Candidate | None:
        """What the rule of choice takes of what was measured, or what came nearest."""
        entries = [each for each in self.entries() if each.measured is not None]
        return best_of(entries, self.objective) if entries else None

    def comparisons(self) -> list[Comparison]:
        """Those that are a test of the prediction, in the order of the measurements."""
        every = [each.comparison for each in self.iterations if each.comparison is not None]
        tests = [each for each in (*every, *(compared for _, compared in self.held_out)) if each.independent]
        return sorted(tests, key=lambda each: each.trial)

    def shown_comparison(self, name: str) -> Comparison | None:
        """The last that is a test, else the last there is."""
        tests = [each for each in self.comparisons() if each.name == name]
        every = [each.comparison for each in self.iterations if each.comparison is not None and each.comparison.name == name]
        return next(iter([*tests[-1:], *every[-1:]]), None)

    def prediction_of(self, name: str) -> Forecast | None:
        """The forecast behind ``shown_comparison``."""
        shown = self.shown_comparison(name)
        pairs = [(each.forecast, each.comparison) for each in self.iterations if each.comparison is not None]
        return next((forecast for forecast, compared in (*self.held_out, *pairs) if compared is shown), None)

    def failures(self) -> dict[str, Exception]:
        """Whose server failed last, and how."""
        return {
            each.decision.name: each.failure
            for each in self.iterations
            if each.failure is not None and each.decision.name is not None
        }

    def as_dict(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """For the report: ``facts``, then everything."""
        best = self.best()
        shown = self.shown_comparison(best.name) if best is not None else None
        return {
            **facts,
            "measurements": len(self.trials),
            "configurations": len(self.prospects),
            "iterations": [_iteration(number, each) for number, each in enumerate(self.iterations, 1)],
            "comparison": _comparison(shown) if shown is not None else None,
            "ended": None
            if self.ended is None
            else {"settled": self.ended.settled, "why": self.ended.why, "left": self.interrupted},
            "space": [_prospect(each, self.attempts[each.name]) for each in self.prospects.values()],
        }


def _iteration(number: int, each: Iteration) -> dict[str, Any]:
    return {
        "number": number,
        "action": str(each.decision.action),
        "candidate": each.decision.name,
        "why": each.decision.why,
        "predicted_verdict": str(each.forecast.slo.verdict),
        "held_probability": each.forecast.held_probability,
        "comparison": _comparison(each.comparison) if each.comparison is not None else None,
        "learned": each.lesson.as_dict() if each.lesson is not None else None,
        "failure": str(each.failure) if each.failure is not None else None,
    }


def _comparison(each: Comparison) -> dict[str, Any]:
    return {
        "candidate": each.name,
        "independent": each.independent,
        "agrees": each.agrees,
        "source": each.source,
        "words": each.words,
        "learned_from": [place + 1 for place in each.learned_from],
        "measurement": each.trial + 1,
        "figures": [figure.as_dict() for figure in each.figures],
    }


def _prospect(each: Prospect, measured: int) -> dict[str, Any]:
    figures = each.forecast.predicted.sustained
    return {
        "name": each.name,
        "config": each.forecast.config.model_dump(mode="json"),
        "measured": measured,
        "chance": each.chance,
        "held_probability": each.forecast.held_probability,
        "verdict": str(each.forecast.slo.verdict),
        "goodput_fraction": figures.goodput_fraction,
        "ttft_p95_s": figures.ttft_s.p95,
        "itl_p99_s": figures.itl_s.p99,
        "e2e_p95_s": figures.e2e_s.p95,
        "output_tokens_per_s": figures.output_tokens_per_s,
    }
