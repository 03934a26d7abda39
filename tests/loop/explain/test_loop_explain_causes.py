"""Where the time of one request went, on lives made by hand: each part in its place, and no part before its time."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from setpoint.loop.explain.life import MOST_GAPS, cause_of, gap_causes, gaps_over, life_of, time_parts, token_parts
from setpoint.loop.explain.run import Decision, Steps, token_times_s
from setpoint.simulate.machine import MeasuredSteps


def decided(kind: str, at_s: float, **operands: float) -> Decision:
    return Decision(0, at_s, 0, kind, "r", None, "", operands)


def row(tokens_s: list[float] | None = None, *, sent_s: float = 0.0, intended_s: float = 0.0) -> dict[str, Any]:
    times: list[Any] = tokens_s or [None]
    return {
        "intended_s": intended_s,
        "sent_s": sent_s,
        "first_token_s": times[0],
        "last_token_s": times[-1],
        "ended_s": times[-1],
        "queue_wait_s": None,
        "token_times_s": pa.scalar(tokens_s, pa.list_(pa.float64())),
    }


def one_step(took_s: float, predicted_s: float, prefill_tokens: int = 0) -> Steps:
    """A step that began at 1 s."""

    def single(value: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([value], dtype=np.float64)

    measured = MeasuredSteps(
        start_s=single(1.0),
        end_s=single(1.0 + took_s),
        prefill_tokens=single(prefill_tokens),
        decode_tokens=single(1),
        sequences=single(1),
        kv_tokens_read=single(10),
        attention_products=single(10),
        running=single(1),
    )
    return Steps(
        numbers=single(0),
        measured=measured,
        predicted_s=single(predicted_s),
        waiting=single(0),
        kv_used_blocks=single(1),
        kv_blocks=8,
        budget_tokens=single(64),
        codes=["decode"],
        reasons=["decode"],
        preempted=single(0),
        drafts=single(0),
    )


ANSWERED = [decided("admit", 0.0), decided("join", 0.0), decided("end", 1.5, first_token_after_s=1.0)]


def test_a_request_that_was_told_to_come_back_was_not_late_on_the_way() -> None:
    """Seen: refused at once, back after 3 s and served, it was "late on the way: between the engine and the client"."""
    life = life_of(
        [decided("reject", 0.01), decided("admit", 3.0), decided("join", 3.1), decided("end", 3.6, first_token_after_s=0.2)]
    )
    parts = time_parts(row([3.21, 3.61]), life, None, None, to_end=False)
    assert parts["sent_back"] == pytest.approx(2.99)
    assert parts["until_taken"] == pytest.approx(0.01)
    assert parts["delivery"] == pytest.approx(0.01)
    assert sum(parts.values()) == pytest.approx(3.21)
    assert cause_of(parts, 2.71) == "sent_back"


def test_waiting_until_the_engine_took_it_is_no_delivery() -> None:
    life = life_of([decided("admit", 0.4), decided("join", 0.4), decided("end", 0.9, first_token_after_s=0.1)])
    parts = time_parts(row([0.51, 0.91], sent_s=0.1, intended_s=0.1), life, None, None, to_end=True)
    assert parts["until_taken"] == pytest.approx(0.3)
    assert parts["delivery"] == pytest.approx(0.01)
    assert "sent_back" not in {name for name, part_s in parts.items() if part_s}


def test_of_a_tpot_only_the_time_between_the_tokens_counts() -> None:
    """Seen: an answer whose tokens came slowly was late because it had waited for a place."""
    life = life_of(
        [
            decided("admit", 5.0),
            decided("join", 9.0),
            decided("preempt", 10.2),
            decided("join", 10.5),
            decided("end", 11.0, first_token_after_s=5.0),
        ]
    )
    parts = token_parts(row([10.0, 11.02], sent_s=4.0), life, None, None)
    assert set(parts) == {"preemption", "slow_steps", "wide_steps", "crowded_steps", "delivery"}
    assert parts["preemption"] == pytest.approx(0.3)
    assert sum(parts.values()) == pytest.approx(1.02)
    assert token_parts(row([10.0, 11.0], sent_s=4.0), None, None, None) == {"in_server": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("predicted_s", "prefill_tokens", "expected"),
    [
        (0.05, 0, "slow_steps"),
        (0.05, 32, "slow_steps"),
        (0.1, 0, "crowded_steps"),
        (0.1, 32, "wide_steps"),
        (0.065, 32, "wide_steps"),
        (nan, 32, "wide_steps"),
    ],
)
def test_a_step_is_slow_only_if_its_prediction_had_kept_the_limit(
    predicted_s: float, prefill_tokens: int, expected: str
) -> None:
    life, steps = life_of(ANSWERED), one_step(0.1, predicted_s, prefill_tokens)
    assert gap_causes(row([1.0, 1.1]), life, steps, 0.06) == {expected: 1}


def test_a_step_that_took_as_predicted_just_under_the_limit_is_not_slow() -> None:
    """Seen: a step predicted under the limit was slow even where it took no longer than that."""
    assert gap_causes(row([1.0, 1.07]), life_of(ANSWERED), one_step(0.055, 0.055), 0.06) == {"crowded_steps": 1}


def test_all_gaps_over_the_limit_are_counted() -> None:
    times = [1.0 + 0.1 * number for number in range(101)]
    assert gaps_over(row(times), 0.06) == 100
    assert gap_causes(row(times), life_of(ANSWERED), one_step(0.01, 0.01), 0.06) == {"delivery": MOST_GAPS}


def test_times_of_tokens_that_are_not_told_are_none() -> None:
    assert token_times_s(row([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert token_times_s(row()).tolist() == []
