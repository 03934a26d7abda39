"""The serving configuration: the numbers a plan chooses and an engine obeys."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class BatchingMode(StrEnum):
    """How requests are put together into steps (DESIGN.md section 4)."""

    IMMEDIATE = "immediate"
    STATIC = "static"
    CONTINUOUS = "continuous"
    SETPOINT = "setpoint"


class SpeculationMode(StrEnum):
    """Where guesses at the next tokens come from (docs/speculation.md)."""

    OFF = "off"
    PROMPT_LOOKUP = "prompt-lookup"
    DRAFT = "draft"


class ServingConfig(BaseModel):
    """One candidate configuration.

    max_running: most requests in a step (the batch size B of ``static``). batch_wait_s: how long ``static`` waits to fill
    a batch (W). token_budget: most new tokens in a step. max_waiting: bound of the queue. prefill_floor_tokens: least
    prefill of a ``setpoint`` step that has any, so that prompts always progress.
    speculation: the drafter; draft_model: with ``draft``, where its model comes from. max_draft_tokens: longest draft of a
    request. draft_tokens: always drafts of that length, whatever they cost, instead of what pays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: BatchingMode = BatchingMode.SETPOINT
    max_running: int = Field(default=32, ge=1, le=4096)
    token_budget: int = Field(default=512, ge=1, le=65536)
    batch_wait_s: float = Field(default=0.2, ge=0)
    max_waiting: int = Field(default=1024, ge=0)
    prefill_floor_tokens: int = Field(default=16, ge=1)
    kv_cache_tokens: int = Field(default=32768, ge=64)
    threads: int | None = Field(default=None, ge=1)
    speculation: SpeculationMode = SpeculationMode.OFF
    draft_model: str | None = None
    max_draft_tokens: int = Field(default=15, ge=1, le=64)
    draft_tokens: int | None = Field(default=None, ge=0, le=64)

    @property
    def longest_draft_tokens(self) -> int:
        """Most draft tokens of a request."""
        return self.max_draft_tokens if self.draft_tokens is None else max(1, self.draft_tokens)
