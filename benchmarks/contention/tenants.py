"""Two tenants, one sending ten times as much: is the small one's first token nearly as soon as when it is alone?

    python benchmarks/contention/tenants.py

The small tenant sends a tenth of 0.9x the knee, alone and beside the other, which sends the rest and 1x the knee more, so
that the server is over its knee. Tenants are told apart by ``x-gateway-inference-fairness-id``. Alone and beside take turns. At
most 5 minutes; quick: one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from driving import CONFIGS, Load, Run, put, serving
from figures import client_account, latencies, quantile, rows_of
from script import Criterion, Script

from setpoint.measure.target import Target

EXAMPLE = "coding-assistant"
HEADER = "x-gateway-inference-fairness-id"
SMALL_SHARE, RATIO = 0.15, 10.0
SECONDS, ROUNDS = 60.0, 2
MOST_OF_ALONE = 1.5


def small_of(runs: list[Run]) -> dict[str, Any]:
    """What the small tenant saw."""
    parts = [(rows := rows_of(run)).where(rows.phase == "sustained") for run in runs]
    ttft = np.concatenate([latencies(part)[0] for part in parts])
    offered = sum(len(part.good) for part in parts)
    return {
        "offered": offered,
        "admitted": int(sum(part.admitted.sum() for part in parts)),
        "good": int(sum(part.good.sum() for part in parts)),
        "ttft_p50_s": quantile(ttft, 0.5),
        "ttft_p95_s": quantile(ttft, 0.95),
        "clients": [client_account(run) for run in runs],
    }


def main() -> None:
    script = Script("tenants", __doc__ or "")
    given = script.options()
    knee_rps = script.knee_rps(EXAMPLE)
    seconds, rounds = (10.0, 1) if given.quick else (SECONDS, ROUNDS)
    script.announce([seconds + 10.0] * 2 * rounds, servers=2 * rounds)
    runs: dict[str, list[Run]] = {"alone": [], "beside": [], "large": []}

    async def work(target: Target, seed: int, beside: bool) -> tuple[Run, Run | None]:
        small = Load(EXAMPLE, SMALL_SHARE * knee_rps, seconds, warmup_s=4.0, seed=seed)
        large = Load(EXAMPLE, RATIO * SMALL_SHARE * knee_rps, seconds, warmup_s=4.0, seed=seed + 1000)
        if not beside:
            return await put(target, small, headers={HEADER: "small"}), None
        both = await asyncio.gather(
            put(target, small, headers={HEADER: "small"}), put(target, large, headers={HEADER: "large"})
        )
        return both[0], both[1]

    for number in range(rounds):
        for beside in (False, True) if number % 2 == 0 else (True, False):
            seed = given.seed + number
            own, other = serving(EXAMPLE, CONFIGS[EXAMPLE], lambda target, s=seed, b=beside: work(target, s, b))  # type: ignore[misc]
            runs["beside" if beside else "alone"].append(own)
            if other is not None:
                runs["large"].append(other)
            script.done(f"{'beside' if beside else 'alone'}, round {number + 1}")
    found = {name: small_of(each) for name, each in runs.items()}
    alone, beside_s = found["alone"]["ttft_p95_s"], found["beside"]["ttft_p95_s"]
    ratio = beside_s / alone if alone and beside_s is not None else None
    criteria = [
        Criterion(
            "TTFT P95 of the small tenant, of its value alone", "at_most", MOST_OF_ALONE, ratio, found["beside"]["admitted"]
        )
    ]
    script.keep(criteria, {"example": EXAMPLE, "knee_rps": knee_rps, "tenants": found})


if __name__ == "__main__":
    main()
