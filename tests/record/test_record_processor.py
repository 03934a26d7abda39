"""The processor, for reports and for what is remembered of this machine: one name and one list of what it can do."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from setpoint.hardware.provenance import fingerprint_of
from setpoint.hardware.this_machine import fingerprint
from setpoint.record import processor
from setpoint.record.processor import CPU_FEATURES, cpu_features, cpu_info, processor_name
from setpoint.report.machine import machine_facts


def test_the_first_processor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: First: one\nflags\t\t: avx2 fpu amx_bf16\n\nmodel name\t: Second\n")
    info = cpu_info(path)
    assert info["model name"] == "First: one"
    assert info["flags"] == "avx2 fpu amx_bf16"
    assert processor_name(path) == "First: one"
    assert cpu_features(path) == ["avx2", "amx_bf16"]
    assert cpu_info(tmp_path / "absent") == {}
    assert cpu_features(tmp_path / "absent") == []


def test_a_processor_without_a_name_has_one_in_reports_and_calibrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: on ARM a report named the architecture and the calibration "unknown", so no run was known again."""
    monkeypatch.setattr(processor, "cpu_info", lambda *_: {"processor": "0", "Features": "i8mm asimd"})
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor_name() == platform.machine()
    assert fingerprint_of(machine_facts()) == fingerprint()
    assert fingerprint().endswith(" GiB with asimd i8mm")


def test_machines_of_one_name_with_other_instructions_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: two virtual machines, both "AMD EPYC, 2 cores, 23 GiB", one without AVX-512, used each other's step times."""
    found = {}
    for flags in ("fpu avx2", "fpu avx2 avx512f avx512_vnni avx512_bf16", "fpu avx2 avx512f amx_tile amx_bf16 amx_int8", "fpu"):
        info = {"model name": "AMD EPYC", "flags": flags}
        monkeypatch.setattr(processor, "cpu_info", lambda *_, info=info: info)
        found[flags] = fingerprint()
        assert fingerprint_of(machine_facts()) == fingerprint()
    assert len(set(found.values())) == len(found)


def test_a_report_that_lists_no_instructions_is_of_no_machine_that_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "cpu_info", lambda *_: {"model name": "AMD EPYC", "flags": "avx2"})
    facts = machine_facts()
    before = fingerprint().removesuffix(" with avx2")
    assert before != fingerprint()
    assert fingerprint_of({**facts, "cpu_features": None}) == before
    assert fingerprint_of({name: value for name, value in facts.items() if name != "cpu_features"}) == before


def test_a_feature_that_a_report_did_not_look_for_makes_it_no_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: reports from before ``avx_vnni`` was looked for were called another machine's where the processor has it."""
    monkeypatch.setattr(processor, "cpu_info", lambda *_: {"model name": "Xeon", "flags": "avx2 avx512f avx_vnni"})
    facts = machine_facts()
    assert facts["cpu_features_sought"] == list(CPU_FEATURES)
    early = {name: value for name, value in facts.items() if name != "cpu_features_sought"}
    assert fingerprint_of(early | {"cpu_features": ["avx2", "avx512f"]}) == fingerprint()
    assert fingerprint_of(early | {"cpu_features": ["avx2"]}) != fingerprint(), "avx512f would have been named"
    assert fingerprint_of(early | {"cpu_features": ["avx2", "avx512f"], "cpu": "other"}) != fingerprint()
    assert fingerprint_of(facts | {"cpu_features": ["avx2", "avx512f"]}) != fingerprint(), "looked for and not there"
    later = facts | {"cpu_features_sought": [*CPU_FEATURES, "of a later version"]}
    assert fingerprint_of(later) == fingerprint()
