"""Where results go, and whether they can be written there, which is found out before minutes are spent."""

from __future__ import annotations

import os
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


def require_writable_file(option: str, path: Path) -> None:
    """Make the folder of ``path`` and see that the file can be written. Raises ``BadInput`` naming the option."""
    if path.is_dir():
        raise BadInput(f"--{option} {path}: this is a folder; name a file")
    parent = path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--{option} {path}: {parent} cannot be made: {error.strerror or error}") from None
    if not os.access(path if path.exists() else parent, os.W_OK):
        raise BadInput(f"--{option} {path}: cannot be written; choose another place")
