"""How a load is put on a target: endpoint, limits of the client, sampling, drain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from setpoint.measure.power import PowerSource
from setpoint.requirement import Slos

RETRIES_MAX = 100

MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
_PLANNED_FIELDS = frozenset({"model", "prompt", "messages", MAX_TOKENS, "stream"})


class Endpoint(StrEnum):
    """Which OpenAI endpoint takes the prompts. Completions take them as they are, so that token counts are exact."""

    COMPLETIONS = "completions"
    CHAT = "chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Options of one run; raises ``ValueError`` naming the field and what is allowed.

    streaming: ask for server-sent events; without it only E2E can be measured.
    drain_s: how long after the last phase answers may still come; what is still running then is unfinished.
    max_in_flight: at most so many requests at the server; arrivals held back wait, counted from their intended time.
    connections_max: bound of the connection pool, which grows with demand; arrivals beyond it wait in the same way.
    request_timeout_s: from the moment the request is handed to a connection to the end of its answer.
    retries: how often a request is sent again that was refused (429, 503, 529), failed at the server (408, 409, 500, 502, 504,
        520 to 524) or got no answer at all; its latency still counts from the intended time, its class is that of the last
        attempt.
    idle_connection_s: connections idle for longer are not used again, so that a server's own keep-alive limit
        (5 s is usual) does not turn into failures.
    extra_body: more fields of the request body; they win over the sampling fields made here, and one that is ``None``
        leaves its field out (``stream_options`` for a server that does not know it; ``max_tokens`` too).
    max_completion_tokens: the planned length of the answer goes under this name, for servers that refuse ``max_tokens``.
    slos: only for the live figures; the verdict is made from the recorded rows.
    run_id: first part of every request id; empty means random.
    watch_server: scrape ``/metrics`` and setpoint's own records while the load runs.
    metrics_urls: where the server's metrics are, if not at the target; what several say is added up.
    power: the exporter that tells the power of the server's GPUs.
    """

    endpoint: Endpoint = Endpoint.COMPLETIONS
    streaming: bool = True
    drain_s: float = 30.0
    max_in_flight: int | None = None
    connections_max: int = 2048
    request_timeout_s: float = 600.0
    connect_timeout_s: float = 10.0
    idle_connection_s: float = 2.0
    retries: int = 0
    ignore_eos: bool = True
    temperature: float = 0.0
    seed: int | None = 0
    extra_body: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    max_completion_tokens: bool = False
    slos: Slos = field(default_factory=Slos)
    run_id: str = ""
    watch_server: bool = True
    metrics_urls: tuple[str, ...] = ()
    power: PowerSource | None = None

    def __post_init__(self) -> None:
        for name in ("request_timeout_s", "connect_timeout_s", "idle_connection_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: found {getattr(self, name)}; it must be more than 0 seconds")
        if not self.drain_s >= 0:
            raise ValueError(f"drain_s: found {self.drain_s}; it must be 0 seconds or more")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise ValueError(f"max_in_flight: found {self.max_in_flight}; it must be at least 1, or left out")
        if self.connections_max < 1:
            raise ValueError(f"connections_max: found {self.connections_max}; it must be at least 1")
        if not 0 <= self.retries <= RETRIES_MAX:
            raise ValueError(f"retries: found {self.retries}; it must be 0 to {RETRIES_MAX}")
        if not self.run_id.isascii() or any(mark.isspace() for mark in self.run_id):
            raise ValueError(f"run_id: found {self.run_id!r}; use ASCII characters without spaces")
        made = _PLANNED_FIELDS | ({MAX_COMPLETION_TOKENS} if self.max_completion_tokens else set())
        left_out = {MAX_TOKENS} if self.extra_body.get(MAX_TOKENS, 0) is None else set()
        planned = sorted(made & set(self.extra_body) - left_out)
        if planned:
            raise ValueError(f"extra_body: {', '.join(planned)} come from the plan; leave them out")

    @property
    def length_field(self) -> str | None:
        """What the planned length of an answer is called in a request; ``None`` where it is left out."""
        if self.max_completion_tokens:
            return MAX_COMPLETION_TOKENS
        return None if MAX_TOKENS in self.extra_body else MAX_TOKENS

    @property
    def in_flight_limit(self) -> int:
        """The tighter of ``max_in_flight`` and ``connections_max``."""
        return min(self.max_in_flight or self.connections_max, self.connections_max)
