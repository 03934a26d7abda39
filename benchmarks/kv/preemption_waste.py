"""What preemption wastes: tokens computed again under three rules of whom to preempt, over several seeds and pressures.

    python benchmarks/kv/preemption_waste.py --output benchmarks/results/kv_preemption.json
    python benchmarks/kv/preemption_waste.py --seeds 2 --requests 50 --pressures 3

Real policies, step loop and KV pool on a virtual clock (no model). ``LIVE`` requests are always waiting or running; prompts and
answers are log-normal, and nobody says how long an answer will be: every request asks for ``CAP_TOKENS``. Pressure is the
cache that ``PLACES`` average requests fill when half of their answer is out, divided by the cache there is. Recomputed: every
token of a step whose KV had been computed before and was lost, so that blocks found again in the prefix cache do not count. The
three rules see the same requests, only the order of preemption differs. Modes differ in who joins: ``continuous`` takes whoever
fits now, ``setpoint`` whoever is foreseen to fit until the end (``policy/kv_peak.py``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from setpoint.engine.batch import Batch
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.step_loop import StepLoop
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import Admit, Policy, Reject, StepPlan, StepResult, StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import CPU_PRIOR_S, StepTimeModel
from setpoint.policy.views import Columns, RequestView, StepView, SystemView
from setpoint.report.files import machine_facts

PLACES = 24
LIVE = 32
BLOCK_TOKENS = 32
MODEL_LEN = 2048
CAP_TOKENS = MODEL_LEN // 2
STOP_TOKEN = 2
PRESSURES = (1.6, 2.4, 4.0)


@dataclass(frozen=True, slots=True)
class Load:
    """Median and sigma of the logarithm of prompt and output tokens."""

    prompt: tuple[float, float]
    output: tuple[float, float]


# ``growing``: what fills the cache is answers, which is when preemption is frequent.
LOADS = {"chat": Load((200.0, 0.9), (120.0, 0.7)), "growing": Load((60.0, 1.2), (250.0, 0.6))}

Order = Callable[[Columns], list[int]]
RULES: dict[str, Order] = {
    "least_computed": lambda running: running.ids[np.argsort(running.context_tokens, kind="stable")].tolist(),
    "last_in": lambda running: running.ids[::-1].tolist(),
    "first_in": lambda running: running.ids.tolist(),
}


class Preempting:
    """A policy whose order of preemption is replaced. ``last_in`` and ``first_in`` go by arrival."""

    def __init__(self, inner: Policy, order: Order) -> None:
        self._inner = inner
        self._order = order

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """As the inner policy."""
        return self._inner.admit(request, system)

    def plan(self, step: StepView) -> StepPlan:
        """The inner policy's, with another order of preemption."""
        return replace(self._inner.plan(step), preempt_order=tuple(self._order(step.running)))

    def observe(self, result: StepResult) -> None:
        """As the inner policy."""
        self._inner.observe(result)


class CountingExecutor(SimulatedExecutor):
    """Counts tokens whose KV had been there before."""

    def __init__(self, clock: VirtualClock, token: Callable[[Sequence], int], *, blocks: int) -> None:
        super().__init__(clock, step_s, blocks=blocks, block_tokens=BLOCK_TOKENS, next_token=token)
        self.computed = 0
        self.recomputed = 0
        self._reached: dict[int, int] = {}

    def submit(self, batch: Batch) -> Batch:
        """Count, then go on."""
        for item in batch.items:
            number, end = item.sequence.sequence_id, item.start + item.count
            reached = self._reached.get(number, 0)
            self.computed += item.count
            self.recomputed += max(0, min(end, reached) - item.start)
            self._reached[number] = max(reached, end)
        return super().submit(batch)


def step_s(work: StepWork) -> float:
    """The prior of the step-time model: a small model on two CPU cores."""
    c0, c1, c2, c3, c4 = CPU_PRIOR_S
    return c0 + c1 * work.tokens + c2 * work.sequences + c3 * work.kv_tokens_read + c4 * work.attention_products


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. ``output_tokens_per_s`` on the virtual clock."""

    recomputed: int
    computed: int
    preemptions: int
    output_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A request, and how many tokens its answer will have."""

    request: GenerationRequest
    output_tokens: int


def draw_requests(load: Load, seed: int, count: int) -> list[Drawn]:
    """The same for every rule."""
    dice = np.random.default_rng(seed)

    def length(shape: tuple[float, float]) -> int:
        return int(np.clip(shape[0] * np.exp(shape[1] * dice.standard_normal()), 1, MODEL_LEN // 2 - 1))

    requests = []
    for number in range(count):
        first = 10_000 * (number + 1)
        prompt = tuple(range(first, first + length(load.prompt)))
        request = GenerationRequest(prompt, SamplingParams(max_tokens=CAP_TOKENS), name=str(number))
        requests.append(Drawn(request, length(load.output)))
    return requests


def run(mode: BatchingMode, rule: str, requests: list[Drawn], *, pressure: float) -> Outcome:
    """All requests through one loop, ``LIVE`` at a time."""
    half = fmean(len(each.request.prompt_ids) + each.output_tokens / 2 for each in requests)
    lengths = {each.request.name: each.output_tokens for each in requests}

    def token(sequence: Sequence) -> int:
        return STOP_TOKEN if sequence.emitted + 1 >= lengths[sequence.request.name] else 10

    blocks = max(MODEL_LEN // BLOCK_TOKENS, int(PLACES * half / pressure / BLOCK_TOKENS))
    clock = VirtualClock()
    executor, model = CountingExecutor(clock, token, blocks=blocks), StepTimeModel()
    policy = Preempting(build_policy(ServingConfig(mode=mode, max_running=PLACES, token_budget=512), model), RULES[rule])
    loop = StepLoop(policy, executor, clock, max_model_len=MODEL_LEN, stop_token_ids=frozenset({STOP_TOKEN}), model=model)
    coming = iter(requests)
    while True:
        while len(loop.waiting) + len(loop.running) < LIVE and (drawn := next(coming, None)) is not None:
            loop.submit(drawn.request)
        if not loop.begin_step():
            break
        loop.finish_step()
    loop.check_integrity()
    counters = loop.counters
    return Outcome(executor.recomputed, executor.computed, counters.preemptions, counters.output_tokens / clock())


def summary(values: list[float]) -> dict[str, float]:
    """Mean, least and most over the seeds."""
    return {"mean": round(fmean(values), 4), "least": round(min(values), 4), "most": round(max(values), 4)}


def compare(name: str, mode: BatchingMode, *, pressure: float, seeds: int, requests: int) -> dict[str, Any]:
    """All rules at one pressure, seed by seed; the ratios are of the same requests under two rules."""
    outcomes: dict[str, list[Outcome]] = {rule: [] for rule in RULES}
    for seed in range(seeds):
        drawn = draw_requests(LOADS[name], seed, requests)
        for rule in RULES:
            outcomes[rule].append(run(mode, rule, drawn, pressure=pressure))
    rules = {
        rule: {
            "recomputed_share": summary([each.recomputed / each.computed for each in of]),
            "recomputed_tokens": sum(each.recomputed for each in of),
            "preemptions": sum(each.preemptions for each in of),
            "output_tokens_per_s": summary([each.output_tokens_per_s for each in of]),
        }
        for rule, of in outcomes.items()
    }
    least = rules["least_computed"]["recomputed_tokens"]
    best = outcomes["least_computed"]
    ratios = {
        rule: {
            "of_totals": round(rules[rule]["recomputed_tokens"] / least, 3) if least else None,
            "by_seed": summary(
                [a.recomputed / b.recomputed for a, b in zip(outcomes[rule], best, strict=True) if b.recomputed] or [1.0]
            ),
        }
        for rule in RULES
        if rule != "least_computed"
    }
    return {
        "load": name,
        "mode": mode.value,
        "pressure": pressure,
        "rules": rules,
        "recomputed_against_least_computed": ratios,
    }


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Tokens computed again under three rules of preemption.")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--pressures", type=float, nargs="+", default=list(PRESSURES))
    told = parser.parse_args()
    rows = []
    for name, mode, pressure in product(LOADS, (BatchingMode.CONTINUOUS, BatchingMode.SETPOINT), told.pressures):
        row = compare(name, mode, pressure=pressure, seeds=told.seeds, requests=told.requests)
        rows.append(row)
        shares = " ".join(f"{rule} {each['recomputed_share']['mean']:.3f}" for rule, each in row["rules"].items())
        ratio = {rule: each["of_totals"] for rule, each in row["recomputed_against_least_computed"].items()}
        print(f"{name} {mode.value} pressure {pressure}: recomputed {shares}; against least computed {ratio}", flush=True)
    if told.output:
        facts = {"seeds": told.seeds, "requests": told.requests, "places": PLACES, "live": LIVE, "block_tokens": BLOCK_TOKENS}
        document = {"benchmark": "kv_preemption", "settings": facts, "machine": machine_facts(), "rows": rows}
        told.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
