"""What runs a batch: the protocol that the OpenVINO executor and the simulated one share."""

from __future__ import annotations

from typing import Any, Protocol

from setpoint.engine.batch import Batch, StepOutput

Ticket = Any


class Executor(Protocol):
    """Runs one batch at a time. ``observation_lag``: 0, the result is seen before the next step is planned."""

    observation_lag: int
    blocks: int
    block_tokens: int

    def submit(self, batch: Batch) -> Ticket:
        """Start ``batch`` and return at once."""
        ...

    def collect(self, ticket: Ticket) -> StepOutput:
        """Wait for the batch of ``ticket``; raises ``EngineFailed`` if it cannot be completed."""
        ...

    def close(self) -> None:
        """Give memory back; no call may follow."""
        ...
