"""Machine facts from the files that Linux keeps, present, absent or odd."""

from __future__ import annotations

from pathlib import Path

import pytest

from setpoint.report.machine import _cpu_info, _cpu_quota, _flags


def test_the_first_processor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: First: one\nflags\t\t: avx2 amx_bf16\n\nmodel name\t: Second\n")
    info = _cpu_info(path)
    assert info["model name"] == "First: one"
    assert _flags(info) == {"avx2", "amx_bf16"}
    assert _cpu_info(tmp_path / "absent") == {}
    assert _flags({"Features": "asimd sve"}) == {"asimd", "sve"}


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)])
def test_the_cpu_quota_of_the_control_group(tmp_path: Path, text: str, cores: float | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert _cpu_quota(path) == cores
    assert _cpu_quota(tmp_path / "absent") is None
