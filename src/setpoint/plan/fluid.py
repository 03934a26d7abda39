"""The steady state of one replica without its fluctuations: the batch that carries a load, and the most that it can carry.

With ``B`` requests decoding, each step emits ``B`` tokens and, in balance, computes ``B * u / o`` prompt tokens (``u`` uncached
prompt tokens and ``o`` output tokens a request). A step then takes ``t(B)``, and the load carried is ``x(B) = B / (o * t(B))``.
The most is ``x`` at the largest batch that the configuration, the token budget and the KV cache allow. Requests that wait,
bursts and percentiles are left to the simulator; this only says where it is worth looking, and what no fluctuation can better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from setpoint.plan.sketch import LoadSketch
from setpoint.plan.topology import Serving
from setpoint.policy.configuration import BatchingMode
from setpoint.policy.decisions import StepWork

BISECTIONS = 30


class Timer(Protocol):
    """What is needed of ``hardware.step_time.StepTimer``."""

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """``(base_s, per_kv_token_s, per_product_s)``."""
        ...


@dataclass(frozen=True, slots=True)
class Balance:
    """A replica in balance: ``batch`` requests decode, a step of ``work`` takes ``step_s``, and ``rate_rps`` is carried."""

    batch: float
    work: StepWork
    step_s: float
    rate_rps: float


def step_s(timer: Timer, work: StepWork) -> float:
    """Seconds of a step (formula: ``hardware/step_time.py``)."""
    base_s, per_kv_s, per_product_s = timer.affine(work.tokens, work.sequences)
    return base_s + per_kv_s * work.kv_tokens_read + per_product_s * work.attention_products


def work_of(load: LoadSketch, batch: float) -> StepWork:
    """The average step with ``batch`` requests decoding."""
    prefill = batch * load.mean_uncached / load.mean_output
    read_by_prefill = prefill * (float(load.prompt_tokens.mean()) - load.mean_uncached / 2)
    context = batch * load.mean_context
    return StepWork(
        tokens=max(1, round(batch + prefill)),
        sequences=max(1, round(batch)),
        kv_tokens_read=round(context),
        attention_products=round(context + read_by_prefill),
    )


def balance(timer: Timer, load: LoadSketch, batch: float) -> Balance:
    """The balance with ``batch`` requests decoding."""
    work = work_of(load, batch)
    seconds = step_s(timer, work)
    return Balance(batch, work, seconds, batch / (load.mean_output * seconds))


def largest_batch(serving: Serving, load: LoadSketch, kv_tokens: float) -> float:
    """How many requests can decode at once: by the configuration, the token budget and the cache."""
    config = serving.config
    by_cache = kv_tokens / load.mean_resident
    if config.mode in (BatchingMode.IMMEDIATE, BatchingMode.STATIC):
        return min(1.0 if config.mode is BatchingMode.IMMEDIATE else float(config.max_running), by_cache)
    by_budget = config.token_budget / (1.0 + load.mean_uncached / load.mean_output)
    return min(float(config.max_running), by_cache, by_budget)


def capacity(timer: Timer, load: LoadSketch, serving: Serving, kv_tokens: float) -> Balance:
    """The most that a replica carries in balance."""
    return balance(timer, load, max(largest_batch(serving, load, kv_tokens), 1e-6))


def at_load(timer: Timer, load: LoadSketch, serving: Serving, kv_tokens: float, rate_rps: float) -> Balance | None:
    """The balance at ``rate_rps``, ``None`` if that is more than the replica can carry."""
    low, high = 1e-6, largest_batch(serving, load, kv_tokens)
    if balance(timer, load, high).rate_rps < rate_rps:
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if balance(timer, load, middle).rate_rps < rate_rps:
            low = middle
        else:
            high = middle
    return balance(timer, load, high)


def answer_s(timer: Timer, load: LoadSketch, found: Balance) -> float:
    """About how long an answer takes in a balance: its prompt by itself, and a step for each of its tokens."""
    uncached, prompt = load.mean_uncached, float(load.prompt_tokens.mean())
    products = uncached * (prompt - uncached / 2)
    first = StepWork(max(1, round(uncached)), 1, round(prompt), round(products))
    return step_s(timer, first) + load.mean_output * found.step_s
