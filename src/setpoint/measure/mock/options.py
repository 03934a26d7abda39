"""What a mock server does: its schedule, its behaviours and its capacity."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

BEHAVIOURS_MAX = 10_000
TOKENS_MAX = 100_000


class Behaviour(StrEnum):
    """How one request is answered. All streams have the same token clock (``MockOptions``); they differ in the bytes.

    PLAIN: headers at once, then one token an event, one event a write; usage and ``[DONE]`` go with the last token, whose
    event has the finish reason (EARLY_ROLE and NO_USAGE: in an event of its own, without output).
    MULTI_TOKEN: events of several tokens, which only ``usage`` tells. SEVERAL_EVENTS: several events in one write.
    SPLIT_EVENT: every event in two writes, the first with the token before it. STALLED: one long gap in the middle.
    LATE_HEADERS: headers with the first token. EARLY_ROLE: an event without output at once. NO_USAGE: no usage block.
    CUT: the connection is closed in the middle of the stream. CUT_CLEANLY: the HTTP body ends properly in the middle,
    without finish reason and ``[DONE]``. RESET: the connection is reset in the middle. IN_STREAM_ERROR: an error object
    in the middle. SILENT: never an answer. NOT_STREAMING: one JSON object, whatever was asked for.
    HTTP_429, HTTP_503 (with ``Retry-After``), HTTP_500: refused at once.
    """

    PLAIN = "plain"
    MULTI_TOKEN = "multi_token"
    SEVERAL_EVENTS = "several_events"
    SPLIT_EVENT = "split_event"
    STALLED = "stalled"
    LATE_HEADERS = "late_headers"
    EARLY_ROLE = "early_role"
    NO_USAGE = "no_usage"
    CUT = "cut"
    CUT_CLEANLY = "cut_cleanly"
    RESET = "reset"
    IN_STREAM_ERROR = "in_stream_error"
    SILENT = "silent"
    NOT_STREAMING = "not_streaming"
    HTTP_429 = "http_429"
    HTTP_503 = "http_503"
    HTTP_500 = "http_500"


def parse_behaviours(text: str) -> tuple[Behaviour, ...]:
    """``plain*3,http_503`` as plain, plain, plain, http_503. Raises ``ValueError`` naming what is allowed."""
    found: list[Behaviour] = []
    for part in text.split(","):
        name, _, times = part.strip().partition("*")
        if times and not times.isdecimal():
            raise ValueError(f"behaviour: found {part.strip()!r}; write NAME or NAME*COUNT")
        if name not in list(Behaviour):
            raise ValueError(f"behaviour: found {name!r}; use one of {', '.join(Behaviour)}")
        found += [Behaviour(name)] * min(int(times or 1), BEHAVIOURS_MAX + 1)
    if not 0 < len(found) <= BEHAVIOURS_MAX:
        raise ValueError(f"behaviour: {len(found)} in all; use 1 to {BEHAVIOURS_MAX}")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MockOptions:
    """Options of a mock server; raises ``ValueError`` naming the field and what is allowed.

    port: 0 takes a free one. seed: of everything drawn.
    behaviours: dealt to requests in turn: by the number that ends their ``x-request-id``, else in order of arrival. A
        request with ``"mock": NAME`` (or a list of names, dealt in the same way) in its body gets what it names.

    The token clock, from the moment a request is begun: the first token after ``ttft_s``, each next one after
    ``itl_s``; both are gamma-distributed with the given coefficients of variation, where these are not 0.

    tokens_per_chunk: of multi_token and several_events. stall_s: the additional gap of stalled.
    retry_after_s: of http_429, http_503 and a full queue.
    slots: at most so many requests are served at once, the others wait in order of arrival.
    processors: up to so many streams run at full speed; n streams beyond that run n / processors times as slowly
        (processor sharing). With both, ``slots`` bounds how many share.
    queue_max: requests that may wait for a slot, or share the processors; more are refused with 503.
    frozen_s: (from, to) seconds after the first request arrived: the whole process does nothing meanwhile.
    tick_s: sends due within so short a time go out together.
    log_max: requests kept in the log; the oldest are dropped and counted.
    """

    host: str = "127.0.0.1"
    port: int = 0
    model: str = "mock-model"
    seed: int = 0
    behaviours: tuple[Behaviour, ...] = (Behaviour.PLAIN,)
    ttft_s: float = 0.05
    itl_s: float = 0.01
    ttft_cv: float = 0.0
    itl_cv: float = 0.0
    tokens_per_chunk: int = 4
    stall_s: float = 0.5
    retry_after_s: float = 1.0
    slots: int | None = None
    processors: int | None = None
    queue_max: int = 100_000
    frozen_s: tuple[float, float] | None = None
    tick_s: float = 0.0005
    log_max: int = 200_000

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port: found {self.port}; use 0 to 65535")
        if not self.behaviours:
            raise ValueError("behaviours: found none; name at least one")
        for name in ("ttft_s", "itl_s", "ttft_cv", "itl_cv", "stall_s", "retry_after_s", "tick_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: found {getattr(self, name)}; it must be at least 0")
        for name in ("tokens_per_chunk", "slots", "processors", "queue_max", "log_max"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}; it must be at least 1")
        if self.frozen_s is not None and not 0 <= self.frozen_s[0] < self.frozen_s[1] < float("inf"):
            raise ValueError(f"frozen_s: found {self.frozen_s}; write FROM and TO in seconds, TO after FROM")

    def to_json(self) -> str:
        """The options as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote; fields may be left out. Raises ``ValueError`` for anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            if "behaviours" in fields:
                fields["behaviours"] = tuple(Behaviour(name) for name in fields["behaviours"])
            if fields.get("frozen_s"):
                fields["frozen_s"] = tuple(fields["frozen_s"])
            return cls(**fields)
        except (TypeError, ValueError) as wrong:
            raise ValueError(f"options: {wrong}") from None
