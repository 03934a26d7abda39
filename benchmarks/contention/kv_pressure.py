"""KV pressure: the context swept past the size of a small cache. Latency, preemptions and hits in one figure.

    python benchmarks/contention/kv_pressure.py

A cache of 4096 tokens serves a dozen clients in a closed loop (``continuous``, which admits all, so that pressure is not shed
away); only the prompts grow from load to load, half of each shared. The knee is where all that the clients hold together,
the shared half once, is as large as the cache. At most 3 minutes; quick: one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from driving import put_closed, serving
from figures import quantile
from script import IMAGES, Script

from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.report.charts.picture import Series, Strip, write_picture
from setpoint.report.format import round_percent, round_seconds

EXAMPLE = "coding-assistant"
CACHE_TOKENS = 4096
CLIENTS = 12
OUTPUT_TOKENS = 64
CONTEXTS = (160, 288, 416, 512, 576, 640, 736, 864, 1024)
SECONDS = 12.0
SHARED = 0.5
CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=CLIENTS, token_budget=512, kv_cache_tokens=CACHE_TOKENS)


def figures_of(context: int, result: LoadResult) -> dict[str, Any]:
    """What pressure did at one context length (prompt and answer)."""
    rows = [row for row in result.outcomes if row.completed and row.e2e_s is not None]
    begun_s = np.array([row.sent_s or 0.0 for row in rows])
    ended_s = np.array([row.ended_s or 0.0 for row in rows])
    e2e_s = ended_s - begun_s
    prompt = sum(row.prompt_tokens for row in rows)
    cached = sum(row.cached_tokens or 0 for row in rows)
    steps = result.server.steps
    preempted = 0 if steps is None else sum(steps["preempted"].to_pylist())
    usage = (
        []
        if steps is None
        else (np.array(steps["kv_used_blocks"].to_pylist()) / np.array(steps["kv_blocks"].to_pylist())).tolist()
    )
    return {
        "context_tokens": context,
        "ended": len(rows),
        "failed": sum(str(row.request_class) == "failed" for row in result.outcomes),
        "e2e_p50_s": quantile(e2e_s, 0.5),
        "e2e_p99_s": quantile(e2e_s, 0.99),
        "preemptions": preempted,
        "preemptions_a_request": preempted / len(rows) if rows else None,
        "hit_rate": cached / prompt if prompt else None,
        "kv_usage_mean": float(np.mean(usage)) if usage else None,
        "output_tokens_per_s": sum(row.output_tokens for row in rows) / SECONDS,
    }


def knee_context() -> float:
    """The context at which the shared part once and every client's own part are as large as the cache."""
    # shared (c - o) + clients ((1 - shared) (c - o) + o) = cache, c the context and o the answer.
    prompt = (CACHE_TOKENS - CLIENTS * OUTPUT_TOKENS) / (SHARED + CLIENTS * (1 - SHARED))
    return prompt + OUTPUT_TOKENS


def main() -> None:
    script = Script("kv_pressure", __doc__ or "", knee=False)
    given = script.options()
    contexts = CONTEXTS[::3] if given.quick else CONTEXTS
    seconds = 6.0 if given.quick else SECONDS
    script.announce([seconds + 7.0] * len(contexts))

    async def work(target: Target) -> list[dict[str, Any]]:
        found = []
        for number, context in enumerate(contexts):
            result = await put_closed(
                target,
                clients=CLIENTS,
                prompt_tokens=context - OUTPUT_TOKENS,
                shared_tokens=int(SHARED * (context - OUTPUT_TOKENS)),
                output_tokens=OUTPUT_TOKENS,
                seconds=seconds,
                seed=given.seed + number,
            )
            found.append(figures_of(context, result))
            script.done(f"context {context}: P99 {found[-1]['e2e_p99_s']} s, {found[-1]['preemptions']} preemptions")
        return found

    rows = serving(EXAMPLE, CONFIG, work)
    if not given.quick:
        draw(rows)
    facts = {"cache_tokens": CACHE_TOKENS, "clients": CLIENTS, "output_tokens": OUTPUT_TOKENS, "shared": SHARED}
    script.keep([], {**facts, "knee_context_tokens": knee_context(), "loads": rows})


def draw(rows: list[dict[str, Any]]) -> None:
    """Latency, preemptions and hit rate over the context length."""
    xs = np.array([row["context_tokens"] for row in rows], dtype=np.float64)

    def column(name: str) -> Any:
        return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)

    strips = [
        Strip("E2E", [Series("P50", xs, column("e2e_p50_s")), Series("P99", xs, column("e2e_p99_s"))], round_seconds),
        Strip("Preemptions a request", [Series("P50", xs, column("preemptions_a_request"))]),
        Strip("Prefix hit rate", [Series("P50", xs, column("hit_rate"))], round_percent),
    ]
    write_picture(
        IMAGES / "contention_kv.svg",
        f"{CLIENTS} clients on a cache of {CACHE_TOKENS} tokens",
        "Context of a request, tokens",
        strips,
        mark_x=knee_context(),
        mark_words="all that is held fills the cache",
    )


if __name__ == "__main__":
    main()
