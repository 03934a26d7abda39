"""The loop beside a server: reads the engine's records, has plans made elsewhere, changes the engine, logs everything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict

from setpoint.engine.reconfiguring import CannotReconfigure, Reconfigurable
from setpoint.engine.request import EngineFailed
from setpoint.engine.service import GuessTotals
from setpoint.loop.adapt.audit import Audit
from setpoint.loop.adapt.choices import changes, choices, named, other_drafting
from setpoint.loop.adapt.controller import Cause, Controller, Decision, Effect, Seen
from setpoint.loop.adapt.drafts import LiveDrafts
from setpoint.loop.adapt.drift import Drift
from setpoint.loop.adapt.metrics import AdaptMetrics
from setpoint.loop.adapt.planner import Planner
from setpoint.loop.adapt.profile import Profile
from setpoint.loop.adapt.rails import Rails
from setpoint.loop.adapt.reading import Reader
from setpoint.loop.adapt.replan import Answer, Forecast, Question
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.requirement import Requirement
from setpoint.server.context import ServerContext
from setpoint.server.live.book import Ending
from setpoint.simulate.drafter import Drafting

PATH = "/setpoint/adapt"
LARGER_CACHE = 2
TOLD = 4
logger = logging.getLogger("setpoint.adapt")


class Adapter:
    """``server.companion.Companion``: holds ``engine`` at ``requirement`` by changing its configuration within ``rails``.

    dry_run: everything is done but the changes. ``planner`` is closed at the end.
    """

    path = PATH

    def __init__(
        self,
        engine: Reconfigurable,
        requirement: Requirement,
        rails: Rails,
        planner: Planner,
        audit: Audit,
        *,
        dry_run: bool = False,
    ) -> None:
        self.metrics = AdaptMetrics(engine.config, dry_run=dry_run)
        self._engine, self._requirement, self._rails = engine, requirement, rails
        self._planner, self._audit, self._dry_run = planner, audit, dry_run
        self._controller = Controller(engine.config, rails, aim=requirement.slo.goodput_fraction_min)
        self._context: ServerContext | None = None
        self._reader: Reader | None = None
        speculates = engine.config.speculation is not SpeculationMode.OFF
        self._drafts = LiveDrafts(engine.config) if speculates else None
        self._looking: asyncio.Task[None] | None = None
        self._planning: asyncio.Task[None] | None = None
        self._plans = 0

    # Life

    async def start(self, context: ServerContext) -> None:
        """See ``Companion``."""
        self._context = context
        self._reader = Reader(self._engine)
        rails = {name: value for name, value in asdict(self._rails).items() if name != "bounds"}
        config = self._engine.config.model_dump(mode="json")
        bounds = {**asdict(self._rails.bounds), "modes": [mode.value for mode in self._rails.bounds.modes]}
        self._audit.event("started", config=config, bounds=bounds, rails=rails, dry_run=self._dry_run)
        self._looking = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """See ``Companion``."""
        for task in (self._looking, self._planning):
            if task is not None:
                task.cancel()
        self._planner.close()
        self._audit.event("stopped", config=self._engine.config.model_dump(mode="json"))
        self._audit.close()

    def state(self) -> Mapping[str, object]:
        """See ``Companion``."""
        try:
            now_s = self._engine.gauges().now_s
        except EngineFailed:
            now_s = time.monotonic()
        counts = self.metrics.counts
        return {
            "config": self._engine.config.model_dump(mode="json"),
            "dry_run": self._dry_run,
            **self._controller.state(now_s),
            "planning": self._planning is not None,
            "drifts": dict(counts.drifts),
            "plans": dict(counts.plans),
            "changes": counts.changes,
            "effects": dict(counts.effects),
            "events": list(self._audit.newest),
        }

    # Looking

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._rails.look_s)
            try:
                await self.look()
            except EngineFailed:  # it is being built again, or the server ends
                continue
            except Exception:  # the loop must not take the server down
                logger.exception("the loop failed to look")

    async def look(self) -> None:
        """One turn of the loop. Raises ``EngineFailed``."""
        gauges = self._engine.gauges()
        now_s, controller = gauges.now_s, self._controller
        if controller.wants_machine:
            controller.machine(await self._engine.step_samples())
        for drift in controller.see(now_s, self._seen(now_s)):
            self._drifted(drift)
        if gauges.speculation is not None:
            await self._see_drafts(gauges.speculation.guesses)
        effect = controller.effect(now_s)
        if effect is not None:
            await self._ended(effect)
        cause = controller.due(now_s)
        if cause is not None:
            profile = controller.begin_plan(now_s)
            if profile is not None:
                self._planning = asyncio.create_task(self._plan(cause, profile))

    def _seen(self, now_s: float) -> Seen:
        assert self._reader is not None
        assert self._context is not None
        asked, ended, steps = self._reader.read()
        # The server's clock is another than the engine's.
        ahead_s = now_s - time.perf_counter()
        outcomes = []
        book = self._context.live.book.outcomes
        while book:
            arrived_s, ending = book.popleft()
            if ending is not Ending.CANCELLED:
                outcomes.append((arrived_s + ahead_s, ending is Ending.OK))
        server_s = now_s - ahead_s
        standing = [(each.arrived_s + ahead_s, each.standing(server_s)) for each in self._context.live.book.open]
        return Seen(asked, ended, steps, outcomes, [(at_s, good) for at_s, good in standing if good is not None])

    async def _see_drafts(self, guesses: GuessTotals) -> None:
        """What became of guesses since the last look, and what they cost."""
        if self._drafts is not None:
            self._drafts.guessed(guesses)
            if self._drafts.drafter is SpeculationMode.DRAFT:
                self._drafts.took(await self._engine.drafting_s())

    def _drifted(self, drift: Drift) -> None:
        self.metrics.counts.drifts[drift.quantity] += 1
        facts = {name: _round(value) for name, value in asdict(drift).items()}
        facts |= {"since_s": round(drift.since_s, 3), "at_s": round(drift.at_s, 3)}
        self._audit.event("drift", **facts)
        logger.warning("%s changed from %.4g to %.4g on average", drift.quantity, drift.before, drift.after)

    # Planning

    async def _plan(self, cause: Cause, profile: Profile) -> None:
        self._plans += 1
        self.metrics.counts.plans[cause] += 1
        drafts: dict[str, object] = {} if self._drafts is None else {"drafts": self._drafts.described()}
        self._audit.event("planning", cause=cause.value, profile=profile.described(), **drafts)
        try:
            answer = await self._planner.answer(await self._question(profile))
            now_s = self._engine.gauges().now_s
            self.metrics.counts.plan_cpu_s += answer.cpu_s
            await self._decided(now_s, answer, self._controller.planned(now_s, answer))
        except (EngineFailed, CannotReconfigure) as error:
            self._controller.plan_failed(time.monotonic())
            self._audit.event("plan_failed", why=str(error))
        except Exception:
            self._controller.plan_failed(time.monotonic())
            logger.exception("a plan failed")
        finally:
            self._planning = None

    async def _question(self, profile: Profile) -> Question:
        assert self._reader is not None
        gauges, config, rails = self._engine.gauges(), self._controller.config, self._rails
        larger = config.model_copy(update={"kv_cache_tokens": LARGER_CACHE * config.kv_cache_tokens})
        drafting, other = self._drafting(config)
        return Question(
            requirement=self._requirement,
            profile=profile,
            present=config,
            choices=tuple(choices(config, rails.bounds.around(config))),
            steps=self._reader.newest_steps(),
            samples=tuple(await self._engine.step_samples()),
            only_restart=(larger,) if gauges.preemptions_total else (),
            drafting=drafting,
            unscreened=other,
            cpu_s=rails.plan_cpu_s,
            wall_s=rails.plan_wall_s,
            seed=self._plans,
        )

    def _drafting(self, config: ServingConfig) -> tuple[Drafting | None, tuple[ServingConfig, ...]]:
        """What guesses in forecasts, and ``config`` with drafts the other way; nothing while too little is known of them."""
        drafting = None if self._drafts is None else self._drafts.drafting()
        if self._drafts is None or drafting is None:
            return None, ()
        return drafting, (other_drafting(config, self._drafts.drafter),)

    async def _decided(self, now_s: float, answer: Answer, decision: Decision) -> None:
        self._audit.event(
            "planned",
            why=decision.why,
            cpu_s=_round(answer.cpu_s),
            screened=answer.screened,
            left_out=answer.left_out,
            present=_told(answer.present),
            best=[_told(each) for each in answer.forecasts[:TOLD]],
        )
        for each in answer.restart:
            if each.sure and each.gain >= self._rails.least_gain:
                self._recommend(each)
        if decision.config is None or decision.prediction is None:
            return
        differs = changes(self._controller.config, decision.config)
        predicted = {name: _round(value) for name, value in asdict(decision.prediction).items()}
        if self._dry_run:
            self._audit.event("would_change", changes=differs, why=decision.why, predicted=predicted)
            logger.warning("dry run: would serve as %s: %s", named(decision.config), decision.why)
            return
        await self._serve(decision.config)
        unjudged = self._controller.applied(now_s, decision.config, decision.prediction)
        if unjudged is not None:
            self._kept(unjudged)
        self._audit.event("changed", changes=differs, why=decision.why, predicted=predicted)
        logger.warning("serving as %s: %s", named(decision.config), decision.why)

    def _recommend(self, forecast: Forecast) -> None:
        differs = changes(self._controller.config, forecast.config)
        self._audit.event("recommended", changes=differs, why="it needs a restart", predicted=_told(forecast))
        logger.warning("a restart with %s is predicted to gain %.3f", differs, forecast.gain)

    # Effects

    def _kept(self, effect: Effect) -> None:
        """A trial is over and nothing is to be restored."""
        self.metrics.counts.effects[effect.verdict] += 1
        self._audit.event("kept", **_effect_told(effect))

    async def _ended(self, effect: Effect) -> None:
        if effect.restore is None:
            self._kept(effect)
            return
        self.metrics.counts.effects[effect.verdict] += 1
        differs = changes(self._controller.config, effect.restore)
        await self._serve(effect.restore)
        self._controller.restored(self._engine.gauges().now_s, effect)
        self._audit.event("rolled_back", changes=differs, **_effect_told(effect))
        logger.warning("back to %s: %s %s", named(effect.restore), named(effect.trial.config), effect.verdict.value)

    async def _serve(self, config: ServingConfig) -> None:
        assert self._context is not None
        await self._engine.reconfigure(config)
        self.metrics.config = config
        self.metrics.counts.changes += 1
        self._context.live.about.update(config.model_dump(mode="json"))


def _effect_told(effect: Effect) -> dict[str, object]:
    return {
        "verdict": effect.verdict.value,
        "config": named(effect.trial.config),
        "good_before": _round(effect.before.value),
        "requests_before": effect.before.requests,
        "good_after": _round(effect.after.value),
        "requests_after": effect.after.requests,
        "predicted": {name: _round(value) for name, value in asdict(effect.trial.prediction).items()},
    }


def _told(forecast: Forecast | None) -> Mapping[str, object] | None:
    if forecast is None:
        return None
    return {
        "config": named(forecast.config),
        "good": _round(forecast.good),
        "gain": _round(forecast.gain),
        "uncertainty": _round(forecast.uncertainty),
        "loads": forecast.loads,
    }


def _round(value: object) -> object:
    """Numbers with as many digits as mean anything; what JSON cannot hold is left out."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if value - value == 0 else None
