"""The options of ``setpoint serve`` that bound what clients and failures may do: as typed, and what they become."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from setpoint.loop.flags import option
from setpoint.policy.configuration import SpeculationMode
from setpoint.server.limits import ServerLimits

LIMITS, SPECULATION = "Limits and safety", "Speculation"
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpeculationFlags:
    """``None`` leaves what the configuration has."""

    speculation: Annotated[SpeculationMode | None, option("WHAT", "off, prompt-lookup or draft.", SPECULATION)] = None
    draft_model: Annotated[str | None, option("MODEL", "draft: a smaller model of the same vocabulary.", SPECULATION)] = None
    max_draft_tokens: Annotated[int | None, option("N", "Longest guess for a request; default: 15.", SPECULATION, min=1)] = None
    draft_tokens: Annotated[int | None, option("N", "Always guesses of N tokens, whatever they cost.", SPECULATION, min=0)] = (
        None
    )

    def changes(self) -> dict[str, object]:
        """As fields of ``ServingConfig``."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class SafetyFlags:
    """``None`` for a quota: there is none."""

    max_body_bytes: Annotated[int, option("N", "Most bytes of a request's body.", LIMITS, min=1)] = 2 * MB
    max_prompt_tokens: Annotated[int | None, option("N", "Most tokens of a prompt.", LIMITS, min=1)] = None
    max_header_bytes: Annotated[int, option("N", "Most bytes of request line and headers.", LIMITS, min=256)] = 32 * 1024
    header_timeout_s: Annotated[float, option("S", "Seconds a request's headers may take.", LIMITS, min=0.1)] = 10.0
    keep_alive_s: Annotated[float, option("S", "Seconds a connection may idle between requests.", LIMITS, min=1)] = 75.0
    max_connections: Annotated[int, option("N", "Most connections; beyond, only /health.", LIMITS, min=1)] = 4096
    slow_reader_s: Annotated[float, option("S", "Seconds an answer may wait to be read.", LIMITS, min=0.1)] = 30.0
    max_streams_per_key: Annotated[int | None, option("N", "Most requests of a key at a time.", LIMITS, min=1)] = None
    max_rpm_per_key: Annotated[int | None, option("N", "Most requests of a key in a minute.", LIMITS, min=1)] = None
    step_limit_s: Annotated[float, option("S", "Seconds after which a step is given up.", LIMITS, min=1)] = 60.0
    drain_s: Annotated[float, option("S", "Seconds for requests in flight at the first signal.", LIMITS, min=0)] = 30.0

    def server_limits(self) -> ServerLimits:
        """Those that bound clients."""
        return ServerLimits(
            max_body_bytes=self.max_body_bytes,
            max_prompt_tokens=self.max_prompt_tokens,
            max_header_bytes=self.max_header_bytes,
            header_timeout_s=self.header_timeout_s,
            keep_alive_s=self.keep_alive_s,
            max_connections=self.max_connections,
            slow_reader_s=self.slow_reader_s,
            max_streams_per_key=self.max_streams_per_key,
            max_requests_per_minute_per_key=self.max_rpm_per_key,
        )
