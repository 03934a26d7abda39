"""What all endpoints of one app share: the engine, its names and limits, and whether it is up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import StrEnum

from setpoint.engine.request import EngineFailed, EngineRestarting
from setpoint.engine.service import EngineService
from setpoint.policy.views import RequestLimits
from setpoint.server.compiling import GrammarWorker
from setpoint.server.errors import model_not_found
from setpoint.server.limits import ServerLimits
from setpoint.server.live.checks import Objectives
from setpoint.server.live.view import LiveView
from setpoint.server.metrics import ServerMetrics
from setpoint.server.prompts import PromptEncoder


class Health(StrEnum):
    """What ``/health`` says."""

    STARTING = "starting"
    OK = "ok"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"


class ServerContext:
    """The state of one app; lives on one event loop.

    model_names: names a request may ask for, the first is the one answers carry; the engine's own where none is given.
    """

    def __init__(
        self,
        engine: EngineService,
        *,
        model_names: Sequence[str] = (),
        default_limits: RequestLimits | None = None,
        limits: ServerLimits | None = None,
        objectives: Objectives | None = None,
        about: Mapping[str, object] | None = None,
    ) -> None:
        self.engine = engine
        self.model_names = tuple(model_names) or (engine.model_name,)
        self.default_limits = default_limits or RequestLimits()
        self.limits = limits or ServerLimits()
        self.max_body_bytes = self.limits.max_body_bytes
        self.created = int(time.time())
        self.live = LiveView(engine, objectives, about)
        self.metrics = ServerMetrics(engine, self.model_names[0], self.live)
        self.prompts = PromptEncoder(engine, max_prompt_tokens=self.limits.max_prompt_tokens)
        self.grammars = GrammarWorker(engine.tokenizer)
        self._started = False
        self._stopping = False

    @property
    def draining(self) -> bool:
        """Whether the engine was told to stop."""
        return self._stopping

    async def start(self) -> None:
        """Start the engine, once. Raises ``EngineFailed``."""
        if not self._started:
            self._started = True
            await self.engine.start()

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Stop the engine, once: no new requests, ``drain_s`` seconds for those in it."""
        if self._started and not self._stopping:
            self._stopping = True
            await self.engine.stop(drain_s=drain_s)
            self.prompts.close()
            self.grammars.close()

    def health(self) -> Health:
        """What the engine says of itself."""
        if self._stopping:
            return Health.DRAINING
        if not self._started:
            return Health.STARTING
        try:
            self.engine.gauges()
        except EngineRestarting:
            return Health.RESTARTING
        except EngineFailed:
            return Health.FAILED
        return Health.OK

    def require_model(self, name: str | None) -> None:
        """Raises ``ApiError`` 404 for a model that is not served; a request that names none takes the one there is."""
        if name is not None and name not in self.model_names:
            raise model_not_found(name)
