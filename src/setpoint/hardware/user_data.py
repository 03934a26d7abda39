"""The folder of a user's own accelerators, models and calibrations."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder() -> Path:
    """``$SETPOINT_DATA``, else ``$XDG_DATA_HOME/setpoint``, else ``~/.local/share/setpoint``; it may not exist yet."""
    chosen = os.environ.get("SETPOINT_DATA")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "setpoint"
