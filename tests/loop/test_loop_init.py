"""``setpoint init``: whatever it writes loads, at a terminal and without one."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_world import command, setpoint

from setpoint.loop.describe import FlagError
from setpoint.loop.init import InitAnswers, init_text
from setpoint.requirement import LatencyMetric, example_names, load_requirement, parse_requirement


@pytest.mark.parametrize("name", example_names())
def test_an_example_is_copied_as_it_is(name: str) -> None:
    assert parse_requirement(init_text(InitAnswers(), example=name, ask=False), name).name


def test_without_answers_there_are_usual_limits() -> None:
    requirement = parse_requirement(init_text(InitAnswers(), example=None, ask=False), "new")
    assert requirement.slo.limit_s(LatencyMetric.TTFT) == 0.5
    assert requirement.slo.limit_s(LatencyMetric.ITL) == 0.08


def test_a_throughput_objective_needs_no_limits() -> None:
    requirement = parse_requirement(init_text(InitAnswers(objective="max_throughput"), example=None, ask=False), "new")
    assert not requirement.slo.declared()


@given(
    st.builds(
        InitAnswers,
        name=st.none() | st.text(max_size=8),
        rate=st.sampled_from([None, "3/s", "90/min", "0/s", "fast"]),
        prompt_tokens=st.none() | st.integers(1, 5),
        output_tokens=st.none() | st.integers(1, 3),
        streaming=st.none() | st.booleans(),
        ttft_p95=st.sampled_from([None, "300ms", "0s"]),
        e2e_p95=st.sampled_from([None, "2s"]),
        burst_rate=st.sampled_from([None, "3x", "0.1/s"]),
        objective=st.sampled_from([None, "min_cost", "max_goodput", "fame"]),
        usd_per_hour=st.sampled_from([None, 0.5, -1.0, float("nan")]),
    )
)
def test_answers_become_a_requirement_or_name_the_option_at_fault(answers: InitAnswers) -> None:
    refusal, text = "", None
    try:
        text = init_text(answers, example=None, ask=False)
    except FlagError as error:
        refusal = str(error)
    assert refusal.startswith("--") if text is None else parse_requirement(text, "new")


def test_the_command_writes_a_file_that_loads(tmp_path: Path) -> None:
    done = setpoint("init", "new.yaml", "--rate", "3/s", "--ttft-p95", "300ms", "--burst-rate", "3x", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "next: setpoint tune new.yaml" in done.stdout
    requirement = load_requirement(tmp_path / "new.yaml")
    assert requirement.profile.arrival.rate_rps == 3.0
    assert requirement.profile.burst is not None


@pytest.mark.parametrize(
    ("answers", "rate_rps", "streaming"),
    [([""] * 10, 2.0, True), (["", "", "n", "", "many", "40", "fast", "5/s", "1/s", "3x", "1s"], 5.0, False)],
    ids=["all defaults", "wrong answers are asked for again"],
)
def test_questions_at_a_terminal(tmp_path: Path, answers: list[str], rate_rps: float, streaming: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command("init", "new.yaml"), cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        out, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, err
    assert "Requests per second" in err
    assert out.strip() == "wrote new.yaml; next: setpoint tune new.yaml"
    profile = load_requirement(tmp_path / "new.yaml").profile
    assert (profile.arrival.rate_rps, profile.streaming) == (rate_rps, streaming)
