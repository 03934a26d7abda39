"""One measurement of the loop: what was served, what was foretold of it, what it showed."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.loop.forecast.forecast import Forecast
from setpoint.loop.forecast.machine import KnownMachine, MeasuredTables
from setpoint.loop.measured import MeasuredRun
from setpoint.loop.tuning.agreement import Compared, agree, compared
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Candidate, Verdict


@dataclass(frozen=True, slots=True)
class Trial:
    """``run`` of ``config``; ``wall_s``: what it took, starting the server included. resumed: measured in an earlier go."""

    name: str
    config: ServingConfig
    run: MeasuredRun
    wall_s: float = 0.0
    resumed: bool = False

    @property
    def tables(self) -> MeasuredTables | None:
        """What the machine can be learned from; ``None`` without steps."""
        steps = self.run.steps
        if steps is None or not steps.num_rows:
            return None
        return MeasuredTables(self.run.requests, steps, self.run.decisions)

    def entry(self, forecast: Forecast | None = None) -> Candidate:
        """As an entry of the report; inconclusive, whatever it showed, where it may not be believed."""
        predicted = forecast.predicted if forecast is not None else None
        found = self.run.candidate(self.name, self.config.model_dump(mode="json"), predicted)
        if not self.run.validity.valid:
            found = found.model_copy(update={"slo": found.slo.model_copy(update={"verdict": Verdict.INCONCLUSIVE})})
        return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction beside the measurement of ``name``, number ``trial`` of the run's measurements (from 0).

    source: where the machine that it was made with was known from. learned_from: the trials among it.
    """

    name: str
    trial: int
    learned_from: tuple[int, ...]
    source: str
    words: str
    figures: tuple[Compared, ...]

    @property
    def independent(self) -> bool:
        """Whether it is a test: made from measurements, but not from the one that it is compared with."""
        return self.source == "measured" and self.trial not in self.learned_from

    @property
    def agrees(self) -> bool:
        """Whether every figure under the sustained load is as stated."""
        return agree(self.figures)


def comparison(
    forecast: Forecast, machine: KnownMachine, trial: Trial, place: int, learned_from: tuple[int, ...]
) -> Comparison:
    """``forecast``, made with ``machine`` as learned from some trials, beside ``trial``, which is number ``place``."""
    figures = compared(forecast, trial.run.measured)
    return Comparison(trial.name, place, learned_from, machine.source, machine.words, figures)
