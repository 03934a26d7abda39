"""One process of a load over several: reads its share from standard input, says it is ready, and starts when told.

Run as ``python -m setpoint.measure.worker_process`` by ``workers``; what passes between the two is in ``frames``. The
worker lives no longer than its parent: when standard input closes, it ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import sys
import threading
from time import monotonic
from typing import Any, BinaryIO

from setpoint.measure.body import RequestWriter
from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.frames import LENGTH, Job, Ready, Refused, Start, frame, length_of, value_of
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.result import LoadResult
from setpoint.measure.running import Progress

STDIN, STDOUT, STDERR = 0, 1, 2
STDIN_BYTES = 4096
PROGRESS_QUEUE_MAX = 8
WARM_UP_REQUESTS = 64
EXIT_ORPHANED = 1


def main() -> int:
    """Do one job; the exit code is 0 if the result was handed over."""
    # Our parent may ignore it, as a job in the background does; from the parent it means: stop, and hand over what there is.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whatever is printed by accident must not end up between the frames.
    answers = os.fdopen(os.dup(STDOUT), "wb")
    os.dup2(STDERR, STDOUT)
    with os.fdopen(os.dup(STDIN), "rb", buffering=0) as questions:
        job = _read(questions)
        assert isinstance(job, Job)
        _write(answers, Ready(run(_get_ready(job))))
        start = _read(questions)
        assert isinstance(start, Start)
    threading.Thread(target=_end_with_stdin, name="setpoint-lifeline", daemon=True).start()
    _write(answers, _work(job, start, answers))
    answers.close()
    return 0


async def _get_ready(job: Job) -> float:
    """Do once what the run will do before its first send, and say how long it took."""
    began_s = monotonic()
    options = job.options
    pool = ConnectionPool(job.target, limit=1, connect_timeout_s=options.connect_timeout_s, idle_s=options.idle_connection_s)
    await pool.resolve()
    await pool.close()
    with contextlib.suppress(ValueError):  # The run says it again, and to somebody who listens.
        writer = RequestWriter(job.target, options)
        for planned in job.plan.requests[:WARM_UP_REQUESTS]:
            writer.write(planned, "ready")
    gc.collect()
    gc.freeze()
    return monotonic() - began_s


def _work(job: Job, start: Start, answers: BinaryIO) -> LoadResult | Refused:
    with _Reporter(answers) as report:
        try:
            return run(run_load(job.target, job.plan, job.options, report, start_s=start.start_s, keep=True))
        except ValueError as wrong:
            return Refused(str(wrong))
        finally:  # What there is gets handed over now: nothing may come between.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Reporter:
    """Writes progress from a thread of its own, so that a parent that does not read never holds up the sends."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._frames: queue.Queue[bytes | None] = queue.Queue(maxsize=PROGRESS_QUEUE_MAX)
        self._thread = threading.Thread(target=self._write_all, name="setpoint-progress", daemon=True)

    def __enter__(self) -> _Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.put(None)
        self._thread.join()

    def __call__(self, progress: Progress) -> None:
        with contextlib.suppress(queue.Full):
            self._frames.put_nowait(frame(progress))

    def _write_all(self) -> None:
        while (packed := self._frames.get()) is not None:
            self._answers.write(packed)
            self._answers.flush()


def _read(stream: BinaryIO) -> Any:
    return value_of(_exactly(stream, length_of(_exactly(stream, LENGTH.size))))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """``count`` bytes; ends the process if the parent is gone before."""
    pieces = bytearray()
    while len(pieces) < count:
        piece = stream.read(count - len(pieces))
        if not piece:
            sys.exit(EXIT_ORPHANED)
        pieces += piece
    return bytes(pieces)


def _write(stream: BinaryIO, value: object) -> None:
    stream.write(frame(value))
    stream.flush()


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(STDIN, STDIN_BYTES):
            continue
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
