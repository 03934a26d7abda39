"""The loop's mind: what happened goes in with ``see``, what to do comes out. No clock, no I/O; time is in what it is told.

Watching -> a drift is found (or limits are missed, or it is time) -> the new traffic is watched for a moment -> a plan is asked
for -> its best choice is taken if the rails allow -> its effect is measured -> it stays, or what was before comes back and the
choice is not tried again for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from setpoint.engine.request import RequestStats
from setpoint.loop.adapt.choices import live_key, named
from setpoint.loop.adapt.drift import Drift
from setpoint.loop.adapt.effect import Outcomes, Prediction, Share, Verdict, verdict
from setpoint.loop.adapt.profile import Asked, LiveProfile, Profile
from setpoint.loop.adapt.rails import Rails
from setpoint.loop.adapt.replan import Answer, Forecast
from setpoint.loop.adapt.watching import ARRIVALS, DriftWatch
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import Sample

HOUR_S = 3600.0
WINDOW_S = 60.0
LEAST_JUDGED = 20
MOST_BACKOFF = 16.0
MOST_TABU = 64
LEAST_AIM = 0.95
AGAIN_S, MOST_AGAIN = 10.0, 3
"""A large gain that is not sure yet is looked at again so soon, so often after a drift, if limits are missed meanwhile."""


class Cause(StrEnum):
    """Why a plan is made."""

    DRIFT = "drift"
    MISSED = "limits missed"
    PERIODIC = "periodic"


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened since the last look. steps: work, start, end. outcomes: when requests came, whether they were good.
    under_way: the same of those that have not ended and have missed a limit, or can hardly miss one any more."""

    asked: Sequence[Asked] = ()
    ended: Sequence[RequestStats] = ()
    steps: Sequence[tuple[StepWork, float, float]] = ()
    outcomes: Sequence[tuple[float, bool]] = ()
    under_way: Sequence[tuple[float, bool]] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a plan came to. config: to be served from now on, ``None``: nothing changes. why: in words."""

    config: ServingConfig | None
    why: str
    prediction: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A change whose effect is being measured. began_s: when the traffic began that it was made for."""

    before: ServingConfig
    config: ServingConfig
    prediction: Prediction
    began_s: float
    applied_s: float


@dataclass(frozen=True, slots=True)
class Effect:
    """The end of a trial. restore: what is to be served again, if it is rolled back."""

    trial: Trial
    verdict: Verdict
    before: Share
    after: Share

    @property
    def restore(self) -> ServingConfig | None:
        """The configuration before, if the change goes."""
        return self.trial.before if self.verdict.rolls_back else None


class Controller:
    """One server's loop. ``config``: what is served; ``aim``: the share of good requests below which limits are missed."""

    def __init__(self, config: ServingConfig, rails: Rails, *, aim: float | None = None) -> None:
        self.config = config
        self.rails = rails
        self.outcomes = Outcomes()
        self.trial: Trial | None = None
        self.changes: deque[float] = deque(maxlen=max(64, rails.most_changes_per_hour + 1))
        self._aim = LEAST_AIM if aim is None else aim
        self._bounds = rails.bounds.around(config)
        self._profile = LiveProfile()
        self._watch = DriftWatch(false_alarms_per_hour=rails.false_alarms_per_hour, look_s=rails.look_s)
        self._tabu: dict[tuple[object, ...], float] = {}
        self._drift_since_s: float | None = None
        self._drift_at_s = 0.0
        self._traffic_since_s = self._rate_since_s = float("-inf")
        self._next_unasked_s: float | None = None
        self._next_periodic_s: float | None = None
        self._backoff = 1.0
        self._again = self._looks = 0
        self._planning = False
        self.wants_machine = True

    # What happens

    def see(self, now_s: float, seen: Seen) -> list[Drift]:
        """Take in what happened; gives the drifts that were found."""
        for request in seen.asked:
            if self._profile.asked(request):
                self._watch.asked(request)
        for stats in seen.ended:
            self._profile.ended(stats)
            self._watch.ended(stats)
        for step in seen.steps:
            self._watch.step(*step)
        for outcome in seen.outcomes:
            self.outcomes.add(*outcome)
        self.outcomes.under_way = tuple(seen.under_way)
        self.outcomes.forget(now_s - 2 * WINDOW_S - self.rails.most_trial_s)
        drifts = self._watch.look(now_s)
        if drifts:
            self.wants_machine = True
            since_s = min(drift.since_s for drift in drifts)
            if self._drift_since_s is None:
                self._drift_since_s, self._drift_at_s = since_s, now_s
            self._traffic_since_s = max(self._traffic_since_s, since_s)
            self._rate_since_s = max((self._rate_since_s, *(drift.since_s for drift in drifts if drift.quantity in ARRIVALS)))
            self._backoff = 1.0
            self._again = MOST_AGAIN
        return drifts

    def machine(self, samples: list[Sample]) -> None:
        """The machine's speed is held against these steps from now on: asked for by ``wants_machine``.

        Other traffic and other configurations make steps of other shapes, for which a model is off by something else.
        """
        self._watch.machine(samples)
        self.wants_machine = False

    # Plans

    def due(self, now_s: float) -> Cause | None:
        """Whether a plan is to be made now, and why."""
        rails = self.rails
        if self._next_unasked_s is None:
            self._next_unasked_s, self._next_periodic_s = now_s + rails.replan_s, now_s + rails.periodic_s
        if self._planning or (self.changes and now_s < self.changes[-1] + rails.dwell_s):
            return None
        if self._drift_since_s is not None:
            answered = self._profile.answered_since(self._drift_since_s)
            ready = answered >= rails.gather_requests or now_s >= self._drift_at_s + rails.gather_s
            return Cause.DRIFT if ready else None
        if self.trial is not None:
            return None
        if now_s >= self._next_unasked_s and self._misses(now_s):
            return Cause.MISSED
        return Cause.PERIODIC if self._next_periodic_s is not None and now_s >= self._next_periodic_s else None

    def _misses(self, now_s: float) -> bool:
        """Whether too few requests of late were good."""
        lately = self.outcomes.between(self._comparable_since_s(now_s), now_s)
        return lately.requests >= LEAST_JUDGED and lately.value < self._aim

    def begin_plan(self, now_s: float) -> Profile | None:
        """The traffic to plan for; ``None`` if there is too little of it. ``planned`` or ``plan_failed`` must follow."""
        profile = self._profile.since(self._traffic_since_s, now_s, rate_since_s=self._rate_since_s)
        if profile is None:
            if self._drift_since_s is None:
                self._put_off(now_s, 0.0)
            return None
        self._planning = True
        self._drift_since_s = None
        return profile

    def plan_failed(self, now_s: float) -> None:
        """There is no answer."""
        self._planning = False
        self._put_off(now_s, 0.0)

    def planned(self, now_s: float, answer: Answer) -> Decision:
        """What to make of an answer. ``applied`` must follow if a configuration is to be served."""
        self._planning = False
        self._put_off(now_s, answer.cpu_s)
        if answer.problem or not answer.forecasts:
            return Decision(None, answer.problem or "there is nothing else to choose")
        assert answer.present is not None
        if answer.present.config != self.config:
            return Decision(None, "what is served changed while it was planned")
        fitting = [each for each in answer.forecasts if self._tabu.get(live_key(each.config), 0.0) <= now_s]
        if not fitting:
            return Decision(None, "the better ones were tried lately and did not help")
        best = fitting[0]
        refusal = self._refusal(now_s, best)
        prediction = Prediction(answer.present.good, best.good, best.gain, best.uncertainty)
        if refusal and best.gain >= self.rails.least_gain and not best.sure and self._again:
            self._again -= 1
            self._next_unasked_s = now_s + AGAIN_S
        if refusal:
            return Decision(None, refusal, prediction)
        return Decision(
            best.config, f"{named(best.config)} gains {best.gain:.3f}, uncertain by {best.uncertainty:.3f}", prediction
        )

    def _refusal(self, now_s: float, best: Forecast) -> str:
        """Why the best choice is not taken; empty if it may be."""
        if best.gain < self.rails.least_gain:
            return f"nothing gains {self.rails.least_gain:g} or more: {named(best.config)} is best with {best.gain:.3f}"
        if not best.sure:
            return f"{named(best.config)} gains {best.gain:.3f}, which is uncertain by {best.uncertainty:.3f}"
        if not self._bounds.allow(best.config):
            return f"{named(best.config)} is outside the bounds"
        recent = sum(each > now_s - HOUR_S for each in self.changes)
        if recent >= self.rails.most_changes_per_hour:
            return f"{recent} changes within the hour, and {self.rails.most_changes_per_hour} are the most"
        return ""

    def _put_off(self, now_s: float, cpu_s: float) -> None:
        """The next plan that no drift asks for, by the share of a core that plans may have; later each time."""
        wait_s = max(self.rails.replan_s * self._backoff, cpu_s / self.rails.cpu_share)
        self._next_unasked_s = now_s + wait_s
        self._next_periodic_s = now_s + max(self.rails.periodic_s, wait_s)
        self._backoff = min(MOST_BACKOFF, 2.0 * self._backoff)

    # Changes

    def applied(self, now_s: float, config: ServingConfig, prediction: Prediction) -> Effect | None:
        """``config`` is served from now on; its effect is measured. Gives the trial that thereby ends without a verdict."""
        unjudged = None
        if self.trial is not None:
            unjudged = Effect(self.trial, Verdict.OVERTAKEN, *self._shares(self.trial, now_s))
        self.trial = Trial(self.config, config, prediction, self._comparable_since_s(now_s), now_s)
        self._looks = 0
        self._changed(now_s, config)
        return unjudged

    def _comparable_since_s(self, now_s: float) -> float:
        """Since when requests, the last minute's at most, came to the present traffic and met the present configuration."""
        settled_s = self.changes[-1] + self.rails.settle_s if self.changes else float("-inf")
        return max(now_s - WINDOW_S, self._traffic_since_s, settled_s)

    def restored(self, now_s: float, effect: Effect) -> None:
        """The configuration before the change is served again."""
        if len(self._tabu) >= MOST_TABU:
            self._tabu = {key: until_s for key, until_s in self._tabu.items() if until_s > now_s}
        if len(self._tabu) < MOST_TABU:
            self._tabu[live_key(effect.trial.config)] = now_s + self.rails.forget_s
        self._changed(now_s, effect.trial.before)

    def _changed(self, now_s: float, config: ServingConfig) -> None:
        self.config = config
        self.changes.append(now_s)
        self.wants_machine = True

    def effect(self, now_s: float) -> Effect | None:
        """The end of the trial, once it is reached. ``restored`` must follow if something is to be restored."""
        trial, rails = self.trial, self.rails
        if trial is None:
            return None
        moments_s = rails.verdicts_s
        overtaken = self._drift_since_s is not None and self._drift_since_s > trial.applied_s
        if not overtaken and now_s < trial.applied_s + moments_s[self._looks]:
            return None
        self._looks += 1
        while self._looks < len(moments_s) and now_s >= trial.applied_s + moments_s[self._looks]:
            self._looks += 1
        before, after = self._shares(trial, now_s)
        time_is_up = self._looks == len(moments_s)
        found = verdict(before, after, trial.prediction, time_is_up=time_is_up, least=rails.trial_requests)
        if overtaken:
            found = Verdict.OVERTAKEN
        if found is None:
            return None
        self.trial = None
        return Effect(trial, found, before, after)

    def _shares(self, trial: Trial, now_s: float) -> tuple[Share, Share]:
        """Good requests before the trial and in it."""
        before = self.outcomes.between(trial.began_s, trial.applied_s)
        return before, self.outcomes.between(trial.applied_s + self.rails.settle_s, now_s)

    def state(self, now_s: float) -> Mapping[str, object]:
        """For people and metrics."""
        lately = self.outcomes.between(now_s - WINDOW_S, now_s)
        profile = self._profile.since(max(self._traffic_since_s, now_s - 2 * WINDOW_S), now_s)
        return {
            "profile": None if profile is None else profile.described(),
            "good_share": None if not lately.requests else round(lately.value, 4),
            "changes_last_hour": sum(each > now_s - HOUR_S for each in self.changes),
            "in_trial": None if self.trial is None else named(self.trial.config),
            "not_to_be_tried": sum(until_s > now_s for until_s in self._tabu.values()),
        }
