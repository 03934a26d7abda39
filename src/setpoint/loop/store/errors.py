"""What the index of runs cannot do."""

from __future__ import annotations


class StoreError(Exception):
    """The index cannot be used; the message names the file, what is wrong and what to do."""
