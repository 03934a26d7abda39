"""What a mock server really did: the truth that a load generator's report is compared with."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.mock.options import Behaviour

_DIGITS = 6


class Ended(StrEnum):
    """How a request ended at the server; ``RUNNING`` until then."""

    RUNNING = "running"
    COMPLETE = "complete"
    CLOSED = "closed"
    RESET = "reset"
    REFUSED = "refused"
    CLIENT_GONE = "client_gone"


@dataclass(slots=True, kw_only=True, eq=False)
class MockRequest:
    """One generation request. All times are ``time.monotonic`` seconds of this machine, the same in every process.

    received_s: its last byte was read. begun_s: it got its place (``slots``), which starts its token clock.
    sends_s, tokens: when each write was handed to the system, and how many tokens it carried.
    """

    request_id: str
    behaviour: Behaviour
    received_s: float
    max_tokens: int
    begun_s: float | None = None
    ended_s: float | None = None
    ended: Ended = Ended.RUNNING
    status: int = 0
    sends_s: array[float] = field(default_factory=lambda: array("d"))
    tokens: tuple[int, ...] = ()

    @property
    def token_times_s(self) -> NDArray[np.float64]:
        """When each token was sent, shape ``[tokens sent]``."""
        sent = len(self.sends_s)
        return np.repeat(np.array(self.sends_s), np.array(self.tokens[:sent], dtype=np.int64))

    def to_fields(self) -> dict[str, Any]:
        """As in the JSON log."""
        return {
            **{name: getattr(self, name) for name in ("request_id", "behaviour", "received_s", "max_tokens")},
            **{name: getattr(self, name) for name in ("begun_s", "ended_s", "ended", "status")},
            "sends_s": [round(time_s, _DIGITS) for time_s in self.sends_s],
            "tokens": self.tokens,
        }


@dataclass(slots=True, kw_only=True)
class MockLog:
    """The log of a mock server.

    requests: in order of arrival; ``forgotten``, the oldest, are no longer in it. freezes_s: (from, to) as it happened.
    cpu_s: of the server's process (of the thread, where it runs inside another). tick_lag_*: how late its sends were.
    """

    requests: list[MockRequest]
    freezes_s: list[tuple[float, float]] = field(default_factory=list)
    forgotten: int = 0
    cpu_s: float = 0.0
    tick_lag_p99_s: float | None = None
    tick_lag_max_s: float | None = None

    def by_id(self) -> dict[str, MockRequest]:
        """Requests by their ``x-request-id``; of several with the same, the last."""
        return {request.request_id: request for request in self.requests}

    def to_fields(self) -> dict[str, Any]:
        """The log as values that JSON has."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "requests"}
        return fields | {"requests": [request.to_fields() for request in self.requests]}

    @classmethod
    def from_json(cls, text: str | bytes) -> MockLog:
        """What ``to_fields`` gave, as JSON."""
        fields = json.loads(text)
        requests = [_request(row) for row in fields.pop("requests")]
        freezes_s = [(begin_s, end_s) for begin_s, end_s in fields.pop("freezes_s")]
        return cls(requests=requests, freezes_s=freezes_s, **fields)


def _request(row: dict[str, Any]) -> MockRequest:
    made = {
        "behaviour": Behaviour(row["behaviour"]),
        "ended": Ended(row["ended"]),
        "sends_s": array("d", row["sends_s"]),
        "tokens": tuple(row["tokens"]),
    }
    return MockRequest(**(row | made))
