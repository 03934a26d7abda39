"""The run folder: where it is, and whether it can be written, which is found out before minutes are spent."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from setpoint.loop.errors import BadInput

RUNS = Path("runs")


def default_folder(name: str) -> Path:
    """``runs/NAME``, whatever the name of the requirement holds."""
    return RUNS / (re.sub(r"[^\w.-]+", "-", name).strip(".-") or "run")


def claim(folder: Path) -> None:
    """Make ``folder`` and see that a file can be written in it. Raises ``BadInput``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"--output {folder}: there is a file in the way; choose another folder") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise BadInput(f"--output {folder}: cannot be written ({reason}); choose another folder") from None
