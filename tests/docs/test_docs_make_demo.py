"""``make demo`` succeeds where the demo came to a verdict, and says what one other than "met" means."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from docs_commands import ROOT

from setpoint.record import EXIT_BAD_INPUT, EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_MET, EXIT_MISSED

FAILED = 2
# What a make around the tests hands down to those below it.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
NOT_CHOSEN = "nothing was chosen that make serve could serve; with the default: "


def demo(folder: Path, code: int) -> subprocess.CompletedProcess[str]:
    """``make demo`` with an environment in ``folder`` whose ``setpoint`` ends with ``code`` and does nothing."""
    program = folder / "bin" / "setpoint"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
    program.chmod(0o755)
    (folder / ".installed").touch()
    environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    command = ["make", f"VENV={folder}", "demo"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("code", "ends", "says"),
    [
        (EXIT_MET, 0, ""),
        (EXIT_MISSED, 0, "this machine does not hold the example's limits under its load"),
        (EXIT_INCONCLUSIVE, 0, "it was not shown whether this machine holds the example's limits under its load"),
        (EXIT_BAD_INPUT, FAILED, ""),
        (EXIT_INVALID, FAILED, ""),
    ],
)
def test_a_verdict_is_no_error_of_make(tmp_path: Path, code: int, ends: int, says: str) -> None:
    done = demo(tmp_path, code)
    assert done.returncode == ends, done.stderr
    assert says in done.stdout
    assert (NOT_CHOSEN in done.stdout) == bool(says)
