"""No server outlives the process that started it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from loop_world import all_gone, requirement_file, running, wait_for_words

from setpoint.loop.lifeline import EXIT_ORPHANED, LIFELINE_OPTION

SLEEPER = """
import time
from setpoint.loop.lifeline import end_with_stdin
end_with_stdin()
print('up', flush=True)
time.sleep(60)
"""


def test_a_process_ends_when_its_standard_input_closes() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"up\n"
    process.stdin.write(b"words are not an end\n")
    process.stdin.flush()
    process.stdin.close()
    assert process.wait(20) == EXIT_ORPHANED
    process.stdout.close()


@pytest.mark.model
def test_a_killed_tune_leaves_no_server(tmp_path: Path) -> None:
    requirement_file(tmp_path)
    with running("tune", "requirement.yaml", "--only", "static-8", cwd=tmp_path) as process:
        assert process.stderr is not None
        wait_for_words(process.stderr, "[1] static-8")
        parent = psutil.Process(process.pid)
        deadline_s = time.monotonic() + 20
        while not (children := [child for child in parent.children() if LIFELINE_OPTION in child.cmdline()]):
            assert time.monotonic() < deadline_s
        process.kill()
        assert all_gone(children)
