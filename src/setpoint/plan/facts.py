"""The facts that the project starts from, as they come out of the planner; ``fact_tables`` prints them.

Each figure says where its coefficients come from: ``measured``, ``transferred`` or ``physics``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import StepTimer, step_timer
from setpoint.plan.asked import Wishes, asked_of
from setpoint.plan.binding import of_balance
from setpoint.plan.economy import Goal
from setpoint.plan.fluid import balance, capacity, step_s
from setpoint.plan.limits import limits_of
from setpoint.plan.planner import Ranked, make_plan
from setpoint.plan.processes import ProcessRunner
from setpoint.plan.search import Arm, Search
from setpoint.plan.sketch import LoadSketch, sketch_of
from setpoint.plan.space import BLOCK_TOKENS, UNBOUNDED_WAITING, portable
from setpoint.plan.topology import Scheduler, Serving, Shape
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.record import Phase
from setpoint.requirement import parse_requirement
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.run import SimulatedSystem, simulate

MODEL = "llama-3.1-8b"
CARDS = ("a100-80", "h100-sxm", "mi300x")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
GAP_LIMITS_S = (0.02, 0.03, 0.04, 0.05, 0.07)
LONG_CONTEXT_TOKENS = 2048
CONTEXTS = (2048, 4096, 8192, 12288, 16384, 24576, 32768)
UNDER_WAY = 32

CHAT = """\
name: facts
model: llama-3.1-8b
profile:
  prompt_tokens: {median: 800, p95: 3200, max: 6000}
  output_tokens: {median: 150, p95: 400, max: 800}
  arrival: {rate: 2/s}
slo:
  ttft: {p95: 1s}
  itl: {p99: 50ms}
"""

LARGE = """\
name: shave
model: llama-3.1-70b
profile:
  prompt_tokens: {median: 1200, p95: 2400, max: 4000}
  output_tokens: 200
  arrival: {rate: 20/s}
slo:
  ttft: {p95: 400ms}
"""
SHAVED_S = 0.2
SHAVE_LIMITS_S = (0.225, 0.25, 0.275, 0.3, 0.35, 0.4, 0.425, 0.45, 0.475, 0.5, 0.55, 0.6, 0.8, 1.0)


def shape_of(hardware: str, model: str = MODEL, parallel: int = 1) -> tuple[Shape, StepTimer]:
    """A replica under vLLM in the model's own precision."""
    facts = model_facts(model)
    device = portable(accelerator(hardware))
    deployment = Deployment(facts, device, parallel, "vllm", facts.native_precision)
    return Shape(deployment, device.price_usd_per_h, kv_capacity_tokens(deployment)), step_timer(deployment)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of requests on a card: seconds of a step, output tokens/s, the share of its arithmetic that is used."""

    batch: int
    step_s: float
    tokens_per_s: float
    utilisation: float
    source: str


def batches(hardware: str = "a100-80") -> list[Batch]:
    """Requests of 500 prompt and 200 output tokens in balance, by how many decode at once."""
    shape, timer = shape_of(hardware)
    load = constant_load(500, 200)
    serving = vllm(512, 8192)
    found = []
    for size in BATCHES:
        at = balance(timer, load, size)
        used = of_balance(shape, serving, load, at).utilisation
        found.append(Batch(size, at.step_s, size / at.step_s, used, timer.source))
    return found


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest batch whose gaps stay within ``gap_s``: by time and by memory, the smaller of which binds."""

    hardware: str
    gap_s: float
    by_time: int
    by_memory: int
    bound: str
    source: str


def largest_batches(gap_s: float) -> list[Largest]:
    """For each card, requests that decode at 2,048 tokens of context each."""
    found = []
    for hardware in CARDS:
        shape, timer = shape_of(hardware)
        by_memory = shape.kv_tokens // LONG_CONTEXT_TOKENS
        low, high = 0, 1 << 14
        while low < high:
            middle = (low + high + 1) // 2
            context = middle * LONG_CONTEXT_TOKENS
            fits = step_s(timer, StepWork(middle, middle, context, context)) <= gap_s
            low, high = (middle, high) if fits else (low, middle - 1)
        bound = "capacity" if by_memory < low else "bandwidth"
        found.append(Largest(hardware, gap_s, low, by_memory, bound, timer.source))
    return found


@dataclass(frozen=True, slots=True)
class Pressed:
    """``UNDER_WAY`` requests at once that grow to one context length: P50 and P99 of E2E over output tokens, preemptions.

    together: how many decoded at once on average.
    """

    hardware: str
    context_tokens: int
    token_p50_s: float
    token_p99_s: float
    together: float
    preemptions: int
    source: str


def pressed(hardware: str, context_tokens: int, *, seed: int = 0) -> Pressed:
    """Simulate vLLM's scheduler: requests all there from the beginning, prompt and answer half of the context each."""
    shape, timer = shape_of(hardware)
    prompts, answers = (np.full(UNDER_WAY, context_tokens // 2) for _ in range(2))
    sent_s = np.linspace(0.0, 1e-3 * (UNDER_WAY - 1), UNDER_WAY)
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, 1.0),)
    load = Load(sent_s, prompts, answers, answers, phases, np.zeros(UNDER_WAY, dtype=np.int64))
    block = BLOCK_TOKENS["vllm"]
    system = SimulatedSystem(timer, shape.kv_tokens // block, block, vllm(UNDER_WAY, 8192).config)
    done = simulate(load, system, seed=seed)
    ledger = done.ledger
    token_s = (ledger.last_s - sent_s) / ledger.tokens
    return Pressed(
        hardware,
        context_tokens,
        float(np.percentile(token_s, 50)),
        float(np.percentile(token_s, 99)),
        float((ledger.last_s - ledger.joined_s).sum()) / done.end_s,
        int(ledger.preemptions.sum()),
        timer.source,
    )


def best_for(goal: Goal, runner: ProcessRunner, hardware: str = "h100-sxm") -> Ranked:
    """What the planner chooses for one workload on one card of a kind, vLLM's scheduler alone."""
    requirement = parse_requirement(CHAT, "facts")
    wishes = Wishes(hardware=(hardware,), parallel=(1,), max_gpus=1, goal=goal, schedulers=(Scheduler.VLLM,))
    plan = make_plan(asked_of(requirement, wishes), runner)
    found = plan.chosen or plan.nearest
    assert found is not None, "a card that carries nothing of this load is not one to tell of"
    return found


def latency_s(ranked: Ranked) -> float:
    """TTFT P95 of the closer look, at the offered load; between points of the load curve where there was none."""
    return ranked.trial.latency_s if ranked.trial is not None else ranked.latency_s


@dataclass(frozen=True, slots=True)
class Shaved:
    """What a million output tokens cost under a TTFT P95 limit, ``None`` where it cannot be met."""

    limit_s: float
    usd_per_million: float | None
    source: str


def shaved(runner: ProcessRunner, hardware: str = "h100-sxm", parallel: int = 4) -> list[Shaved]:
    """Cost against the limit, read off one load curve: price of a replica over what it carries within the limit."""
    requirement = parse_requirement(LARGE, "facts")
    shape, timer = shape_of(hardware, "llama-3.1-70b", parallel)
    limits, load = limits_of(requirement), sketch_of(requirement.profile)
    search = Search(runner, limits, load, requirement.profile.arrival.mean_rps, 0)
    serving = vllm(256, 8192)
    arm = Arm(shape, serving, timer, capacity(timer, load, serving, shape.kv_tokens).rate_rps)
    search.measure([arm])
    curve = arm.curve(limits)
    price_per_s = (shape.usd_per_gpu_h or math.nan) * shape.gpus / 3600
    found = []
    for limit_s in SHAVE_LIMITS_S:
        knee_rps = curve.knee_rps(1.0, [limit_s / limits[0].limit, *([1.0] * (len(limits) - 1))])
        usd = price_per_s / knee_rps / load.mean_output * 1e6 if knee_rps > 0 else None
        found.append(Shaved(limit_s, usd, timer.source))
    return found


def constant_load(prompt: int, output: int) -> LoadSketch:
    """Requests of one length, nothing shared."""
    one = np.ones(1)
    return LoadSketch(prompt * one, output * one, 0 * one, 0 * one)


def vllm(running: int, budget: int) -> Serving:
    """vLLM's scheduler with these numbers."""
    config = ServingConfig(
        mode=BatchingMode.CONTINUOUS, max_running=running, token_budget=budget, max_waiting=UNBOUNDED_WAITING
    )
    return Serving(Scheduler.VLLM, config)
