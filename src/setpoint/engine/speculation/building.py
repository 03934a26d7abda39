"""From a serving configuration to a speculator."""

from __future__ import annotations

from collections.abc import Callable

from setpoint.engine.batch import Batch, StepOutput
from setpoint.engine.executor import Executor, Ticket
from setpoint.engine.speculation.draft import Drafter
from setpoint.engine.speculation.prompt_lookup import PromptLookup
from setpoint.engine.speculation.speculator import Speculator
from setpoint.policy.configuration import ServingConfig, SpeculationMode

MOST_RUNNING = 32
"""With more requests running than that, steps are so dear to widen that nobody looks for drafts at all."""


class WithDrafter:
    """An executor whose end is also its drafter's."""

    def __init__(self, executor: Executor, speculator: Speculator) -> None:
        self._executor = executor
        self._speculator = speculator
        self.observation_lag = executor.observation_lag
        self.blocks, self.block_tokens = executor.blocks, executor.block_tokens

    def submit(self, batch: Batch) -> Ticket:
        """The executor's."""
        return self._executor.submit(batch)

    def collect(self, ticket: Ticket) -> StepOutput:
        """The executor's."""
        return self._executor.collect(ticket)

    def close(self) -> None:
        """Both give their memory back."""
        self._speculator.close()
        self._executor.close()


def most_drafting(config: ServingConfig) -> int:
    """Most running requests with which drafts are looked for."""
    return MOST_RUNNING if config.draft_tokens is None else config.max_running


def build_speculator(
    config: ServingConfig, clock: Callable[[], float], *, draft_model: Callable[[], Drafter] | None = None
) -> Speculator | None:
    """What ``config`` asks for. ``draft_model`` makes the drafter of ``draft``."""
    if config.speculation is SpeculationMode.OFF:
        return None
    drafter: Drafter
    if config.speculation is SpeculationMode.PROMPT_LOOKUP:
        drafter = PromptLookup(most_tokens=config.longest_draft_tokens)
    else:
        assert draft_model is not None, "a draft model is built by whoever has one"
        drafter = draft_model()
    return Speculator(drafter, clock, most_tokens=config.longest_draft_tokens, most_running=most_drafting(config))
