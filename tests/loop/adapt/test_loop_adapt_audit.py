"""The log of changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from setpoint.loop.adapt import audit as audit_module
from setpoint.loop.adapt.audit import KEPT_EVENTS, OLD_FILES, Audit


def test_every_event_is_a_line_with_its_moment(tmp_path: Path) -> None:
    file = tmp_path / "adapt.jsonl"
    audit = Audit(file, clock=lambda: 0.0)
    audit.event("changed", why="so", gain=0.5)
    audit.close()
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"at": "1970-01-01T00:00:00.000+00:00", "event": "changed", "why": "so", "gain": 0.5}
    ]


def test_files_and_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MOST_BYTES", 500)
    audit = Audit(tmp_path / "adapt.jsonl")
    for number in range(2 * KEPT_EVENTS):
        audit.event("planned", number=number)
    audit.close()
    assert len(audit.newest) == KEPT_EVENTS
    files = list(tmp_path.iterdir())
    assert len(files) == OLD_FILES + 1
    assert all(file.stat().st_size <= 500 for file in files)


def test_a_log_that_cannot_be_written_any_more_does_not_stop_the_loop(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "adapt.jsonl")
    assert audit._lines is not None
    assert audit._lines.stream is not None
    audit._lines.stream.close()
    audit.event("planned")
    audit.event("planned")
    assert len(audit.newest) == 2
