"""An independent witness of how long this machine held up two processes: what no client and no server can help.

On a shared machine a thread that could run waits for a core (``run_delay`` of the kernel's ``schedstat``), and a core may
itself be taken away for a while by the host, which shows as timers that fire late though nothing waited for the core.
The witness samples both every ``PERIOD_S``, from processes of its own that look at no figure of the run. What a client
does with its time while it has a core is no hold-up: a slow client is not excused.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

PERIOD_S = 0.001
CORES_MAX = 8
SAMPLES_MAX = 1_000_000
# Less than this is what the witness's own waking costs.
LATE_S = 0.0005

Floats = NDArray[np.float64]


class Witness:
    """Watches the main threads of the processes ``pids`` and the cores of this machine inside its ``with`` block.

    Without ``pids`` the witness stands for whoever runs: what it waits for a core itself is a hold-up.
    """

    def __init__(self, pids: Sequence[int], folder: Path) -> None:
        cores = sorted(os.sched_getaffinity(0))[:CORES_MAX] if hasattr(os, "sched_getaffinity") else [-1]
        self._files = [folder / f"witness-{core}" for core in cores]
        others = ["--others"] if pids else []
        watched = [[*others, *map(str, pids)] if place == 0 else others for place in range(len(cores))]
        self._commands = [
            [sys.executable, __file__, str(file), str(core), *pids_there]
            for file, core, pids_there in zip(self._files, cores, watched, strict=True)
        ]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._begins_s = self._ends_s = np.empty(0)
        self._held_by_begin_s = self._held_by_end_s = np.zeros(1)

    def __enter__(self) -> Self:
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for command in self._commands
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"watching\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.communicate()
        begins_s, ends_s, held_s = np.concatenate([np.fromfile(file).reshape(-1, 3) for file in self._files]).T
        self._begins_s, self._held_by_begin_s = _sums(begins_s, held_s)
        self._ends_s, self._held_by_end_s = _sums(ends_s, held_s)

    def held_up_s(self, from_s: Floats, to_s: Floats) -> Floats:
        """How long, at most, something was held up between each ``from_s`` and ``to_s`` of the clock (seconds)."""
        # Of all samples that began before the end, those that ended before the beginning are not meant.
        begun = np.searchsorted(self._begins_s, to_s, side="right")
        over = np.searchsorted(self._ends_s, from_s, side="left")
        return np.maximum(0.0, self._held_by_begin_s[begun] - self._held_by_end_s[over])

    @property
    def total_s(self) -> float:
        """All hold-ups of the run together."""
        return float(self._held_by_end_s[-1])


def _sums(times_s: Floats, held_s: Floats) -> tuple[Floats, Floats]:
    """The times in order, and what was held up in the first 0, 1, 2, ... of them."""
    order = np.argsort(times_s, kind="stable")
    return times_s[order], np.concatenate(([0.0], np.cumsum(held_s[order])))


def watch(file: Path, core: int, pids: list[int], *, stands_in: bool) -> None:
    """Write (begin, end, seconds held up in between) where there was any, until standard input closes."""
    if core >= 0:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})
    os.set_blocking(0, False)
    own, others = _Delay(os.getpid()), [_Delay(pid) for pid in pids]
    samples = array("d")
    print("watching", flush=True)
    before_s = time.monotonic()
    while not _closed() and len(samples) < 3 * SAMPLES_MAX:
        time.sleep(PERIOD_S)
        now_s = time.monotonic()
        late_s = now_s - before_s - PERIOD_S - (0.0 if stands_in else own.since_s())
        held_s = sum(other.since_s() for other in others) + (late_s if late_s > LATE_S else 0.0)
        if held_s > 0.0:
            samples.extend((before_s, now_s, held_s))
        before_s = time.monotonic()
    with file.open("wb") as out:
        samples.tofile(out)


class _Delay:
    """How long the main thread of a process waited for a core, since it was asked last."""

    def __init__(self, pid: int) -> None:
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)
        self._total_ns = 0
        self.since_s()

    def since_s(self) -> float:
        if self._descriptor < 0:
            return 0.0
        try:
            total_ns = int(os.pread(self._descriptor, 100, 0).split()[1])
        except (OSError, IndexError):
            return 0.0
        since_ns, self._total_ns = total_ns - self._total_ns, total_ns
        return since_ns * 1e-9


def _closed() -> bool:
    try:
        return not os.read(0, 1)
    except BlockingIOError:
        return False


if __name__ == "__main__":
    watched = sys.argv[3:]
    watch(Path(sys.argv[1]), int(sys.argv[2]), [int(pid) for pid in watched[1:]], stands_in=not watched)
