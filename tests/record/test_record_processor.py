"""The processor's name, for reports and for what is remembered of this machine: one and the same."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from setpoint.hardware.provenance import fingerprint_of
from setpoint.hardware.this_machine import fingerprint
from setpoint.record import processor
from setpoint.record.processor import cpu_info, processor_name
from setpoint.report.machine import machine_facts


def test_the_first_processor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: First: one\nflags\t\t: avx2 amx_bf16\n\nmodel name\t: Second\n")
    info = cpu_info(path)
    assert info["model name"] == "First: one"
    assert info["flags"] == "avx2 amx_bf16"
    assert processor_name(path) == "First: one"
    assert cpu_info(tmp_path / "absent") == {}


def test_a_processor_without_a_name_has_one_in_reports_and_calibrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: on ARM a report named the architecture and the calibration "unknown", so no run was known again."""
    monkeypatch.setattr(processor, "cpu_info", lambda *_: {"processor": "0", "Features": "asimd"})
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor_name() == platform.machine()
    assert fingerprint_of(machine_facts()) == fingerprint()
