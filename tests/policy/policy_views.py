"""Views made by hand, and by hypothesis, for policies to plan from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepResult, StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import BATCH, INTERACTIVE, Columns, KvView, RequestView, StepView, SystemView

KV = KvView(blocks=1000, free_blocks=800, block_tokens=32)
NOW_S = 100.0


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a view; ``prefill`` 0 while it decodes."""

    id: int
    arrived_s: float = NOW_S
    deadline_s: float = inf
    context: int = 0
    prefill: int = 0
    emitted: int = 0
    owed: int = 1
    request_class: int = INTERACTIVE
    cap: int = 100
    gap_s: float = inf
    tenant: int = 0


def columns(rows: list[Row]) -> Columns:
    def whole(name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([getattr(row, name) for row in rows], dtype=np.int64)

    return Columns(
        ids=whole("id"),
        arrived_s=np.array([row.arrived_s for row in rows], dtype=np.float64),
        deadline_s=np.array([row.deadline_s for row in rows], dtype=np.float64),
        context_tokens=whole("context"),
        prefill_tokens=whole("prefill"),
        emitted_tokens=whole("emitted"),
        tokens_to_deadline=whole("owed"),
        request_class=whole("request_class"),
        cap_tokens=whole("cap"),
        gap_s=np.array([row.gap_s for row in rows], dtype=np.float64),
        tenant=whole("tenant"),
    )


def view(waiting: list[Row] | None = None, running: list[Row] | None = None, *, now_s: float = NOW_S) -> StepView:
    return StepView(now_s=now_s, waiting=columns(waiting or []), running=columns(running or []), kv=KV)


def later(step: StepView, steps: int, seconds: float) -> StepView:
    """The same requests after ``steps`` steps of decoding in which nobody came or went: only time, context, deadlines move."""
    decoding = (step.running.prefill_tokens == 0).astype(np.int64)
    running = replace(
        step.running,
        context_tokens=step.running.context_tokens + steps * decoding,
        emitted_tokens=step.running.emitted_tokens + steps * decoding,
        deadline_s=step.running.deadline_s + seconds * decoding,
    )
    return replace(step, now_s=step.now_s + seconds, running=running)


def system(*, waiting: int = 0, running: int = 0, uncached: int = 0, context: int = 0) -> SystemView:
    return SystemView(NOW_S, waiting, uncached, running, 0, context, KV)


def asking(request_id: int = 1) -> RequestView:
    return RequestView(request_id, NOW_S, NOW_S, 100, 100, 50)


def line(*coefficients: float) -> StepTimeModel:
    """A step-time model with just these coefficients (the rest 0)."""
    return StepTimeModel((*coefficients, *[0.0] * (5 - len(coefficients))))


def result(work: StepWork, seconds: float) -> StepResult:
    return StepResult(NOW_S, NOW_S + seconds, work, {})


def config(mode: BatchingMode, **fields: float) -> ServingConfig:
    return ServingConfig.model_validate({"mode": mode, **fields})


@st.composite
def views(draw: st.DrawFn, *, prompts: bool = True) -> StepView:
    """Any view; without ``prompts`` only decoding requests."""
    ids = iter(range(1000))
    moments = st.one_of(st.just(inf), st.floats(NOW_S - 1, NOW_S + 5, allow_nan=False))

    def row(*, waiting: bool, arrived_s: float) -> Row:
        preempted = draw(st.integers(0, 4)) == 0
        decoding = not waiting and (not prompts or draw(st.booleans()))
        return Row(
            next(ids),
            arrived_s,
            draw(moments),
            context=0 if waiting else draw(st.integers(1, 2000)),
            prefill=0 if decoding else draw(st.integers(1, 2000)),
            emitted=draw(st.integers(1, 50)) if preempted or decoding else 0,
            owed=draw(st.sampled_from([1, 1, 7])),
            request_class=draw(st.sampled_from([INTERACTIVE, BATCH])),
        )

    arrivals = sorted(draw(st.lists(st.floats(NOW_S - 10, NOW_S), max_size=12)))
    split = draw(st.integers(0, len(arrivals))) if prompts else len(arrivals)
    running = [row(waiting=False, arrived_s=at_s) for at_s in arrivals[:split]]
    waiting = [row(waiting=True, arrived_s=at_s) for at_s in arrivals[split:]]
    return view(waiting, running)
