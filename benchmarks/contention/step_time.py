"""How well the time of a step is predicted, each step before it was learned from, after the first 500.

    python benchmarks/contention/step_time.py

Three loads on one server (light, at the knee, twice the knee), so that steps of every size occur. Needs a quiet machine: what
another process takes cannot be predicted. At most 2 minutes; quick: three quarters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from driving import CONFIGS, Load, Run, put, serving
from figures import client_account, step_errors
from script import Criterion, Script

from setpoint.measure.target import Target

FACTORS = (0.3, 1.0, 2.0)
SECONDS = 26.0
LEARNED_AFTER = 500
MOST_MEDIAN, MOST_P95 = 0.08, 0.25


def by_kind(tables: list[pa.Table]) -> list[dict[str, Any]]:
    """Errors of steps with and without prompt tokens, by decodes."""
    columns = pa.concat_tables(tables).to_pydict()
    predicted = np.array(columns["predicted_s"], dtype=np.float64)
    seconds = np.array(columns["end_s"]) - np.array(columns["start_s"])
    known = (np.array(columns["step"]) >= LEARNED_AFTER) & np.isfinite(predicted) & (seconds > 0)
    error = predicted / np.where(seconds > 0, seconds, 1.0) - 1
    prompts, decodes = np.array(columns["prefill_tokens"]), np.array(columns["decode_tokens"])
    found = []
    for name, kind in (("decodes alone", prompts == 0), ("with prompt tokens", prompts > 0)):
        for low, high in ((0, 1), (2, 4), (5, 1024)):
            here = known & kind & (decodes >= low) & (decodes <= high)
            if here.any():
                middle, tail = np.quantile(np.abs(error[here]), (0.5, 0.95)).tolist()
                bias, mean_s = float(np.median(error[here])), float(seconds[here].mean())
                row = {"steps": name, "decodes": [low, high], "n": int(here.sum()), "mean_s": mean_s}
                found.append({**row, "median": middle, "p95": tail, "bias": bias})
    return found


def main() -> None:
    script = Script("step_time", __doc__ or "", example="coding-assistant")
    given = script.options()
    knee_rps = script.knee_rps(given.example)
    seconds = 8.0 if given.quick else SECONDS
    loads = [Load(given.example, f * knee_rps, seconds, seed=given.seed + n) for n, f in enumerate(FACTORS)]
    script.announce([load.length_s for load in loads])

    async def work(target: Target) -> list[Run]:
        runs = []
        for load in loads:
            runs.append(await put(target, load))
            script.done(f"{load.rate_rps:.1f}/s")
        return runs

    runs = serving(given.example, CONFIGS[given.example], work)
    errors = np.concatenate([step_errors(run.result, skip=LEARNED_AFTER) for run in runs])
    median, p95 = np.quantile(errors, (0.5, 0.95)).tolist() if len(errors) else (None, None)
    criteria = [
        Criterion("median absolute error of a step's time", "at_most", MOST_MEDIAN, median, len(errors)),
        Criterion("P95 of it", "at_most", MOST_P95, p95, len(errors)),
    ]
    kinds = by_kind([run.result.server.steps for run in runs if run.result.server.steps is not None])
    script.keep(criteria, {"example": given.example, "kinds": kinds, "clients": [client_account(run) for run in runs]})


if __name__ == "__main__":
    main()
