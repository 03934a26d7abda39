"""What is learned from how admitted requests ended."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_views import asking

from setpoint.policy.decisions import StepResult, StepWork
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.outcomes import Outcomes
from setpoint.policy.tenants import TenantCounters
from setpoint.policy.views import INTERACTIVE

CAP = 4096


def expected_after(stopped: bool) -> float:
    """The length foreseen after fifty answers of ten tokens each, each ended in a step that gave it no token."""
    lengths = OutputLengths()
    outcomes = Outcomes(lengths, TenantCounters())
    for number in range(50):
        outcomes.admitted(replace(asking(number), max_output_tokens=CAP), first_s=1.0, end_s=2.0)
        for token in range(10):
            outcomes.observe(StepResult(float(token), token + 0.5, StepWork(1, 1, 1, 1), {number: 1}))
        ends = (number,) if stopped else ()
        outcomes.observe(StepResult(10.0, 10.5, StepWork(1, 1, 1, 1), {}, finished=(number,), stopped=ends))
    return lengths.expected(INTERACTIVE, CAP)


def test_an_answer_that_ended_by_a_stop_string_tells_how_long_answers_are_and_a_cancelled_one_does_not() -> None:
    assert expected_after(stopped=True) == pytest.approx(10, abs=3)
    assert expected_after(stopped=False) > 100
