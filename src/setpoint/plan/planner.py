"""The plan: shapes and configurations bounded, searched by simulation, priced, ranked, the first of them looked at closely."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from setpoint.hardware.step_time import StepTimer, step_timer, ttft_error
from setpoint.plan.asked import Asked
from setpoint.plan.binding import Binding, binding
from setpoint.plan.context import ContextCurve, context_curve
from setpoint.plan.context_tail import check_tail
from setpoint.plan.economy import (
    MOST_REPLICAS,
    Goal,
    Option,
    most_replicas,
    replicas_for_confidence,
    replicas_needed,
    usd_at_scale,
)
from setpoint.plan.headroom import Headroom, headroom
from setpoint.plan.limits import Limit, limits_of
from setpoint.plan.pruning import Pruned, dearer, dearest, no_room, too_many, too_slow
from setpoint.plan.scaled import scaled
from setpoint.plan.search import Arm, Progress, Search, deadlines_declared, requests_for
from setpoint.plan.shadow import ShadowPrice, shadow_prices
from setpoint.plan.sketch import LoadSketch, check_context, sketch_of
from setpoint.plan.space import servings_for, shapes_of
from setpoint.plan.speculating import Outlook, variants
from setpoint.plan.topology import Shape, Topology
from setpoint.plan.trial import Runner, Trial
from setpoint.record import Verdict

MOST_RANKED = 40
LOOKED_AT = 5
S_PER_H = 3600.0


class Standing(StrEnum):
    """How a plan stands: recommended outside its error bar, inside it or on an error that is a guess, or nothing holds."""

    SURE = "sure"
    WITHIN_ERROR = "within_error"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True)
class Ranked:
    """One line of the ranking: so many replicas of an option, and what is expected of them.

    holds: every limit, as predicted. latency_s: P95 of TTFT (E2E where nothing streams). usd_per_good_request: at the offered
    load, all of it taken as good where no closer look was taken. tokens_per_usd: output tokens. at_scale_usd: USD a request
    at the knee, replicas not being whole.
    """

    option: Option
    topology: Topology
    headroom: Headroom
    binding: Binding
    holds: bool
    latency_s: float
    usd_per_good_request: float | None
    tokens_per_usd: float | None
    at_scale_usd: float | None
    trial: Trial | None = None

    @property
    def name(self) -> str:
        """That of the topology."""
        return self.topology.name


@dataclass(frozen=True, slots=True)
class Plan:
    """All that was found. ``ranked`` is best first; ``chosen`` is its first that holds, or ``None``.

    nearest: where nothing holds, the candidate that comes nearest. doubled: the best for twice the load. outlooks: what
    speculation was expected to gain on the finalists, where it is allowed.
    """

    asked: Asked
    load: LoadSketch
    limits: tuple[Limit, ...]
    standing: Standing
    ranked: tuple[Ranked, ...]
    chosen: Ranked | None
    pruned: tuple[Pruned, ...]
    shadow: tuple[ShadowPrice, ...]
    doubled: Ranked | None
    nearest: Ranked | None
    contexts: tuple[ContextCurve, ...]
    simulations: int
    outlooks: tuple[Outlook, ...] = ()


def make_plan(asked: Asked, runner: Runner, progress: Progress = lambda stage, done, total: None) -> Plan:
    """The whole plan. Deterministic by the seed in ``asked``."""
    limits, load = limits_of(asked.requirement), sketch_of(asked.requirement.profile)
    check_context(load, asked.model.context_tokens, f"model {asked.model.name}")
    check_tail(load, asked.model.context_tokens, limits, f"model {asked.model.name}")
    shapes, pruned = _bounded(asked, load, limits)
    search = Search(runner, limits, load, asked.load_rps, asked.seed, progress, asked.goal, asked.bounds)
    deadlines = deadlines_declared(limits)
    arms = search.arms(shapes, lambda shape: servings_for(shape, deadlines=deadlines, schedulers=asked.schedulers))
    finalists = search.run(arms) if arms else []
    outlooks: list[Outlook] = []
    if asked.allowed is not None:
        guessing, outlooks = variants(asked.allowed, load, asked.load_rps, finalists)
        if guessing:
            search.measure(guessing)
        finalists = [*finalists, *guessing]
    options = [(option_of(arm, limits), arm) for arm in finalists]
    ranked = _ranked(asked, load, options)
    ranked = _look_closely(search, ranked, asked, {id(option): arm for option, arm in options})
    chosen = taken(ranked, asked.confidence)
    standing = Standing.INFEASIBLE
    if chosen is not None:
        standing = Standing.SURE if chosen.headroom.sure(asked.confidence) else Standing.WITHIN_ERROR
    priced = [option for option, _ in options if not (standing is Standing.SURE and option.guess)]
    return Plan(
        asked=asked,
        load=load,
        limits=limits,
        standing=standing,
        ranked=tuple(ranked[:MOST_RANKED]),
        chosen=chosen,
        pruned=tuple(pruned),
        shadow=tuple(shadow_prices(priced, limits, asked.load_rps, asked.bounds)) if chosen else (),
        doubled=_for_load(asked, load, options, 2.0) if chosen else None,
        nearest=_nearest(asked, load, options) if chosen is None else None,
        contexts=tuple(_contexts(load, ranked, {id(option): arm for option, arm in options})),
        simulations=search.simulations,
        outlooks=tuple(outlooks),
    )


def taken(ranked: Sequence[Ranked], confidence: float) -> Ranked | None:
    """Which of those that hold is recommended, ``ranked`` being best first: the first with the least doubt."""
    return min((each for each in ranked if each.holds), key=lambda each: _doubt(each, confidence), default=None)


def _doubt(ranked: Ranked, confidence: float) -> tuple[bool, bool, float]:
    """Least for what is sure; then a known error comes before a guess, and what holds with ``confidence`` before what does not.

    The rank decides among all that hold with ``confidence``; of the others the surest comes first.
    """
    probability = ranked.headroom.met_probability
    lacking = 0.0 if probability >= confidence else 1.0 - probability
    return not ranked.headroom.sure(confidence), ranked.option.guess, lacking


def option_of(arm: Arm, limits: tuple[Limit, ...]) -> Option:
    """The arm with its curve and its errors."""
    return Option(
        arm.shape,
        arm.serving,
        arm.curve(limits),
        arm.step_error,
        arm.timer.source,
        ttft_error(arm.shape.deployment, arm.timer),
        arm.guess,
        arm.guesses_drafting and not arm.timer.guess,
    )


def _bounded(asked: Asked, load: LoadSketch, limits: tuple[Limit, ...]) -> tuple[list[tuple[Shape, StepTimer]], list[Pruned]]:
    """The shapes that may do, and why the others cannot."""
    kept: list[tuple[Shape, StepTimer]] = []
    pruned: list[Pruned] = []
    for shape in shapes_of(asked.model, asked.choices, load.typical_context):
        found = no_room(shape, load)
        if found is None:
            timer = step_timer(shape.deployment)
            error = timer.relative_error
            found = too_slow(shape, timer, error, load, limits)
            if found is not None and _may_be_guessed(asked, found):
                found = None
            if found is None:
                widest = max(
                    servings_for(shape, deadlines=False, schedulers=asked.schedulers),
                    key=lambda serving: (serving.config.max_running, serving.config.token_budget),
                )
                found = too_many(shape, widest, timer, error, load, asked.load_rps, asked.bounds)
            if found is None:
                kept.append((shape, timer))
        if found is not None:
            pruned.append(found)
    if asked.goal is Goal.LATENCY:
        return kept, pruned
    costly = dearer(kept, load, limits)
    if not asked.hardware_named:
        costly += dearest(kept, load, limits, {each.shape.name for each in costly})
    left_out = {each.shape.name for each in costly}
    return [each for each in kept if each[0].name not in left_out], pruned + costly


def _may_be_guessed(asked: Asked, pruned: Pruned) -> bool:
    """Whether guesses could make up for it, were they free: of the means over several tokens, not of single gaps."""
    if asked.allowed is None or pruned.limit is None or pruned.limit.metric not in ("tpot", "e2e"):
        return False
    return pruned.excess < 1.0 + sum(asked.allowed.survival)


def rank_of(asked: Asked, load: LoadSketch, option: Option, arm: Arm, replicas: int, load_rps: float) -> Ranked:
    """An option with so many replicas at a load."""
    topology = option.topology(replicas)
    rate_rps = load_rps / replicas
    spare = headroom(option.curve, rate_rps, option.uncertainty(asked.load_error))
    usd_per_s = None if topology.usd_per_h is None else topology.usd_per_h / S_PER_H
    return Ranked(
        option=option,
        topology=topology,
        headroom=spare,
        binding=binding(option.shape, option.serving, arm.timer, load, rate_rps),
        holds=option.curve.met(rate_rps),
        latency_s=arm.latency_at(rate_rps),
        usd_per_good_request=None if usd_per_s is None else usd_per_s / load_rps,
        tokens_per_usd=None if not usd_per_s else load_rps * load.mean_output / usd_per_s,
        at_scale_usd=usd_at_scale(option),
    )


def _replica_counts(asked: Asked, option: Option, load_rps: float) -> list[int]:
    """With how many replicas an option is looked at for a load: the fewest that hold as predicted, and those that are sure.

    Where latency is what is wanted, as many as the bounds allow, without bounds twice as many; empty if nothing holds.
    """
    most = most_replicas(option.shape, asked.bounds.max_gpus, asked.bounds.max_usd_per_h)
    fewest = replicas_needed(option.curve, load_rps, most=most)
    if fewest is None:
        return []
    doubt = option.uncertainty(asked.load_error)
    sure = replicas_for_confidence(option.curve, load_rps, doubt, confidence=asked.confidence, most=most)
    counts = {fewest, sure or fewest}
    if asked.goal is Goal.LATENCY:
        counts = {most} if most < MOST_REPLICAS else {2 * max(counts)}
    return sorted(counts)


def _ranked(asked: Asked, load: LoadSketch, options: Sequence[tuple[Option, Arm]]) -> list[Ranked]:
    """Each option with its numbers of replicas, best first."""
    found = [
        rank_of(asked, load, option, arm, replicas, asked.load_rps)
        for option, arm in options
        for replicas in _replica_counts(asked, option, asked.load_rps)
    ]
    return sorted(found, key=lambda each: _order(asked.goal, each))


def _order(goal: Goal, ranked: Ranked) -> tuple[float, ...]:
    """Least is best; among equals the one with more to spare, then the lower latency."""
    price = ranked.topology.usd_per_h
    primary = {
        Goal.COST: math.inf if price is None else price,
        Goal.TOKENS_PER_USD: ranked.at_scale_usd if ranked.at_scale_usd is not None else math.inf,
        Goal.LATENCY: ranked.latency_s,
        Goal.POWER: ranked.topology.power_w,
    }[goal]
    return (primary, -round(ranked.headroom.met_probability, 2), -ranked.headroom.knee_distance, ranked.latency_s)


def _for_load(asked: Asked, load: LoadSketch, options: Sequence[tuple[Option, Arm]], factor: float) -> Ranked | None:
    """The best that carries ``factor`` times the load within the bounds, by the rules of the ranking; it may not be sure."""
    load_rps = factor * asked.load_rps
    found = [
        rank_of(asked, load, option, arm, replicas, load_rps)
        for option, arm in options
        for replicas in _replica_counts(asked, option, load_rps)
    ]
    return taken(sorted(found, key=lambda each: _order(asked.goal, each)), asked.confidence)


def _nearest(asked: Asked, load: LoadSketch, options: Sequence[tuple[Option, Arm]]) -> Ranked | None:
    """Where nothing holds: the option whose worst limit is least exceeded, as many replicas as the bounds allow."""
    found = []
    for option, arm in options:
        most = most_replicas(option.shape, asked.bounds.max_gpus, asked.bounds.max_usd_per_h)
        enough = max(1, math.ceil(20.0 * asked.load_rps / float(option.curve.rates_rps[0])))
        if most:
            found.append(rank_of(asked, load, option, arm, max(1, min(most, enough)), asked.load_rps))
    return min(found, key=lambda each: worst_excess(each, asked.load_rps), default=None)


def _contexts(load: LoadSketch, ranked: Sequence[Ranked], arms: dict[int, Arm]) -> Iterator[ContextCurve]:
    """Latency against context for the best candidate of each hardware, with the batch that it has at this load."""
    best: dict[str, Ranked] = {}
    for each in ranked:
        best.setdefault(each.option.shape.hardware, each)
    for each in best.values():
        yield context_curve(each.option.shape, arms[id(each.option)].timer, load, max(each.binding.batch, 1.0))


def worst_excess(ranked: Ranked, load_rps: float) -> float:
    """The largest excess of a candidate at a load."""
    curve, rate = ranked.option.curve, load_rps / ranked.topology.pool.replicas
    return max((curve.of_limit(limit, rate) for limit in range(curve.limits)), default=0.0)


def _look_closely(search: Search, ranked: list[Ranked], asked: Asked, arms: dict[int, Arm]) -> list[Ranked]:
    """Those that may be taken before others, in the order of the ranking, simulated once more, with all figures and checks."""
    holding = [each for each in ranked if each.holds]
    sure = [each for each in holding if each.headroom.sure(asked.confidence)]
    before = sure or sorted(holding, key=lambda each: _doubt(each, asked.confidence))
    first = [*before, *(each for each in ranked if each not in before)][:LOOKED_AT]
    jobs = [
        search.job(arms[id(each.option)], search.load_rps / each.topology.pool.replicas, requests_for(search.limits), full=True)
        for each in first
    ]
    trials = search.simulate("a closer look", jobs)
    looked = {id(each): _looked(each, trial) for each, trial in zip(first, trials, strict=True)}
    return [looked.get(id(each), each) for each in ranked]


def _looked(ranked: Ranked, trial: Trial) -> Ranked:
    """With the trial's figures, those of one replica made those of all; what is shown to miss a limit does not hold."""
    replicas = ranked.topology.pool.replicas
    predicted = scaled(trial.predicted, replicas) if trial.predicted is not None else None
    missed = trial.slo is not None and trial.slo.verdict is Verdict.MISSED
    good = predicted.sustained.goodput_fraction if predicted is not None else None
    usd = (
        ranked.usd_per_good_request / good if ranked.usd_per_good_request is not None and good else ranked.usd_per_good_request
    )
    looked = replace(trial, predicted=predicted)
    return replace(ranked, trial=looked, holds=ranked.holds and not missed, usd_per_good_request=usd)
