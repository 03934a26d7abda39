"""Mean TTFT and TPOT of a closed loop: ``concurrency`` clients, each sending its next request when its last one ended.

Steady state under chunked prefill. With n requests running, a decode step takes t(n); while one request decodes its O tokens,
each of the others is replaced once, and its prompt of L tokens lengthens steps by x in sum, so

    TPOT = t(n) + (n - 1) x share / O
    TTFT = front end + steps until it is handed out + own prompt's steps + queue of other prompts + waits below

A benchmark starts with all clients at once: with ``burst`` = first requests / all requests, that share waits for half of all
prompts (and their decodes are held up by half of the others only). If the cache or the engine's bound holds fewer than
``concurrency`` sequences, the rest wait by Little's law: (concurrency / n - 1) x time of service. A front end that can hand out
so many tokens a second stretches the loop to ``n O output_s``. A client that takes ``slot`` of a cycle to come back adds its
share.

Used only to calibrate from, and to score against, tables of closed-loop measurements; the simulator has no part of it. When it
is wrong: short runs, prefix caches, speculative decoding, schedulers that hold prompts back on purpose.
Everything is an array with one value a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.hardware.coefficients import Coefficients, base_s, per_kv_token_s, per_product_s
from setpoint.hardware.terms import Terms

Array = npt.NDArray[np.float64]
BUDGET_TOKENS = 8192.0
ROUNDS = 4
MOST_UTILISATION = 0.95
# How sharply limits set in: the larger, the nearer to a plain minimum or maximum. A fit begins softer, to feel them from afar.
SHARPNESS = 40.0


@dataclass(frozen=True, slots=True)
class Harness:
    """How a benchmark was run and what surrounds the engine's steps.

    burst: share of requests sent in the opening burst. front_s: network, tokenizing, first hand-over. queue: multiple of the
    mean wait for other prompts. cap: multiple of the cache's size. limit: most requests at once for each attention rank, as the
    engine was started. output_s: the front end's seconds a token handed out. slot: share of a cycle before a freed place is
    taken. lag: steps until a first token is handed out (streaming every so many). length: true / nominal lengths (many clients
    draw lengths from 0.8 to 1 of them). first: of the time to a first token apart from waits for a place, what remains between
    formula and measurement.
    """

    burst: Any = 0.13
    front_s: Any = 0.06
    queue: Any = 0.4
    cap: Any = 0.9
    limit: Any = 1024.0
    output_s: Any = 8e-6
    slot: Any = 0.005
    length: Any = 0.95
    lag: Any = 1.0
    first: Any = 1.0


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Nominal lengths in tokens, clients, and how many such sequences the cache holds by its datasheet."""

    prompt_tokens: Array
    output_tokens: Array
    concurrency: Array
    capacity: Array


def closed_loop_s(
    terms: Terms, coefficients: Coefficients, harness: Harness, load: ClosedLoop, *, sharpness: float = SHARPNESS
) -> tuple[Array, Array]:
    """Mean seconds to the first token, and mean seconds a further token."""
    c, h = coefficients, harness
    prompt, output = load.prompt_tokens * h.length, load.output_tokens * h.length
    most = _least(np.maximum(load.capacity * h.cap / h.length, 0.7), h.limit * terms.ranks, sharpness)
    running = _least(load.concurrency, most, sharpness)
    kv, product = per_kv_token_s(terms, c), per_product_s(terms, c)
    chunk = np.minimum(prompt, BUDGET_TOKENS)
    chunks = prompt / chunk
    attention = terms.ranks * (product * prompt * (prompt + chunk) + kv * chunks * (prompt + chunk)) / 2
    read = (kv + product) * (prompt + 0.5 * output)
    together = np.minimum(terms.ranks, np.maximum(running * prompt / BUDGET_TOKENS, 1.0))
    full = BUDGET_TOKENS * together
    burst_prompt = base_s(terms, c, full, full / prompt) * prompt / full + attention / np.minimum(terms.ranks, running)
    side_by_side = np.minimum(terms.ranks, np.maximum(1.0, running * prompt / BUDGET_TOKENS / 4))
    burst = np.minimum(h.burst, 1.0)
    share, tpot, ttft, own, cycle = np.full_like(prompt, 0.9), prompt, prompt, prompt, prompt
    for _ in range(ROUNDS):
        decoding = np.maximum(running * share, 1.0)
        decode = base_s(terms, c, decoding, decoding)
        mixed = base_s(terms, c, decoding + chunk, decoding + 1.0)
        held_up = (mixed - decode) * chunks + attention
        others = np.maximum(running - 1.0, 0.0) * share
        tpot = decode + read * decoding + (1 - 0.5 * burst) * others * held_up / output / side_by_side
        own = (mixed + read * decoding) * chunks + attention
        busy = np.minimum(running * held_up / (own + tpot * output), MOST_UTILISATION)
        steady = h.front_s + h.lag * tpot + own + h.queue * held_up * 0.5 * busy / (1 - busy + 1 / running)
        opening = h.front_s + h.lag * tpot + own + (running - 1) / 2 * burst_prompt
        ttft = h.first * ((1 - burst) * steady + burst * opening)
        cycle = ttft + tpot * output
        share = np.clip(tpot * output / cycle, 0.05, 1.0)
    stretched = _most(cycle, running * output * h.output_s, sharpness) - cycle
    waiting = np.maximum(load.concurrency / running - 1.0, 0.0) * (tpot * output + own)
    return ttft + h.slot * cycle / running + stretched + waiting, tpot


def _least(a: Array, b: Array, sharpness: float) -> Array:
    """A smooth minimum, a little below both."""
    smaller, ratio = np.minimum(a, b), np.minimum(a, b) / np.maximum(a, b)
    least: Array = smaller * (1.0 + ratio**sharpness) ** (-1.0 / sharpness)
    return least


def _most(a: Array, b: Array, sharpness: float) -> Array:
    """A smooth maximum, a little above both."""
    greater, ratio = np.maximum(a, b), np.minimum(a, b) / np.maximum(a, b)
    most: Array = greater * (1.0 + ratio**sharpness) ** (1.0 / sharpness)
    return most
