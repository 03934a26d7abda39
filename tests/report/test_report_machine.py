"""Machine facts from the files that Linux keeps, present, absent or odd."""

from __future__ import annotations

from pathlib import Path

import pytest

from setpoint.report.machine import _cpu_quota


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)])
def test_the_cpu_quota_of_the_control_group(tmp_path: Path, text: str, cores: float | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert _cpu_quota(path) == cores
    assert _cpu_quota(tmp_path / "absent") is None
