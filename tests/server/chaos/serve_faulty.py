"""``setpoint``, with an executor around the real one that fails its next step when the process gets SIGUSR1."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from setpoint.cli import main
from setpoint.engine import embedded
from setpoint.engine.batch import Batch, StepOutput
from setpoint.engine.openvino.executor import OpenVinoExecutor

doomed = threading.Event()


class FaultyExecutor(OpenVinoExecutor):
    """The real executor; the step under way when it is told to fail is lost after its kernels ran."""

    def collect(self, ticket: Batch) -> StepOutput:
        output = super().collect(ticket)
        if doomed.is_set():
            doomed.clear()
            raise RuntimeError("killed in mid-step")
        return output


def doom(number: int, frame: FrameType | None) -> None:
    doomed.set()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, doom)
    vars(embedded)["OpenVinoExecutor"] = FaultyExecutor
    main()
