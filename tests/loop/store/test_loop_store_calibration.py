"""What a run teaches of this machine is found again, with where it comes from, and not used where it does not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stored_runs import CONFIG, STEP_S, TOKEN_S, report_of, with_steps

from setpoint.hardware.accelerator import THIS_MACHINE, accelerator
from setpoint.hardware.calibrations import own_folder
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.provenance import fingerprint_of, here
from setpoint.hardware.step_time import calibration_words, step_s, step_timer
from setpoint.hardware.this_machine import remembered_file
from setpoint.loop.calibrating import calibrated
from setpoint.loop.store import calibration as under_test
from setpoint.loop.store.calibration import past_calibration, remember, remember_quietly
from setpoint.loop.tuning.prior import PAST_ERROR, prior_machine
from setpoint.policy.decisions import StepWork
from setpoint.report.files import RunFolderError
from setpoint.report.machine import machine_facts
from setpoint.requirement import example_text, parse_requirement

MODEL = "smollm2-135m"
MACHINE_FILE = f"""name: this-machine
kind: cpu
machine: {here()}
dense_tflops: {{bf16: 0.2, int8: 0.4}}
memory_gb: 16
memory_tb_per_s: 0.02
link_gb_per_s: 0
power_w: 0
"""
WORK = StepWork(16, 16, 1600, 1600)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty data folder in which this machine was measured already."""
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path / "data"))
    remembered_file().parent.mkdir(parents=True)
    remembered_file().write_text(MACHINE_FILE, encoding="utf-8")


def deployment() -> Deployment:
    facts = model_facts(MODEL)
    return Deployment(facts, accelerator(THIS_MACHINE), 1, "setpoint", facts.native_precision)


def changed(**fields: Any) -> None:
    """Put ``fields`` into the provenance of the one calibration."""
    (file,) = own_folder().glob("*.json")
    document = json.loads(file.read_text(encoding="utf-8"))
    document["provenance"] |= fields
    file.write_text(json.dumps(document), encoding="utf-8")


def test_the_fingerprint_of_a_report_is_that_of_its_machine() -> None:
    assert fingerprint_of(machine_facts()) == here()


def test_what_a_run_taught_is_used_afterwards_and_says_where_it_comes_from(tmp_path: Path) -> None:
    assert past_calibration(MODEL) is None
    done = remember(with_steps(tmp_path / "run", 400))
    assert done.name is not None
    assert "400 steps" in done.words
    past = past_calibration(MODEL)
    assert past is not None
    assert past.provenance.steps == 400
    assert past.provenance.folder == str((tmp_path / "run").resolve())
    assert step_s(past.timer(), WORK) == pytest.approx(STEP_S + 16 * TOKEN_S, rel=0.05)
    assert step_s(step_timer(deployment()), WORK) == step_s(past.timer(), WORK)
    (sentence,) = calibration_words(deployment())
    assert sentence == f"Step times were learned from {past.provenance.words()}."
    machine = past.machine()
    assert machine is not None
    assert step_s(machine.timer, WORK) == pytest.approx(STEP_S + 16 * TOKEN_S, rel=0.05)
    assert past.machine("of nobody") is None


def test_tune_begins_with_what_a_past_run_taught(tmp_path: Path) -> None:
    requirement = parse_requirement(example_text("coding-assistant"), "coding-assistant.yaml")
    said: list[str] = []
    assert prior_machine(requirement, None, said.append).source == "physics"
    remember(with_steps(tmp_path / "run", 400))
    known = prior_machine(requirement, None, said.append)
    past = past_calibration(MODEL)
    assert past is not None
    assert (known.words, known.source, known.error) == (past.provenance.words(), "measured", PAST_ERROR)
    assert step_s(known.timer, WORK) == pytest.approx(STEP_S + 16 * TOKEN_S, rel=0.05)
    assert said == []


def test_what_was_learned_outlives_the_folder_it_was_learned_in(tmp_path: Path) -> None:
    remember(with_steps(tmp_path / "run", 400))
    with_steps(tmp_path / "run", 60, seed=1, slower=3.0)
    past = past_calibration(MODEL)
    assert past is not None
    machine = past.machine()
    assert machine is not None
    assert step_s(machine.timer, WORK) == pytest.approx(STEP_S + 16 * TOKEN_S, rel=0.05)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("machine", "another one", "it was measured on another machine (another one; this one is "),
        ("engine_version", "setpoint 0.0.1, openvino 1", "it was measured with setpoint 0.0.1, openvino 1; installed is "),
    ],
)
def test_a_stale_calibration_is_not_used_and_it_is_said(tmp_path: Path, field: str, value: str, reason: str) -> None:
    before_s = step_s(step_timer(deployment()), WORK)
    remember(with_steps(tmp_path / "run", 400, slower=5.0))
    assert step_s(step_timer(deployment()), WORK) != before_s
    changed(**{field: value})
    said: list[str] = []
    assert past_calibration(MODEL, say=said.append) is None
    assert step_s(step_timer(deployment()), WORK) == before_s
    for (sentence,) in (said, calibration_words(deployment())):
        assert reason in sentence
        assert "is not used" in sentence


def test_a_calibration_of_other_weights_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(with_steps(tmp_path / "run", 400))
    monkeypatch.setattr(under_test, "model_hash", lambda _: "something else")
    changed(model_hash="what it was")
    said: list[str] = []
    assert past_calibration(MODEL, say=said.append) is None
    assert f"the weights of {MODEL} are others now" in said[0]


def test_few_steps_do_not_take_the_place_of_many(tmp_path: Path) -> None:
    remember(with_steps(tmp_path / "long", 600))
    kept = remember(with_steps(tmp_path / "short", 250, seed=1, slower=2.0))
    assert kept.name is None
    assert kept.words.startswith("250 steps are few beside those of run ")
    assert remember(with_steps(tmp_path / "as-long", 500, seed=2, slower=2.0)).name is not None
    past = past_calibration(MODEL)
    assert past is not None
    assert past.provenance.steps == 500


def test_a_machine_of_the_same_name_with_other_instructions_teaches_nothing(tmp_path: Path) -> None:
    other = report_of(machine={"cpu_features": [] if machine_facts()["cpu_features"] else ["avx2"]})
    away = remember(with_steps(tmp_path / "run", 300, report=other))
    assert away.name is None
    assert "it was measured on another machine" in away.words
    assert past_calibration(MODEL) is None


def test_runs_that_teach_nothing_say_why(tmp_path: Path) -> None:
    few = remember(with_steps(tmp_path / "few", 30))
    assert (few.name, few.words) == (None, "it has 30 steps; at least 200 are needed")
    abroad = report_of(machine={"cpu": "Z80"})
    away = remember(with_steps(tmp_path / "away", 300, report=abroad))
    assert away.name is None
    assert "it was measured on another machine" in away.words
    with pytest.raises(HardwareError, match=r"was measured on another machine .*; name that one with --hardware"):
        calibrated(tmp_path / "away", model=None, hardware=THIS_MACHINE, cuda=False)
    two = report_of(config=CONFIG | {"threads": 2})
    words = "setpoint-16 computed on 2 threads; step times are kept for all cores only"
    held = remember(with_steps(tmp_path / "threads", 300, report=two))
    assert (held.name, held.words) == (None, words)
    with pytest.raises(HardwareError, match=f"threads: {words}; measure once without threads"):
        calibrated(tmp_path / "threads", model=None, hardware=THIS_MACHINE, cuda=False)
    with pytest.raises(RunFolderError):
        remember(tmp_path / "none")
    said: list[str] = []
    remember_quietly(tmp_path / "none", said.append)
    remember_quietly(tmp_path / "few", said.append)
    assert len(said) == 1
    assert said[0].startswith("nothing was learned from this run for the next: ")
