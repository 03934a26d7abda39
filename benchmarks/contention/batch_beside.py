"""Batch work beside interactive requests: are the requirement's limits kept, and does batch get what they leave over?

    python benchmarks/contention/batch_beside.py

Three measurements, taking turns: interactive alone at 0.6x the knee; batch alone (a closed loop of class ``batch``, more than
fills the machine); both together. What interactive leaves over is measured in the machine's own time: the share of time
that its steps do not take when it is alone, times what batch makes alone in all of it. At most 2.5 minutes; quick: one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from driving import CONFIGS, Load, Run, put, put_closed, serving
from examples import requirement_of
from figures import client_account, load_figures, rows_of
from script import Criterion, Script

from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.record import Phase
from setpoint.report.request_samples import latency_sample, phase_rows, read_requests
from setpoint.statistics import percentile

EXAMPLE = "coding-assistant"
SHARE = 0.6
BATCH_CLIENTS = 24
PROMPT_TOKENS, OUTPUT_TOKENS = 96, 64
SECONDS, ROUNDS, WARM_S = 36.0, 1, 4.0
LEAST_OF_LEFT_OVER = 0.7
BATCH = {"x-setpoint-class": "batch"}


def busy_share(result: LoadResult, seconds: float) -> float:
    """Share of the sustained phase that the engine's steps took."""
    steps = result.server.steps
    assert steps is not None
    start, end = np.array(steps["start_s"].to_pylist()), np.array(steps["end_s"].to_pylist())
    inside = np.clip(np.minimum(end, WARM_S + seconds) - np.maximum(start, WARM_S), 0.0, None)
    return float(inside.sum() / seconds)


def batch_tokens_per_s(result: LoadResult, seconds: float) -> float:
    """Output tokens that batch clients got in the sustained phase, by arrival."""
    times = np.concatenate([row.token_times_s for row in result.outcomes]) if result.outcomes else np.empty(0)
    return float(((times >= WARM_S) & (times < WARM_S + seconds)).sum() / seconds)


def limits_beside(runs: list[Run]) -> list[Criterion]:
    """Each latency limit of the requirement against its percentile over the sustained phases of ``runs`` together."""
    tables = [phase_rows(run.result.requests("load"), Phase.SUSTAINED) for run in runs]
    criteria = []
    for slo in requirement_of(EXAMPLE).slo.latency:
        samples = [latency_sample(read_requests(table), slo.metric, failures_infinite=True) for table in tables]
        values = np.concatenate([sample.values for sample in samples])
        censored = np.concatenate([sample.censored for sample in samples])
        name = f"interactive requests beside batch: {str(slo.metric).upper()} {slo.statistic.upper()}, s"
        criteria.append(Criterion(name, "at_most", slo.limit_s, percentile(values, slo.percentile, censored), len(values)))
    return criteria


def main() -> None:
    script = Script("batch_beside", __doc__ or "")
    given = script.options()
    knee_rps = script.knee_rps(EXAMPLE)
    seconds, rounds = (8.0, 1) if given.quick else (SECONDS, ROUNDS)
    script.announce([seconds + 12.0] * 3 * rounds, servers=3 * rounds)

    async def interactive(target: Target, seed: int) -> Run:
        return await put(target, Load(EXAMPLE, SHARE * knee_rps, seconds, warmup_s=WARM_S, seed=seed))

    async def batch(target: Target, seed: int) -> LoadResult:
        return await put_closed(
            target,
            clients=BATCH_CLIENTS,
            prompt_tokens=PROMPT_TOKENS,
            shared_tokens=0,
            output_tokens=OUTPUT_TOKENS,
            seconds=seconds,
            seed=seed + 500,
            warmup_s=WARM_S,
            headers=BATCH,
        )

    async def both(target: Target, seed: int) -> tuple[Run, LoadResult]:
        first, second = await asyncio.gather(interactive(target, seed), batch(target, seed))
        return first, second

    config = CONFIGS[EXAMPLE]
    found: list[dict[str, Any]] = []
    together: list[Run] = []
    for number in range(rounds):
        seed = given.seed + number
        alone = serving(EXAMPLE, config, lambda target, s=seed: interactive(target, s))  # type: ignore[misc]
        script.done("interactive alone")
        only = serving(EXAMPLE, config, lambda target, s=seed: batch(target, s))  # type: ignore[misc]
        script.done("batch alone")
        run, beside = serving(EXAMPLE, config, lambda target, s=seed: both(target, s))  # type: ignore[misc]
        script.done("together")
        together.append(run)
        busy = busy_share(alone.result, seconds)
        whole = batch_tokens_per_s(only, seconds)
        row = {"interactive_busy_share": busy, "batch_alone_tokens_per_s": whole, "left_over_tokens_per_s": (1 - busy) * whole}
        rows = rows_of(run)
        slos = requirement_of(EXAMPLE).slo
        row["batch_beside_tokens_per_s"] = batch_tokens_per_s(beside, seconds)
        figures = {
            "interactive_beside": load_figures(rows.where(rows.phase == "sustained"), seconds, slos),
            "interactive_alone": load_figures((own := rows_of(alone)).where(own.phase == "sustained"), seconds, slos),
            "client": client_account(run),
        }
        found.append({**row, **figures})
    took = sum(each["batch_beside_tokens_per_s"] for each in found)
    left = sum(each["left_over_tokens_per_s"] for each in found)
    good = sum(each["interactive_beside"]["good"] for each in found)
    offered = sum(each["interactive_beside"]["offered"] for each in found)
    least = requirement_of(EXAMPLE).slo.goodput_fraction_min or 0.95
    criteria = [
        Criterion(
            "interactive requests beside batch: good, of offered",
            "at_least",
            least,
            good / offered if offered else None,
            offered,
        ),
        *limits_beside(together),
        Criterion(
            "batch tokens/s, of what is left over", "at_least", LEAST_OF_LEFT_OVER, took / left if left else None, rounds
        ),
    ]
    script.keep(criteria, {"example": EXAMPLE, "knee_rps": knee_rps, "rounds": found})


if __name__ == "__main__":
    main()
