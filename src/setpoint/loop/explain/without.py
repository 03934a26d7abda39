"""What the queue would have looked like without the policy: the run's arrivals again, on a virtual clock, under others.

The machine is the one that was measured (``simulate/machine.py``). The first replay is under the run's own configuration: how
well it agrees with what was measured says how far the others are to be believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.loop.explain.explanation import Counterfactual, Figures, Trust
from setpoint.loop.explain.life import life_of
from setpoint.loop.explain.run import ExplainedRun, Steps, rows_of
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import Policy
from setpoint.policy.modes import build_policy
from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits
from setpoint.record import Phase, RequestClass
from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.report.figures import classify_run
from setpoint.report.format import percent, seconds
from setpoint.requirement import LatencyMetric, Requirement
from setpoint.simulate.admit_all import AdmitAll
from setpoint.simulate.machine import FloatColumn, MeasuredMachine
from setpoint.simulate.replay import Arrival, Outcome, Replayed, World, replay
from setpoint.statistics import percentile

UNBOUNDED = 1_000_000_000
MOST_ARRIVALS = 50_000
LEAST_STEPS = 32


def why_no_replay(run: ExplainedRun) -> str | None:
    """A sentence if the run cannot be replayed, else ``None``."""
    if run.steps is None:
        return "What the queue would have been without the policy cannot be told: the run has no steps of the engine."
    if run.requirement is None or run.config is None:
        return "What the queue would have been without the policy cannot be told: the run has no requirement or configuration."
    if len(run.steps) < LEAST_STEPS:
        return (
            f"What the queue would have been without the policy cannot be told: {len(run.steps)} steps are too few for a model."
        )
    if run.table.num_rows > MOST_ARRIVALS:
        return f"What the queue would have been without the policy is not replayed: {run.table.num_rows} requests are too many."
    return None


def counterfactual(run: ExplainedRun, machine: MeasuredMachine) -> Counterfactual:
    """The replays on ``machine``; call it only where ``why_no_replay`` says nothing."""
    assert run.steps is not None
    assert run.requirement is not None
    assert run.config is not None
    arrivals, notes = _arrivals(run)
    way_s = _way_back_s(run)
    until_s = _until_s(run)
    names = [each.name for each in arrivals]
    sent = run.table.filter(pc.is_in(run.table["request_id"], value_set=pa.array(names, pa.string())))  # the same in all rows
    measured = _figures("measured", "as it was", sent, run.requirement, _waiting_measured(run.steps), until_s)
    replays, tables = [], []
    for name, words, config, admission in _worlds(run.config):
        model = deepcopy(machine.model)  # the policy goes on learning
        policy: Policy = build_policy(config, model)
        played = replay(
            arrivals,
            policy if admission else AdmitAll(policy),
            _world(run, machine),
            until_s=until_s,
            model=model,
        )
        table = classify_run(_table(sent, played, way_s), run.requirement)
        tables.append(table)
        replays.append(_figures(name, words, table, run.requirement, _waiting_replayed(played), until_s))
    trust = _trust(run, run.steps, machine, measured, replays[0], tables[0])
    notes += _left_out(run, set(names))
    return Counterfactual(trust, measured, replays, [*notes, *_assumptions(run.steps, machine, way_s)])


def _worlds(config: ServingConfig) -> Iterator[tuple[str, str, ServingConfig, bool]]:
    """Name, words, configuration and whether admission is on: first the run's own."""
    yield "replay", f"the same arrivals under {config.mode} again: the check", config, True
    if config.mode is BatchingMode.SETPOINT:
        open_config = config.model_copy(update={"max_waiting": UNBOUNDED})
        yield "no admission", "setpoint, but everybody may wait", open_config, False
        plain = open_config.model_copy(update={"mode": BatchingMode.CONTINUOUS})
        yield "no policy", "continuous, first come first served, no bound", plain, True
        return
    unbounded = config.model_copy(update={"max_waiting": UNBOUNDED})
    yield "no bound", f"{config.mode} with an unbounded queue", unbounded, True
    with_deadlines = config.model_copy(update={"mode": BatchingMode.SETPOINT, "max_running": max(2, config.max_running)})
    yield "with policy", "setpoint with the requirement's limits", with_deadlines, True


def _world(run: ExplainedRun, machine: MeasuredMachine) -> World:
    assert run.steps is not None
    blocks = run.steps.kv_blocks
    return World(replace(machine).step_s, blocks=blocks, block_tokens=run.block_tokens, between_s=machine.between_s)


def limits_of(requirement: Requirement) -> RequestLimits:
    """What the server holds each request to: the tightest limit of each metric, as ``setpoint serve`` declares them."""
    slo = requirement.slo
    return RequestLimits(
        ttft_s=slo.limit_s(LatencyMetric.TTFT),
        itl_s=slo.limit_s(LatencyMetric.ITL),
        tpot_s=slo.limit_s(LatencyMetric.TPOT),
        e2e_s=slo.limit_s(LatencyMetric.E2E),
    )


def _arrivals(run: ExplainedRun) -> tuple[list[Arrival], list[str]]:
    """The run's requests as they reached the engine, and what had to be assumed of them. Batch ones have no limits."""
    assert run.requirement is not None
    rows = rows_of(run.table)
    served = [row for row in rows if row["request_class"] in (RequestClass.OK, RequestClass.LATE)]
    usual = int(np.median([row["output_tokens"] or 1 for row in served])) if served else 1
    lag_s, guessed, found = _lag_s(run), 0, []
    limits = limits_of(run.requirement)
    for row in rows:
        if row["sent_s"] is None:
            continue  # never sent: the server did not see it
        decisions = (run.decisions or {}).get(row["request_id"], [])
        asked = life_of(decisions).asked
        operands: Mapping[str, float] = {} if asked is None else asked.operands
        prompt = int(operands.get("prompt_tokens", row["prompt_tokens"] or 0))
        ended = row["request_class"] in (RequestClass.OK, RequestClass.LATE)
        cap = int(operands.get("cap_tokens", row["output_tokens"] or usual))
        output = int(row["output_tokens"] or cap) if ended else cap
        guessed += not ended and "cap_tokens" not in operands
        if prompt < 1:
            continue
        cached = row["cached_tokens"]
        if cached is None and "uncached_tokens" in operands:
            cached = prompt - int(operands["uncached_tokens"])
        kind = int(operands.get("request_class", INTERACTIVE))
        found.append(
            Arrival(
                name=row["request_id"],
                at_s=max(0.0, row["sent_s"] + lag_s),
                prompt_tokens=prompt,
                output_tokens=max(1, min(output, cap)),
                cap_tokens=max(1, cap),
                cached_tokens=int(cached or 0),
                streaming=bool(row["streaming"]),
                limits=RequestLimits() if kind == BATCH else limits,
                request_class=kind,
                tenant=f"{operands['tenant']:.0f}" if operands.get("tenant") else "",
            )
        )
    notes = [f"{guessed} unanswered requests are given the usual answer of {usual} tokens."] if guessed else []
    return sorted(found, key=lambda arrival: arrival.at_s), notes


def _lag_s(run: ExplainedRun) -> float:
    """From the client's send to the engine, for one that came between two steps."""
    lags = []
    for row in run.rows:
        decisions = (run.decisions or {}).get(row["request_id"], [])
        if decisions and decisions[0].kind in ("admit", "reject") and row["sent_s"] is not None and (row["attempts"] or 1) == 1:
            lags.append(decisions[0].time_s - row["sent_s"])
    return max(0.0, float(np.quantile(lags, 0.05))) if lags else 0.0


def _way_back_s(run: ExplainedRun) -> float:
    """From a token in the engine to the client."""
    ways = []
    for row in run.rows:
        life = life_of((run.decisions or {}).get(row["request_id"], []))
        if life.first_token_s is not None and row["first_token_s"] is not None:
            ways.append(row["first_token_s"] - life.first_token_s)
    return max(0.0, float(np.median(ways))) if ways else 0.0


def _until_s(run: ExplainedRun) -> float:
    """When the run was cut off: nothing is known of what came later."""
    times = [row[name] for row in run.rows for name in ("ended_s", "last_token_s", "intended_s") if row[name] is not None]
    return float(max(times))


def _table(measured: pa.Table, played: Replayed, way_s: float) -> pa.Table:
    """The run's requests with what the replay made of them; rows that were not replayed are left out."""
    by_name = {outcome.arrival.name: outcome for outcome in played.outcomes}
    rows = []
    for row in rows_of(measured):
        outcome = by_name.get(row["request_id"])
        if outcome is not None:
            rows.append(_row(row, outcome, way_s))
    return pa.Table.from_pylist(rows, schema=REQUEST_COLUMNS)


def _row(row: Mapping[str, Any], outcome: Outcome, way_s: float) -> dict[str, Any]:
    times = [moment_s + way_s for moment_s in outcome.token_times_s]
    streaming = outcome.arrival.streaming
    end_s = None if outcome.end_s is None else outcome.end_s + way_s
    refused = bool(outcome.refused) or (outcome.finish is not None and outcome.finish == "shed")
    ended = RequestClass.SHED if refused else RequestClass.UNFINISHED if outcome.end_s is None else RequestClass.OK
    return {
        **row,
        "request_class": str(ended),
        "token_times_s": times if streaming else [],
        "first_token_s": times[0] if times and streaming else None,
        "last_token_s": times[-1] if times and streaming and end_s is not None else None,
        "ended_s": end_s,
        "output_tokens": len(times),
    }


def _figures(
    name: str,
    words: str,
    table: pa.Table,
    requirement: Requirement,
    waiting: tuple[FloatColumn, FloatColumn],
    until_s: float,
) -> Figures:
    """``waiting``: moments and lengths of the queue from then on."""
    rows = [row for row in rows_of(table) if row["phase"] != Phase.WARMUP]
    count = {each: sum(row["request_class"] == each for row in rows) for each in RequestClass}
    served = [row for row in rows if row["request_class"] in (RequestClass.OK, RequestClass.LATE)]
    first = [row["first_token_s"] - row["intended_s"] for row in served if row["first_token_s"] is not None]
    whole = [(row["last_token_s"] or row["ended_s"]) - row["intended_s"] for row in served if row["ended_s"] is not None]
    begin_s = min((row["intended_s"] for row in rows), default=0.0)
    queue = _over_time(*waiting, begin_s, until_s)
    return Figures(
        name=name,
        words=words,
        offered=len(rows),
        ok=count[RequestClass.OK],
        shed=count[RequestClass.SHED],
        late=count[RequestClass.LATE],
        unfinished=count[RequestClass.UNFINISHED],
        waiting_p50=queue[0],
        waiting_p99=queue[1],
        waiting_max=queue[2],
        ttft_p50_s=_percentile(first, 50),
        ttft_p99_s=_percentile(first, 99),
        e2e_p50_s=_percentile(whole, 50),
        e2e_p99_s=_percentile(whole, 99),
        goodput_fraction=count[RequestClass.OK] / len(rows) if rows else None,
    )


def _percentile(values: list[float], percent_of: float) -> float | None:
    return percentile(np.array(values, dtype=np.float64), percent_of)


def _over_time(moments: FloatColumn, lengths: FloatColumn, begin_s: float, end_s: float) -> tuple[float | None, ...]:
    """P50, P99 and maximum of a length that holds from each moment to the next, weighted by time."""
    spans = np.diff(np.append(np.clip(moments, begin_s, end_s), end_s))
    if not len(moments) or spans.sum() <= 0:
        return None, None, None
    order = np.argsort(lengths, kind="stable")
    share = np.cumsum(spans[order]) / spans.sum()
    p50, p99 = (float(lengths[order][min(len(order) - 1, int(np.searchsorted(share, q)))]) for q in (0.5, 0.99))
    return p50, p99, float(lengths[spans > 0].max())


def _waiting_measured(steps: Steps) -> tuple[FloatColumn, FloatColumn]:
    return steps.measured.end_s, steps.waiting


def _waiting_replayed(played: Replayed) -> tuple[FloatColumn, FloatColumn]:
    return np.array(played.moments_s, dtype=np.float64), np.array(played.waiting, dtype=np.float64)


def _trust(
    run: ExplainedRun, steps: Steps, machine: MeasuredMachine, measured: Figures, check: Figures, table: pa.Table
) -> Trust:
    classes = dict(zip(table["request_id"].to_pylist(), table["request_class"].to_pylist(), strict=True))
    shared = [row for row in run.rows if row["request_id"] in classes]
    same = sum(row["request_class"] == classes[row["request_id"]] for row in shared) / max(1, len(shared))
    difference = (check.goodput_fraction or 0.0) - (measured.goodput_fraction or 0.0)
    ratio = check.ttft_p50_s / measured.ttft_p50_s if check.ttft_p50_s and measured.ttft_p50_s else None
    error = float(np.median(np.abs(machine.slowness**-1 - 1)))
    words = f"{percent(same)} of requests end in the same class in the replay as measured; goodput differs by"
    words += f" {100 * difference:+.1f} points"
    if ratio is not None:
        words += f", TTFT P50 is {seconds(check.ttft_p50_s)} against {seconds(measured.ttft_p50_s)}"
    return Trust(same, difference, ratio, error, len(steps), words)


def _left_out(run: ExplainedRun, replayed: set[str]) -> list[str]:
    """What is in no row of the table, so that all rows are of the same requests."""
    never = sum(row["sent_s"] is None for row in run.rows)
    unknown = sum(row["sent_s"] is not None and row["request_id"] not in replayed for row in run.rows)
    found = [f"{never} requests that the client never sent are in no row."] if never else []
    return found + ([f"{unknown} requests of unknown length are in no row."] if unknown else [])


def _assumptions(steps: Steps, machine: MeasuredMachine, way_s: float) -> list[str]:
    found = [
        "Step times: the model fitted on this run's steps, times how much slower than it the machine was at that moment.",
        f"Between two steps the loop takes {seconds(machine.between_s)}; a token needs {seconds(way_s)} to the client.",
        "Clients send when they did in the run, once; answers have the length they had, refused ones the length asked for.",
    ]
    if steps.drafts.sum() > 0:
        found.append("The run guessed tokens ahead (speculation); the replays do not: each step gives a request one token.")
    return found
