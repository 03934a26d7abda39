"""The worker process by itself: frames, and an end whatever becomes of its parent."""

from __future__ import annotations

import pickle
import subprocess
import sys
from time import monotonic
from types import MappingProxyType

import pytest

from setpoint.measure.frames import LENGTH, Job, Ready, Refused, Start, frame, length_of, portable, value_of
from setpoint.measure.mock import MockOptions, MockProcess
from setpoint.measure.options import LoadOptions
from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.record import Phase
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

COMMAND = [sys.executable, "-P", "-m", "setpoint.measure.worker_process"]
REQUESTS = [PlannedRequest(n, n * 0.01, Phase.SUSTAINED, "a b", 2, 3) for n in range(5)]
PLAN = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 0.1)], REQUESTS, True)


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def tell(process: subprocess.Popen[bytes], value: object) -> None:
    assert process.stdin is not None
    process.stdin.write(frame(value))
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> object:
    assert process.stdout is not None
    return value_of(process.stdout.read(length_of(process.stdout.read(LENGTH.size))))


def test_frames_carry_what_a_run_needs() -> None:
    target = portable(Target("http://h:1", "m", headers=MappingProxyType({"a": "b"})))
    options = portable(LoadOptions(extra_body=MappingProxyType({"top_p": 0.5}), max_in_flight=3))
    packed = frame(Job(target, PLAN, options))
    assert length_of(packed[: LENGTH.size]) == len(packed) - LENGTH.size
    job = value_of(packed[LENGTH.size :])
    assert job == Job(target, PLAN, options)
    assert job.options.extra_body == {"top_p": 0.5}
    assert job.target.headers == {"a": "b"}
    with pytest.raises(TypeError):
        pickle.dumps(LoadOptions())


def test_what_is_no_frame_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match="bytes"):
        length_of(b"\xff" * LENGTH.size)


def test_worker_does_its_job_and_ends() -> None:
    with MockProcess(MockOptions(ttft_s=0.01, itl_s=0.002)) as mock, start() as process:
        options = portable(LoadOptions(run_id="p", watch_server=False, drain_s=5.0))
        tell(process, Job(portable(Target(mock.url, "mock-model")), PLAN, options))
        ready = hear(process)
        assert isinstance(ready, Ready)
        assert 0 <= ready.setup_s < 10
        tell(process, Start(monotonic() - 2.0))  # Past: everything is late, nothing is left out.
        answers = [hear(process)]
        while not isinstance(answers[-1], LoadResult):
            answers.append(hear(process))
        result = answers[-1]
        assert [row.request_id for row in result.outcomes] == [f"p-{n}" for n in range(5)]
        assert all(row.completed for row in result.outcomes)
        assert result.client.send_lag_p50_s is not None
        assert result.client.send_lag_p50_s > 1.0
        assert process.wait(10) == 0


def test_worker_says_why_a_plan_cannot_be_sent() -> None:
    backwards = LoadPlan(0, PLAN.phases, REQUESTS[::-1], True)
    with start() as process:
        tell(process, Job(portable(Target("http://127.0.0.1:9", "m")), backwards, portable(LoadOptions(watch_server=False))))
        assert isinstance(hear(process), Ready)
        tell(process, Start(0.0))
        refused = hear(process)
        assert isinstance(refused, Refused)
        assert "before" in refused.reason
        assert process.wait(10) == 0


@pytest.mark.parametrize("told", [False, True])
def test_worker_ends_when_its_parent_does(told: bool) -> None:
    """Standard input closes when a process ends, however it ends."""
    with start() as process:
        assert process.stdin is not None
        if told:
            far = PlannedRequest(0, 3600.0, Phase.SUSTAINED, "a", 1, 1)
            plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 7200.0)], [far], True)
            tell(process, Job(portable(Target("http://127.0.0.1:9", "m")), plan, portable(LoadOptions(watch_server=False))))
            assert isinstance(hear(process), Ready)
            tell(process, Start(0.0))
        process.stdin.close()
        assert process.wait(20) == 1
