"""The witness excuses what the machine does to a process, and nothing that a process does to itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from truth_witness import Witness
from truth_world import Known

BUSY_S = 0.2


def busy_until(instant_s: float) -> None:
    while monotonic() < instant_s:
        pass


def test_time_that_a_process_spends_itself_is_no_hold_up(tmp_path: Path) -> None:
    with Witness([os.getpid()], tmp_path) as witness:
        begin_s = monotonic()
        spent_s = 0.0
        while spent_s < BUSY_S:  # Of this thread, whoever else has the core in between.
            busy_until(monotonic() + 0.01)
            spent_s += 0.01
        end_s = monotonic()
    held_s = float(witness.held_up_s(np.array([begin_s]), np.array([end_s]))[0])
    assert 0.0 <= held_s <= witness.total_s
    outside_s = witness.held_up_s(np.array([begin_s - 9.0, end_s + 9.0]), np.array([begin_s - 8.0, end_s + 10.0]))
    assert outside_s.tolist() == [0.0, 0.0]


def test_figure_is_held_to_the_truth_and_excused_only_by_what_was_witnessed() -> None:
    true_s = np.linspace(0.010, 0.020, 100)
    quiet, busy = Known(true_s, np.zeros(100)), Known(true_s, np.where(true_s > 0.0195, 0.008, 0.0))
    quiet.assert_near(0.0195, 99, "gap")
    for wrong_s in (0.0225, 0.0170):
        with pytest.raises(AssertionError, match="gap P99: reported"):
            quiet.assert_near(wrong_s, 99, "gap")
    busy.assert_near(0.0225, 99, "gap")
    with pytest.raises(AssertionError, match="gap P99: reported"):
        busy.assert_near(0.0325, 99, "gap")
    with pytest.raises(AssertionError, match="gap P50: reported"):
        busy.assert_near(0.0225, 50, "gap")


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not count waits for a core")
def test_waiting_for_a_core_is_a_hold_up(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); print('on', flush=True)\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for rival in rivals:
            assert rival.stdout is not None
            assert rival.stdout.readline() == b"on\n"
        with Witness([rival.pid for rival in rivals], tmp_path) as witness:
            begin_s = monotonic()
            busy_until(begin_s + BUSY_S)
            end_s = monotonic()
    finally:
        for rival in rivals:
            rival.send_signal(signal.SIGKILL)
            rival.wait()
    held_s = float(witness.held_up_s(np.array([begin_s]), np.array([end_s]))[0])
    assert held_s > BUSY_S / 4
