"""What tests of the planner share: requirements, and a runner that answers from formulas instead of simulating."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.calibrations import save
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import StepTimer, step_timer
from setpoint.plan.asked import Asked, Wishes, asked_of
from setpoint.plan.curve import STRETCHES
from setpoint.plan.fluid import at_load, balance, capacity
from setpoint.plan.limits import limits_of
from setpoint.plan.planner import Plan, make_plan
from setpoint.plan.sketch import sketch_of
from setpoint.plan.topology import Scheduler, Serving, Shape, Topology
from setpoint.plan.trial import Job, Trial
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.requirement import Requirement, parse_requirement

CHAT = """\
name: chat
description: answers in a browser
model: llama-3.1-8b
profile:
  prompt_tokens: 500
  output_tokens: 200
  arrival: {rate: 40/s}
slo:
  ttft: {p95: 500ms}
  itl: {p95: 50ms}
"""


def requirement(text: str = CHAT, **replaced: str) -> Requirement:
    """``CHAT`` with pieces of its text replaced."""
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return parse_requirement(text, "file")


class FormulaRunner:
    """Answers jobs as one queue would: latencies at an idle replica over what is left of its capacity. Counts its jobs."""

    def __init__(self, asked: Requirement) -> None:
        self._limits = limits_of(asked)
        self._load = sketch_of(asked.profile)
        self._timers: dict[str, StepTimer] = {}
        self.jobs: list[Job] = []

    def run(self, jobs: Sequence[Job], done: Callable[[int], None]) -> list[Trial]:
        """See ``trial.Runner``."""
        self.jobs += jobs
        done(len(jobs))
        return [self._trial(job) for job in jobs]

    def _trial(self, job: Job) -> Trial:
        shape, load = job.shape, self._load
        if shape.name not in self._timers:
            self._timers[shape.name] = step_timer(shape.deployment)
        timer = self._timers[shape.name]
        most = capacity(timer, load, job.serving, shape.kv_tokens)
        left = max(1.0 - job.rate_rps / most.rate_rps, 1e-4)
        tokens = round(load.mean_uncached)
        base, per_kv, per_product = timer.affine(tokens, 1)
        prompt_s = base + per_kv * tokens + per_product * tokens * tokens / 2
        found = at_load(timer, load, job.serving, shape.kv_tokens, job.rate_rps) or balance(timer, load, most.batch)
        decode = timer.affine(1, 1)
        gap_s = max(found.step_s, decode[0] + decode[1] * load.mean_context)
        chunks = prompt_s * (1.0 + 256 / job.serving.config.token_budget)
        values = {"ttft": chunks / left, "itl": gap_s, "tpot": gap_s, "e2e": chunks / left + gap_s * load.mean_output}
        rows = [
            values[limit.metric] / limit.limit * STRETCHES if limit.metric in values else np.full(len(STRETCHES), 1e-3)
            for limit in self._limits
        ]
        return Trial(job, np.array(rows), values["ttft"])


def measured_steps(model: str, relative_error: float, *, step_s: float) -> None:
    """As if a user had measured steps of that model on MI300X under vLLM: keep a calibration of them in the user's folder."""
    fit = {"step_s": step_s, "prompt_s": 0.0, "token_s": [2e-5] * 5, "sequence_s": 2e-5, "kv_token_s": 1e-8, "product_s": 0.0}
    of_one_model = {"accelerator": "mi300x", "engine": "vllm", "model": model_facts(model).shape, "weight_precision": "bf16"}
    kept = {"schema": 1, "kind": "steps", "name": "mine", "note": "", **of_one_model, "fit": fit}
    save("mine", {**kept, "relative_error": relative_error})


def planned(asked: Requirement, **wishes: object) -> tuple[Plan, FormulaRunner]:
    """The plan that the formula runner leads to."""
    runner = FormulaRunner(asked)
    return make_plan(asks(asked, **wishes), runner), runner


def asks(asked: Requirement, **wishes: object) -> Asked:
    """A requirement with wishes of the command line."""
    return asked_of(asked, Wishes(**wishes))  # type: ignore[arg-type]


def shape(
    hardware: str = "h100-sxm",
    model: str = "llama-3.1-8b",
    *,
    parallel: int = 1,
    weights: str = "bf16",
    cache: str = "bf16",
    usd: float | None = 3.0,
) -> Shape:
    """One replica's make."""
    deployment = Deployment(model_facts(model), accelerator(hardware), parallel, "vllm", weights, cache)
    return Shape(deployment, usd, kv_capacity_tokens(deployment))


def serving(mode: BatchingMode = BatchingMode.CONTINUOUS, running: int = 128, budget: int = 2048) -> Serving:
    """A serving configuration; ``continuous`` is vLLM's own scheduler."""
    scheduler = Scheduler.VLLM if mode is BatchingMode.CONTINUOUS else Scheduler.SETPOINT
    return Serving(scheduler, ServingConfig(mode=mode, max_running=running, token_budget=budget))


def topology(replicas: int = 2, **make: object) -> Topology:
    """A candidate of one pool."""
    return Topology.single(shape(**make), serving(), replicas)  # type: ignore[arg-type]


def step_work(tokens: int) -> StepWork:
    """A step of one prompt's chunk."""
    return StepWork(tokens, 1, tokens, tokens * tokens // 2)
