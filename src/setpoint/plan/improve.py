"""From a ``vllm serve`` command that runs today: what to change in it, what each change buys, and what all of them do.

The command's replica is simulated as it is (what it leaves out is vLLM's own default), then its scheduler's numbers are
searched on the same replica. Every difference between the two is also tried alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from setpoint.hardware.deployment import Deployment, check_link, check_split, kv_capacity_tokens
from setpoint.hardware.step_time import step_timer, ttft_error
from setpoint.plan.asked import Asked
from setpoint.plan.context_tail import check_tail
from setpoint.plan.economy import replicas_needed
from setpoint.plan.errors import PlanError
from setpoint.plan.fluid import capacity
from setpoint.plan.headroom import Uncertainty, headroom
from setpoint.plan.limits import limits_of
from setpoint.plan.search import Arm, Progress, Search
from setpoint.plan.sketch import check_context, sketch_of, without_cache
from setpoint.plan.space import UNBOUNDED_WAITING, servings_for
from setpoint.plan.topology import Scheduler, Serving, Shape
from setpoint.plan.trial import Runner
from setpoint.plan.vllm_command import VllmCommand, changes_behaviour, default_max_running, default_token_budget
from setpoint.plan.words import GUESS
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.report.format import seconds

MOST_RUNNING = 4096
WORTH_CHANGING = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a configuration does at the command's share of the load. ``knee_rps``: of all its replicas."""

    name: str
    flags: dict[str, int]
    knee_rps: float
    latency_s: float
    holds: bool
    met_probability: float


@dataclass(frozen=True, slots=True)
class Improvement:
    """``now`` is the command as it is, ``best`` with every change of ``alone``, each of which was also tried by itself.

    guess: whether the error of the steps is one, so that none of it is sure.
    """

    command: VllmCommand
    shape: Shape
    now: Outcome
    best: Outcome
    alone: tuple[tuple[str, Outcome], ...]
    replicas_needed_now: int | None
    replicas_needed_best: int | None
    guess: bool


def make_improvement(asked: Asked, command: VllmCommand, runner: Runner, progress: Progress) -> Improvement:
    """Simulate the command and its alternatives. Raises ``PlanError`` where the command cannot run."""
    limits, load = limits_of(asked.requirement), sketch_of(asked.requirement.profile)
    load = load if command.prefix_caching else without_cache(load)
    shape = shape_of(asked, command)
    if command.max_model_tokens is not None:
        check_context(load, command.max_model_tokens, f"--improve: --max-model-len {command.max_model_tokens}")
    check_context(load, asked.model.context_tokens, f"model {asked.model.name}")
    if command.max_model_tokens is not None:
        check_tail(load, command.max_model_tokens, limits, f"--improve: --max-model-len {command.max_model_tokens}")
    check_tail(load, asked.model.context_tokens, limits, f"model {asked.model.name}")
    if shape.kv_tokens < load.largest_context:
        raise PlanError(
            f"--improve: {shape.name} has room for {max(shape.kv_tokens, 0):,} tokens of cache and one request needs "
            f"{load.largest_context:,}; raise --tensor-parallel-size or --gpu-memory-utilization in the command"
        )
    timer = step_timer(shape.deployment)
    doubt = Uncertainty(timer.relative_error, asked.load_error, ttft_error(shape.deployment, timer), timer.guess)
    search = Search(runner, limits, load, asked.load_rps, asked.seed, progress, asked.goal, asked.bounds)

    def arm(serving: Serving) -> Arm:
        return Arm(shape, serving, timer, capacity(timer, load, serving, shape.kv_tokens).rate_rps)

    now = arm(serving_of(shape, command))
    servings = [_as_in(command, each) for each in servings_for(shape, deadlines=False, schedulers=(Scheduler.VLLM,))]
    finalists = search.run(search.arms([(shape, timer)], lambda _: servings))
    best = max(finalists, key=search.value, default=now)
    changed = _differences(now.serving.config, best.serving.config)
    alone = [(name, arm(_with(now.serving, {name: value}))) for name, value in changed.items()] if len(changed) > 1 else []
    search.measure([now, *(each for _, each in alone)])

    def outcome(each: Arm) -> Outcome:
        curve, rate = each.curve(limits), asked.load_rps / command.replicas
        spare = headroom(curve, rate, doubt)
        return Outcome(
            name=f"{command.replicas} x {shape.name} {each.serving.name}",
            flags=_flags(each.serving.config),
            knee_rps=spare.knee_rps * command.replicas,
            latency_s=each.latency_at(rate),
            holds=curve.met(rate),
            met_probability=spare.met_probability,
        )

    first, last = outcome(now), outcome(best)
    if last.knee_rps < first.knee_rps * (1 + WORTH_CHANGING):
        best, last, alone = now, first, []
    return Improvement(
        command=command,
        shape=shape,
        now=first,
        best=last,
        alone=tuple((FLAG_NAMES[name], outcome(each)) for name, each in alone),
        replicas_needed_now=replicas_needed(now.curve(limits), asked.load_rps, most=MOST_RUNNING),
        replicas_needed_best=replicas_needed(best.curve(limits), asked.load_rps, most=MOST_RUNNING),
        guess=timer.guess,
    )


FLAG_NAMES = {"max_running": "--max-num-seqs", "token_budget": "--max-num-batched-tokens"}


def shape_of(asked: Asked, command: VllmCommand) -> Shape:
    """The replica that the command starts. Raises ``PlanError`` unless exactly one hardware is named."""
    devices = asked.choices.accelerators
    if len(devices) != 1:
        raise PlanError("--improve: a command does not say what it runs on; name it with --hardware, such as h100-sxm")
    check_split(asked.model, command.tensor_parallel, "--improve: --tensor-parallel-size")
    check_link(devices[0], command.tensor_parallel, "--improve: --tensor-parallel-size")
    deployment = Deployment(
        asked.model,
        devices[0],
        command.tensor_parallel,
        "vllm",
        command.weight_precision or asked.model.native_precision,
        command.kv_precision or "bf16",
    )
    context = sketch_of(asked.requirement.profile).typical_context
    room = kv_capacity_tokens(deployment, memory_share=command.memory_share, context_tokens=context)
    return Shape(deployment, asked.choices.prices.get(devices[0].name), room)


def serving_of(shape: Shape, command: VllmCommand) -> Serving:
    """vLLM's scheduler with the command's numbers, and its own defaults for those it does not give."""
    memory, hardware = shape.deployment.accelerator.memory_bytes, shape.hardware
    config = ServingConfig(
        mode=BatchingMode.CONTINUOUS,
        max_running=min(MOST_RUNNING, command.max_running or default_max_running(memory, hardware)),
        token_budget=min(65536, command.token_budget or default_token_budget(memory, hardware)),
        max_waiting=UNBOUNDED_WAITING,
        kv_cache_tokens=max(64, shape.kv_tokens),
    )
    return _as_in(command, Serving(Scheduler.VLLM, config))


def _as_in(command: VllmCommand, serving: Serving) -> Serving:
    """With what the command says of the longest request and of the cache, which no change touches."""
    return replace(serving, context_tokens=command.max_model_tokens, prefix_caching=command.prefix_caching)


def _with(serving: Serving, changes: dict[str, int]) -> Serving:
    return replace(serving, config=serving.config.model_copy(update=changes))


def _differences(now: ServingConfig, best: ServingConfig) -> dict[str, int]:
    return {name: getattr(best, name) for name in FLAG_NAMES if getattr(best, name) != getattr(now, name)}


def _flags(config: ServingConfig) -> dict[str, int]:
    return {flag: int(getattr(config, name)) for name, flag in FLAG_NAMES.items()}


def sentences(found: Improvement, load_rps: float) -> list[str]:
    """What the command does now, what to change, and what each change buys."""
    now, best = found.now, found.best
    held = "every limit holds as predicted" if now.holds else "not every limit holds"
    now_s, best_s = seconds(now.latency_s, " "), seconds(best.latency_s, " ")
    load = f"at {load_rps:.3g}/s"
    said = [f"As it runs now, {now.name} carries {now.knee_rps:.3g}/s within the limits; {load} its P95 is {now_s} and {held}."]
    if found.guess:
        said.append(f"None of this is sure on {found.shape.hardware}: {GUESS}. Measure it before relying on it.")
    changes = {flag: (now.flags[flag], best.flags[flag]) for flag in best.flags if best.flags[flag] != now.flags[flag]}
    if not changes:
        said.append("No other number of requests or tokens in a step carries more on this replica.")
    else:
        words = " and ".join(f"{flag} {old} -> {new}" for flag, (old, new) in changes.items())
        said.append(
            f"Change {words}: {best.knee_rps:.3g}/s, {_change(now.knee_rps, best.knee_rps)}; {load} its P95 is {best_s}."
        )
    said += [
        f"{flag} {each.flags[flag]} alone: {each.knee_rps:.3g}/s, {_change(now.knee_rps, each.knee_rps)}."
        for flag, each in found.alone
    ]
    before, after = found.replicas_needed_now, found.replicas_needed_best
    if before is not None and after is not None and after != before:
        said.append(f"The load then takes {after} replicas instead of {before}.")
    elif before is None and after is not None:
        said.append(f"With the change {after} replicas carry the load; without it none would.")
    if found.command.extra:
        said.append(f"Left as they are: {', '.join('--' + name for name in found.command.extra)}.")
    unseen = [f"--{name}" for name in found.command.extra if changes_behaviour(name)]
    if unseen:
        said.append(f"Not simulated, though it changes what a server does: {', '.join(unseen)}; these figures are without it.")
    return said


def improvement_document(found: Improvement, load_rps: float) -> dict[str, Any]:
    """The improvement as data."""

    def document(each: Outcome) -> dict[str, Any]:
        return {
            "name": each.name,
            "flags": each.flags,
            "knee_rps": each.knee_rps,
            "latency_p95_s": each.latency_s,
            "holds": each.holds,
            "met_probability": each.met_probability,
        }

    return {
        "model": found.command.model,
        "now": document(found.now),
        "best": document(found.best),
        "alone": [{"flag": flag, **document(each)} for flag, each in found.alone],
        "replicas_needed_now": found.replicas_needed_now,
        "replicas_needed_best": found.replicas_needed_best,
        "step_error_is_guess": found.guess,
        "sentences": sentences(found, load_rps),
    }


def _change(before: float, after: float) -> str:
    return f"{(after / before - 1) * 100:+.0f} %" if before > 0 else "instead of nothing"
