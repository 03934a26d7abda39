"""The same load with streaming on and off: other step plans, and more goodput where nobody reads along.

    python benchmarks/contention/streaming.py

The coding assistant's requests over the knee, streamed, and then not. Both have the same limit for the whole answer: when the
longest would have ended with its first token and every gap at their limits. A stream also owes each token in time; an
answer due as a whole owes only its end, and the scheduler may use that freedom. At most 2 minutes; quick: one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from driving import CONFIGS, Load, Run, put, serving
from examples import longest_answer_s, requirement_of
from figures import client_account, load_figures, rows_of
from script import IMAGES, Criterion, Script

from setpoint.measure.target import Target
from setpoint.report.charts.picture import Series, Strip, write_picture
from setpoint.requirement import LatencyMetric, Slos
from setpoint.requirement.slos import LatencySlo
from setpoint.statistics import FloatArray

EXAMPLE = "coding-assistant"
FACTOR, SECONDS, ROUNDS = 1.5, 36.0, 1
SHOWN_S = 10.0


def steps_of(run: Run) -> dict[str, FloatArray]:
    """The steps of the sustained phase as columns."""
    steps = run.result.server.steps
    assert steps is not None
    columns = {
        name: np.array(steps[name].to_pylist(), dtype=np.float64)
        for name in ("start_s", "end_s", "prefill_tokens", "decode_tokens")
    }
    kept = (columns["start_s"] >= run.load.warmup_s) & (columns["start_s"] < run.load.warmup_s + run.load.sustained_s)
    return {name: column[kept] for name, column in columns.items()}


def plans(steps: dict[str, FloatArray]) -> dict[str, Any]:
    """What the step plans looked like."""
    prompts = steps["prefill_tokens"] > 0
    seconds = steps["end_s"] - steps["start_s"]
    return {
        "steps": len(prompts),
        "with_prompt_tokens": int(prompts.sum()),
        "prompt_tokens_a_step": {
            f"p{int(100 * q)}": float(np.quantile(steps["prefill_tokens"][prompts], q)) for q in (0.5, 0.95)
        }
        if prompts.any()
        else None,
        "decodes_mean": float(steps["decode_tokens"].mean()),
        "step_s": {f"p{int(100 * q)}": float(np.quantile(seconds, q)) for q in (0.5, 0.95, 0.99)},
    }


def main() -> None:
    script = Script("streaming", __doc__ or "")
    given = script.options()
    knee_rps = script.knee_rps(EXAMPLE)
    seconds, rounds = (8.0, 1) if given.quick else (SECONDS, ROUNDS)
    limit_s = longest_answer_s(EXAMPLE)
    load = Load(EXAMPLE, FACTOR * knee_rps, seconds, warmup_s=5.0)
    script.announce([load.length_s] * 2 * rounds, servers=2 * rounds)
    runs: dict[bool, list[Run]] = {True: [], False: []}
    headers = {"x-slo-e2e-ms": f"{1e3 * limit_s:.0f}"}
    for number in range(rounds):
        for streamed in (True, False) if number % 2 == 0 else (False, True):

            async def work(target: Target, streamed: bool = streamed, seed: int = given.seed + number) -> Run:
                changed = Load(EXAMPLE, load.rate_rps, seconds, warmup_s=5.0, seed=seed, changes={"streaming": streamed})
                return await put(target, changed, headers=headers)

            runs[streamed].append(serving(EXAMPLE, CONFIGS[EXAMPLE], work))
            script.done(f"{'streamed' if streamed else 'whole'}, round {number + 1}")
    whole = Slos(latency=(LatencySlo(metric=LatencyMetric.E2E, percentile=99.0, limit_s=limit_s),))
    stream = Slos(latency=(*requirement_of(EXAMPLE).slo.latency, *whole.latency))
    found: dict[str, Any] = {}
    for streamed, name, slos in ((True, "streamed", stream), (False, "whole", whole)):
        found[name] = [
            {
                "figures": load_figures((rows := rows_of(run, slos)).where(rows.phase == "sustained"), seconds, slos),
                "plans": plans(steps_of(run)),
                "client": client_account(run),
            }
            for run in runs[streamed]
        ]
    goodput = {name: float(np.mean([each["figures"]["goodput_rps"] for each in found[name]])) for name in found}
    gain = goodput["whole"] / goodput["streamed"] if goodput["streamed"] else None
    samples = sum(each["figures"]["offered"] for each in found["whole"])
    if not given.quick:
        draw(runs[True][0], runs[False][0])
    facts = {"example": EXAMPLE, "knee_rps": knee_rps, "rate_rps": load.rate_rps, "e2e_limit_s": limit_s, "sides": found}
    script.keep([Criterion("goodput without streaming, of that with", "at_least", 1.0, gain, samples)], facts)


def draw(streamed: Run, whole: Run) -> None:
    """Prompt tokens and decodes of each step over a few seconds of both."""
    strips = []
    for name, column in (("Prompt tokens in a step", "prefill_tokens"), ("Decodes in a step", "decode_tokens")):
        series = []
        for label, run in (("streamed", streamed), ("whole", whole)):
            steps = steps_of(run)
            from_s = run.load.warmup_s + 2.0
            shown = (steps["start_s"] >= from_s) & (steps["start_s"] < from_s + SHOWN_S)
            series.append(Series(label, steps["start_s"][shown] - from_s, steps[column][shown], marks=False))
        strips.append(Strip(name, series))
    write_picture(
        IMAGES / "contention_streaming.svg", "The same requests, streamed and whole: what each step does", "s", strips
    )


if __name__ == "__main__":
    main()
