"""Another configuration without a restart: taken on between two steps, on the engine's thread.

Nothing in the engine is touched but who decides: requests that run go on (a lower running limit lets them end, it ends nobody),
requests that wait are ordered, and perhaps shed, by the new policy. An engine that is built again after a failure is built for
the configuration of that moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from setpoint.engine.executor import Executor
from setpoint.engine.handing_over import refuse, resolve
from setpoint.engine.request import EngineFailed
from setpoint.engine.restarts import NO_RESTARTS, RestartLimits
from setpoint.engine.service import EngineService
from setpoint.engine.speculation.building import most_drafting
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.threaded import STEP_LIMIT_S, ThreadedEngine
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.changing import ChangingPolicy, needs_restart
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.policy.step_time import Sample

Answer = TypeVar("Answer")
Built = tuple[StepLoop, Executor, ChangingPolicy]


class CannotReconfigure(ValueError):
    """The configuration needs a restart; ``fields`` says because of what."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__(f"{', '.join(fields)}: cannot change while the engine runs; start it anew with the new values")
        self.fields = fields


class Reconfigurable(EngineService, Protocol):
    """An engine whose configuration may change."""

    @property
    def config(self) -> ServingConfig:
        """The present one."""
        ...

    async def reconfigure(self, config: ServingConfig) -> None:
        """Serve under ``config`` from the next step on. Raises ``CannotReconfigure`` or ``EngineFailed``."""
        ...

    async def step_samples(self) -> list[Sample]:
        """Steps that the step-time model keeps, spread over shapes, those of the warm-up included. Raises ``EngineFailed``."""
        ...

    async def drafting_s(self) -> tuple[float, ...] | None:
        """Seconds that a round of drafting takes, a token drafted and a token read, as whoever decides on drafts has learned
        them; ``None`` while they cannot be told. Raises ``EngineFailed``."""
        ...


def apply_config(steps: StepLoop, changing: ChangingPolicy, config: ServingConfig) -> None:
    """Put ``config`` in force in a loop that is between two steps."""
    steps.decide_by(changing.change(config))
    if steps.speculator is not None:
        off = config.speculation is SpeculationMode.OFF
        steps.speculator.bound(most_tokens=config.longest_draft_tokens, most_running=0 if off else most_drafting(config))


class ReconfigurableEngine(ThreadedEngine):
    """A ``ThreadedEngine`` that is built, at the start and after failures, for the configuration of the moment."""

    def __init__(
        self,
        *,
        model_name: str,
        tokenizer: ModelTokenizer,
        config: ServingConfig,
        build: Callable[[ServingConfig], Built],
        max_model_len: int,
        clock: Callable[[], float] = time.monotonic,
        restarts: RestartLimits = NO_RESTARTS,
        step_limit_s: float = STEP_LIMIT_S,
    ) -> None:
        super().__init__(
            model_name=model_name,
            tokenizer=tokenizer,
            build=self._build_present,
            max_model_len=max_model_len,
            clock=clock,
            restarts=restarts,
            step_limit_s=step_limit_s,
        )
        self.config = config
        self._started_with = config
        self._build_for = build
        self._changing: ChangingPolicy | None = None

    async def reconfigure(self, config: ServingConfig) -> None:
        """See ``Reconfigurable``."""
        fields = needs_restart(self._started_with, config)
        if fields:
            raise CannotReconfigure(fields)
        await self._between_steps(partial(self._take_on, config))

    async def step_samples(self) -> list[Sample]:
        """See ``Reconfigurable``."""
        return await self._between_steps(lambda steps: [] if steps.step_time is None else steps.step_time.samples())

    async def drafting_s(self) -> tuple[float, ...] | None:
        """See ``Reconfigurable``."""
        return await self._between_steps(lambda _: None if self._changing is None else self._changing.drafting_s)

    async def _between_steps(self, action: Callable[[StepLoop], Answer]) -> Answer:
        self._raise_if_down()
        answer: asyncio.Future[Answer] = self._event_loop.create_future()
        self._post(lambda: self._answer(action, answer))
        return await answer

    # On the engine's thread

    def _build_present(self) -> tuple[StepLoop, Executor]:
        """For the configuration the engine was started with, then changed: the drafter is that of the start."""
        steps, executor, self._changing = self._build_for(self._started_with)
        if self.config != self._started_with:
            apply_config(steps, self._changing, self.config)
        return steps, executor

    def _answer(self, action: Callable[[StepLoop], Answer], answer: asyncio.Future[Answer]) -> None:
        if self._closed or self._steps is None:
            self._on_event_loop(partial(refuse, answer, EngineFailed(self._why_down())))
            return
        result = action(self._steps)
        self._on_event_loop(partial(resolve, answer, result))

    def _take_on(self, config: ServingConfig, steps: StepLoop) -> None:
        assert self._changing is not None
        apply_config(steps, self._changing, config)
        self.config = config
