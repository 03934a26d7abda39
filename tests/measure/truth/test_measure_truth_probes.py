"""One real probe of each kind that self-calibration makes, at a load far below any limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from truth_witness import Witness

from setpoint.measure.calibration import LONG_TOKENS, MEASURED_S, probe_rate
from setpoint.measure.mock import MockOptions, MockProcess

WITHIN_SHARE, WITHIN_S = 0.1, 0.01
# A probe lasts less than a second: one moment in which the machine does something else decides it.
TRIES = 3
COLLECTING_S = 0.5


@pytest.mark.parametrize(("requests_per_s", "tokens", "unit_tokens"), [(20.0, LONG_TOKENS, LONG_TOKENS), (100.0, 2, 1)])
def test_probe_delivers_what_was_asked_undistorted(
    requests_per_s: float, tokens: int, unit_tokens: int, tmp_path: Path
) -> None:
    for left in reversed(range(TRIES)):
        try:
            probe_once(requests_per_s, tokens, unit_tokens, tmp_path / str(left))
        except AssertionError:
            if not left:
                raise
        else:
            return


def test_collecting_a_large_heap_first_is_no_lateness_of_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: time.sleep(COLLECTING_S))
    test_probe_delivers_what_was_asked_undistorted(100.0, 2, 1, tmp_path)


def probe_once(requests_per_s: float, tokens: int, unit_tokens: int, folder: Path) -> None:
    folder.mkdir()
    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.004)) as mock, Witness([os.getpid(), mock.pid], folder) as witness:
        probe = probe_rate(mock, requests_per_s, tokens, unit_tokens=unit_tokens)
    asked_per_s = requests_per_s * unit_tokens
    assert probe.asked_per_s == asked_per_s
    # Hold-ups move events over the edges of what is measured, and make stamps late.
    moved = witness.total_s / MEASURED_S
    assert probe.delivered_per_s == pytest.approx(asked_per_s, rel=WITHIN_SHARE + moved)
    assert probe.all_served
    assert 0 <= probe.ttft_distortion_s < WITHIN_S + witness.total_s
    assert 0 <= probe.itl_distortion_s < WITHIN_S + witness.total_s
    assert 0 < probe.cpu_share < 1
    assert probe.per_cpu_s > asked_per_s
