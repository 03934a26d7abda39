"""``setpoint tune`` on the demo model, as a user runs it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest
from loop_world import IMPOSSIBLE, TINY, all_gone, requirement_file, running, setpoint, wait_for_words

from setpoint.engine.models import ResolvedModel
from setpoint.engine.request import EngineFailed
from setpoint.loop import own_server
from setpoint.loop.candidates import candidates_for
from setpoint.loop.measuring import plan_requests
from setpoint.loop.own_server import READY_WORDS
from setpoint.loop.schedule import Schedule
from setpoint.loop.tune import TuneOptions, _prompts, tune
from setpoint.measure.conversations import Conversations
from setpoint.policy.configuration import ServingConfig
from setpoint.record import EXIT_INCONCLUSIVE, EXIT_MET, EXIT_MISSED, Report, Verdict
from setpoint.report.files import read_run
from setpoint.requirement import load_requirement, parse_requirement

PAIR = ("--only", "continuous-8", "--only", "static-8")
READY = READY_WORDS.decode()


@pytest.mark.model
def test_a_seed_makes_the_plan(demo_model: ResolvedModel) -> None:
    requirement = parse_requirement(TINY, "tiny.yaml")
    schedule = Schedule(warmup_s=1, sustained_s=3)
    plans = [plan_requests(requirement, schedule, seed=seed, make_prompt=_prompts(demo_model)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0].requests != plans[2].requests


@pytest.mark.model
def test_conversations_are_planned_as_text_that_a_client_can_send(demo_model: ResolvedModel) -> None:
    talking = TINY.replace("  arrival:", "  sessions: {turns: 3}\n  arrival:").replace("prompt_tokens: 16", "prompt_tokens: 40")
    requirement = parse_requirement(talking, "talking.yaml")
    prompts = _prompts(demo_model, text=requirement.profile.has_conversations)
    plan = plan_requests(requirement, Schedule(warmup_s=1, sustained_s=3), seed=1, make_prompt=prompts)
    assert plan.prompt_tokens_exact
    assert any(request.follows is not None for request in plan.requests)
    Conversations(plan)


@pytest.mark.model
def test_two_candidates_become_a_report(tmp_path: Path) -> None:
    requirement_file(tmp_path)
    done = setpoint("tune", "requirement.yaml", *PAIR, "--duration", "6", "--seed", "3", "--json", cwd=tmp_path)
    assert done.returncode in (EXIT_MET, EXIT_INCONCLUSIVE), done.stderr
    assert "each measurement: the same " in done.stderr
    assert "2 of 2." in done.stderr
    folder = tmp_path / "runs" / "tiny"
    run = read_run(folder)
    assert Report.model_validate(json.loads(done.stdout)) == run.report
    assert {each.name for each in run.report.candidates} == {"continuous-8", "static-8"}
    assert run.report.exit_code() == done.returncode
    assert run.steps is not None
    for table in (run.requests, run.steps):
        assert set(pc.unique(table["candidate"]).to_pylist()) == {"continuous-8", "static-8"}
    sent = [pc.sum(pc.equal(run.requests["candidate"], each.name)).as_py() for each in run.report.candidates]
    assert sent[0] == sent[1] > 0
    assert run.run_info["seed"] == 3
    assert set(run.run_info["configurations"]) == {"continuous-8", "static-8"}
    assert run.report.machine["command"] == f"setpoint tune requirement.yaml {' '.join(PAIR)} --duration 6 --seed 3 --json"
    assert run.report.machine["versions"]["openvino"]
    html = (folder / "report.html").read_text()
    assert "setpoint tune requirement.yaml" in html
    assert "openvino" in html


@pytest.mark.model
def test_if_no_server_comes_up_the_first_failure_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_server, "READY_WITHIN_S", 0.01)
    file = requirement_file(tmp_path)
    options = TuneOptions(tmp_path / "run", Schedule(warmup_s=0, sustained_s=1), quiet=True, fixed=True)
    with pytest.raises(EngineFailed, match=r"not ready within 0.01 s \(log: .*first\.log\)"):
        tune(file, {"first": ServingConfig(), "second": ServingConfig()}, options)
    assert (tmp_path / "run" / "logs" / "second.log").exists()
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.model
def test_an_interrupt_keeps_what_is_complete_and_leaves_no_process(tmp_path: Path) -> None:
    requirement_file(tmp_path)
    with running("tune", "requirement.yaml", *PAIR, "--duration", "1", "--output", "run", cwd=tmp_path) as process:
        assert process.stderr is not None
        wait_for_words(process.stderr, "2 of 2.")
        wait_for_words(process.stderr, "warmup ")
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert all_gone(children)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "1 measurements are complete, and --resume goes on from them" in err
    assert err.splitlines()[-1] == "stopped"
    report = read_run(tmp_path / "run").report
    first, second = report.candidates
    assert first.measured is not None
    assert second.measured is None
    assert second.slo.verdict is Verdict.INCONCLUSIVE
    assert any(f"before these were measured: {second.name}" in reason for reason in report.validity.reasons)


@pytest.mark.model
def test_the_loop_forecasts_measures_learns_and_resumes(tmp_path: Path) -> None:
    file = requirement_file(tmp_path)
    space = {name: config for name, config in candidates_for(load_requirement(file)).items() if name != "immediate"}
    options = TuneOptions(tmp_path / "run", Schedule(warmup_s=0.5, sustained_s=5), quiet=True, budget_s=1.0)
    tuned = tune(file, space, options)
    assert tuned.report.tuning is not None
    assert tuned.report.tuning["configurations"] == len(space)
    (iteration,) = tuned.report.tuning["iterations"]
    assert iteration["learned"]["after"]["source"] == "measured"
    (candidate,) = tuned.report.candidates
    assert candidate.predicted is not None
    again = tune(file, space, replace(options, resume=True, budget_s=None)).report
    assert again.tuning is not None
    assert again.tuning["iterations"][0]["why"] == "Kept from an earlier go."
    assert again.tuning["comparison"] is not None
    assert again.tuning["ended"]["why"]
    assert "What it did, and why" in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of ``setpoint serve`` with a key."""
    arguments = ("serve", "smollm2-135m", "--port", "0", "--api-key", "k", "--mode", "continuous", "--max-running", "4")
    with running(*arguments, cwd=tmp_path) as process:
        assert process.stdout is not None
        yield wait_for_words(process.stdout, READY)[-1].removeprefix(READY).strip()


@pytest.mark.model
def test_a_served_model_is_measured_by_its_url(tmp_path: Path, served: str) -> None:
    load = ("--rate", "10/s", "--duration", "2", "--warmup", "0", "--prompt-tokens", "16", "--output-tokens", "4")
    done = setpoint("measure", served, *load, "--api-key", "k", "--output", "run", cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stderr
    run = read_run(tmp_path / "run")
    assert run.steps is not None
    assert run.steps.num_rows > 0
    assert set(run.requests["prompt_tokens"].to_pylist()) == {16}
    assert set(run.requests["output_tokens"].to_pylist()) == {4}
    measured = run.report.candidates[0].measured
    assert measured is not None
    assert measured.sustained.queue_wait_s is not None

    requirement_file(tmp_path, IMPOSSIBLE)
    arguments = ("--requirement", "requirement.yaml", "--duration", "3", "--warmup", "0", "--api-key", "k")
    missed = setpoint("measure", served, *arguments, cwd=tmp_path)
    assert missed.returncode == EXIT_MISSED, missed.stderr
    assert "does not meet every SLO" in missed.stdout
