"""Coefficients from observed steps: what made them is found again, through noise, outliers and too few steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.hardware.errors import HardwareError
from setpoint.hardware.step_fit import LEAST_STEPS, StepFit, fit_steps, step_fit_from
from setpoint.policy.decisions import StepWork

TRUTH = StepFit(4e-3, 2e-3, (4e-4, 3e-4, 3e-4, 3e-4, 3e-4), 1e-4, 3e-7, 2e-8)


def steps(seed: int, count: int = 400) -> list[StepWork]:
    random = np.random.default_rng(seed)
    works = []
    for _ in range(count):
        sequences, context = int(random.integers(1, 65)), int(random.integers(16, 1500))
        prompt = int(random.integers(8, 400)) if random.random() < 0.3 else 0
        works.append(StepWork(sequences + prompt, sequences, sequences * context, sequences * context + prompt**2))
    return works


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_predictions_are_those_of_what_made_the_steps(seed: int) -> None:
    random = np.random.default_rng(seed)
    works = steps(seed)
    seconds = [TRUTH.seconds(work) * float(np.exp(random.normal(0, 0.03))) for work in works]
    for outlier in random.integers(0, len(works), 20):
        seconds[int(outlier)] *= 5
    fit, error = fit_steps(works, seconds)
    off = [fit.seconds(work) / TRUTH.seconds(work) - 1 for work in steps(seed + 1)]
    assert float(np.mean(np.abs(off))) < 0.04
    assert 0.01 < error < 0.1


def test_it_is_affine_in_the_context() -> None:
    base, kv, product = TRUTH.affine(40, 8)
    assert TRUTH.seconds(StepWork(40, 8, 5000, 9000)) == pytest.approx(base + 5000 * kv + 9000 * product)
    assert base == pytest.approx(4e-3 + 2e-3 + 8 * 4e-4 + 32 * 3e-4 + 8 * 1e-4)
    assert TRUTH.affine(8, 8)[0] == pytest.approx(4e-3 + 8 * 4e-4 + 8 * 1e-4)


def test_it_survives_its_file() -> None:
    assert step_fit_from(TRUTH.as_dict()) == TRUTH


@pytest.mark.parametrize("change", [{"step_s": -1.0}, {"token_s": [1.0]}, {"kv_token_s": "many"}])
def test_a_wrong_file_is_one_sentence(change: dict[str, object]) -> None:
    with pytest.raises(HardwareError, match="a calibration of steps"):
        step_fit_from({**TRUTH.as_dict(), **change})


def test_too_few_steps_are_refused() -> None:
    works = steps(1, LEAST_STEPS - 1)
    with pytest.raises(HardwareError, match=f"at least {LEAST_STEPS}"):
        fit_steps(works, [1.0] * len(works))
