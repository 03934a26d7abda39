"""The tables of docs/peers.md are what its result file says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_current() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "peers" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr or "write them anew: python benchmarks/peers/tables.py"
