"""What one client process on this machine is good to, as ``calibration`` found it, and where that is kept."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from setpoint import __version__
from setpoint.record.processor import processor_name

CALIBRATION = 1
"""Raised when the procedure changes, so that older results are not taken for its own."""

TTFT_DISTORTION_MAX_S = 0.005
ITL_DISTORTION_MAX_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one client process is good to: either alone.

    measured_unix_s: when it was measured, ``None`` if it is assumed. tokens_bound, requests_bound: ``at least`` where the
    mock came to its end before the client did, ``less than`` where the client was never good, else empty. Distortions are
    those at the capacity, in seconds. on: the machine and the versions.
    """

    tokens_per_s: float
    requests_per_s: float
    measured_unix_s: float | None = None
    tokens_bound: str = ""
    requests_bound: str = ""
    ttft_distortion_s: float | None = None
    itl_distortion_s: float | None = None
    on: str = ""

    def share(self, *, tokens_per_s: float, requests_per_s: float) -> float:
        """The share of the capacity that a load takes; above 1 it is more than the client is good to."""
        return tokens_per_s / self.tokens_per_s + requests_per_s / self.requests_per_s

    def words(self) -> str:
        """One line: ``this machine's client is good to 31,000 tokens/s and 2,100 requests/s per worker``."""
        subject = "this machine's client is good to"
        if self.measured_unix_s is None:
            subject = "not calibrated on this machine, a client is taken to be good to"
        tokens = f"{self.tokens_bound} {_rounded(self.tokens_per_s)} tokens/s"
        requests = f"{self.requests_bound} {_rounded(self.requests_per_s)} requests/s"
        return f"{subject} {tokens.strip()} and {requests.strip()} per worker"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields and the limits of distortion."""
        limits = {"ttft_distortion_max_s": TTFT_DISTORTION_MAX_S, "itl_distortion_max_s": ITL_DISTORTION_MAX_S}
        return asdict(self) | limits


ASSUMED_CAPACITY = Capacity(tokens_per_s=15_000.0, requests_per_s=1_000.0)
"""Cautious figures for a machine that was never calibrated."""


def cached_capacity() -> Capacity | None:
    """The capacity kept for this machine and version, ``None`` if there is none that can be read."""
    try:
        fields = json.loads(cache_file().read_text(encoding="utf-8"))[machine_and_versions()]
        capacity = Capacity(**fields)
        usable = capacity.tokens_per_s > 0 and capacity.requests_per_s > 0
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return capacity if usable else None


def cache_file() -> Path:
    """Where capacities are kept: under ``$XDG_CACHE_HOME``, or ``~/.cache`` where that is not an absolute path."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "setpoint" / "client-capacity.json"


def keep_capacity(capacity: Capacity) -> None:
    """Write it down beside what is kept for other versions; a cache that cannot be written is done without."""
    file = cache_file()
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    entries = (kept if isinstance(kept, dict) else {}) | {machine_and_versions(): asdict(capacity)}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(entries, indent=2), encoding="utf-8")
        partial.replace(file)


def machine_and_versions() -> str:
    """The machine and the versions on which the capacity depends, as one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [
        f"calibration {CALIBRATION}",
        f"setpoint {__version__}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"uvloop {_installed('uvloop')}",
        f"httptools {_installed('httptools')}",
        processor_name(),
        f"{cores} cores",
        platform.node(),
    ]
    return "; ".join(parts)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _rounded(value: float) -> str:
    """Two significant digits, with separators: 31,000."""
    return f"{float(f'{value:.2g}'):,.0f}"
