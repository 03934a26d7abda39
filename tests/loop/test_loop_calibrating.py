"""A run's steps, or steps made on purpose, become a calibration that the step timer finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from setpoint.hardware.accelerator import THIS_MACHINE, accelerator
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import step_s, step_timer
from setpoint.loop.calibrating import _from_steps
from setpoint.loop.machine_steps import shapes
from setpoint.policy.decisions import StepWork


def test_observed_steps_are_predicted_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path))
    random = np.random.default_rng(3)
    works = [StepWork(count, count, count * 200, count * 200) for count in random.integers(1, 65, 200).tolist()]
    seconds = [0.01 + 0.0005 * work.sequences for work in works]
    found = _from_steps(works, seconds, "smollm2-135m", THIS_MACHINE, "made up")
    assert "written to" in found.words
    facts = model_facts("smollm2-135m")
    timer = step_timer(Deployment(facts, accelerator(THIS_MACHINE), 1, "setpoint", facts.native_precision))
    assert timer.source == "measured"
    assert step_s(timer, StepWork(20, 20, 4000, 4000)) == pytest.approx(0.02, rel=0.03)


def test_shapes_fit_the_cache_and_hold_both_kinds() -> None:
    wanted = shapes(8192)
    assert wanted
    assert all(decodes * context + prompt <= 8192 for decodes, prompt, context in wanted)
    assert any(prompt and decodes for decodes, prompt, _ in wanted)
    assert len(shapes(1 << 16)) > len(wanted)


@pytest.mark.model
def test_steps_of_the_demo_model_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from setpoint.loop import machine_steps

    monkeypatch.setattr(machine_steps, "TURNS", 2)
    monkeypatch.setattr(machine_steps, "DECODES", (0, 1, 4))
    monkeypatch.setattr(machine_steps, "PROMPTS", (0, 16))
    monkeypatch.setattr(machine_steps, "CONTEXTS", (32, 64))
    monkeypatch.setattr(machine_steps, "CACHE_TOKENS", 4096)
    works, seconds = machine_steps.machine_steps("smollm2-135m")
    assert len(works) == len(seconds) > 8
    assert all(took > 0 for took in seconds)
