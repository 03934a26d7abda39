"""What the CPU device may keep."""

from __future__ import annotations

KERNELS_KEPT = 128
"""Kernels that the CPU device, and oneDNN under it, keep for shapes of steps seen before, least recently used first out."""
