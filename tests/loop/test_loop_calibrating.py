"""A run's steps, or steps made on purpose, become a calibration that the step timer finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from setpoint.hardware.accelerator import THIS_MACHINE, accelerator
from setpoint.hardware.calibrations import UNSEEN_VENDOR_ERROR, effects_calibration, errors_of
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import step_s, step_timer, ttft_error
from setpoint.loop.calibrating import _from_steps, calibrated
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


def test_a_table_of_another_vendors_accelerators_leaves_their_error_a_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: eight rows of an MI300X, none kept aside, and its plans were known to the errors that NVIDIA's rows had taught."""
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path / "data"))
    bundled = effects_calibration()
    heads = "id,backend,system,model_path,precision,tp_size,isl,osl,batch_size,silicon_ttft_ms,silicon_tpot_ms"
    model = "meta-llama/Llama-3.1-8B-Instruct"
    rows = [f"m{n},vllm,mi300x,{model},bf16,1,1024,512,{n + 1},{80 + 20 * n},{8 + n}" for n in range(8)]
    (tmp_path / "mine.csv").write_text("\n".join([heads, *rows]) + "\n")
    calibrated(tmp_path / "mine.csv", model=None, hardware=THIS_MACHINE, cuda=False)
    calibration = effects_calibration()
    assert bundled is not None
    assert calibration is not None
    assert calibration.fitted_on == {"vllm mi300x"}
    assert calibration.learned_on == bundled.fitted_on
    facts = model_facts("llama-3.1-8b")
    there, elsewhere = (Deployment(facts, accelerator(each), 1, "vllm", "bf16") for each in ("mi300x", "h100-sxm"))
    timer = step_timer(there)
    assert (timer.source, timer.guess) == ("measured", True)
    assert timer.relative_error >= UNSEEN_VENDOR_ERROR
    assert ttft_error(there, timer) >= UNSEEN_VENDOR_ERROR
    assert step_timer(elsewhere).guess, "what is left of it was fitted to no row of its vendor"
    assert errors_of(calibration)["learned_on"] == sorted(bundled.fitted_on), "nor do errors become AMD's by another table"


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
