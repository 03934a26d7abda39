"""What a user gets wrong about hardware and models: one sentence, no traceback."""

from __future__ import annotations


class HardwareError(Exception):
    """The message names what was found and the fix."""
