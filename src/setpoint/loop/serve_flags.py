"""The options of ``setpoint serve`` that bound what clients, failures and the loop may do: as typed, and what they become."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from setpoint.loop.adapt.rails import Bounds, Rails
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import option
from setpoint.policy.configuration import BatchingMode, SpeculationMode
from setpoint.server.limits import ServerLimits

LIMITS, SPECULATION, ADAPTING = "Limits and safety", "Speculation", "Adapting"
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
class AdaptFlags:
    """Whether the server changes its own configuration, and how far it may go (docs/adapting.md)."""

    adapt: Annotated[bool, option(None, "Change the configuration as traffic or machine change.", ADAPTING, name="--adapt")] = (
        False
    )
    adapt_dry_run: Annotated[
        bool, option(None, "The same, but only tell what would be changed.", ADAPTING, name="--adapt-dry-run")
    ] = False
    adapt_log: Annotated[Path | None, option("FILE", "Every change and why, as JSON lines.", ADAPTING)] = None
    adapt_modes: Annotated[str, option("LIST", "Modes that may be served.", ADAPTING)] = "continuous,setpoint"
    adapt_running: Annotated[str, option("LEAST-MOST", "Running limits that may be served.", ADAPTING)] = "1-64"
    adapt_budget: Annotated[str, option("LEAST-MOST", "Token budgets that may be served.", ADAPTING)] = "32-2048"
    adapt_dwell_s: Annotated[float, option("S", "Least seconds between two changes.", ADAPTING, min=1)] = 20.0
    adapt_changes_per_hour: Annotated[int, option("N", "Most changes in an hour.", ADAPTING, min=1, max=1000)] = 12

    def rails(self) -> Rails | None:
        """What the loop may do; ``None`` where there is none. Raises ``BadInput`` naming the option."""
        if not (self.adapt or self.adapt_dry_run):
            if self.adapt_log is not None:
                raise BadInput("--adapt-log: found without --adapt; give --adapt or --adapt-dry-run as well")
            return None
        names = [name.strip() for name in self.adapt_modes.split(",") if name.strip()]
        unknown = [name for name in names if name not in tuple(BatchingMode)]
        if unknown or not names:
            raise BadInput(f"--adapt-modes: found '{self.adapt_modes}'; give some of {', '.join(BatchingMode)}")
        bounds = Bounds(
            modes=tuple(BatchingMode(name) for name in names),
            max_running=_span("--adapt-running", self.adapt_running, 1024),
            token_budget=_span("--adapt-budget", self.adapt_budget, 65536),
        )
        return Rails(bounds=bounds, dwell_s=self.adapt_dwell_s, most_changes_per_hour=self.adapt_changes_per_hour)


def _span(name: str, text: str, most: int) -> tuple[int, int]:
    least, _, largest = text.partition("-")
    largest = largest or least
    if not (least.isdecimal() and largest.isdecimal() and 1 <= int(least) <= int(largest) <= most):
        raise BadInput(f"{name}: found '{text}'; give two whole numbers from 1 to {most}, such as 4-64")
    return int(least), int(largest)


@dataclass(frozen=True, slots=True)
class SafetyFlags:
    """``None`` for a quota: there is none."""

    max_body_bytes: Annotated[int, option("N", "Most bytes of a request's body.", LIMITS, min=1)] = 2 * MB
    max_held_body_bytes: Annotated[int, option("N", "Most bytes of all bodies being read.", LIMITS, min=1)] = 256 * MB
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
            max_held_body_bytes=self.max_held_body_bytes,
            max_prompt_tokens=self.max_prompt_tokens,
            max_header_bytes=self.max_header_bytes,
            header_timeout_s=self.header_timeout_s,
            keep_alive_s=self.keep_alive_s,
            max_connections=self.max_connections,
            slow_reader_s=self.slow_reader_s,
            max_streams_per_key=self.max_streams_per_key,
            max_requests_per_minute_per_key=self.max_rpm_per_key,
        )
