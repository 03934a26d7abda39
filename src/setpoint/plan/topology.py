"""A candidate: a topology of pools, each so many replicas of one deployment under one serving configuration.

Today every candidate has one pool that does the whole of a request. A topology of a prefill pool and a decode pool is the
same type with two pools; what it lacks is a simulator that hands a request from one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode

if TYPE_CHECKING:
    from setpoint.hardware.deployment import Deployment


class Role(StrEnum):
    """What part of a request a pool does."""

    WHOLE = "whole"
    PREFILL = "prefill"
    DECODE = "decode"


class Scheduler(StrEnum):
    """Whose step loop puts requests together: setpoint's, or vLLM's own with its defaults."""

    SETPOINT = "setpoint"
    VLLM = "vllm"


@dataclass(frozen=True, slots=True)
class Shape:
    """What one replica is made of. ``usd_per_gpu_h`` is ``None`` where nobody said a price; ``kv_tokens`` fit its cache."""

    deployment: Deployment
    usd_per_gpu_h: float | None
    kv_tokens: int

    @property
    def hardware(self) -> str:
        """Name of the accelerator."""
        return self.deployment.accelerator.name

    @property
    def gpus(self) -> int:
        """Accelerators of one replica."""
        return self.deployment.devices

    @property
    def name(self) -> str:
        """Such as ``h100-sxm tp2 fp8`` (``fp8+kv-fp8`` where the cache is not in ``bf16``)."""
        precision = self.deployment.weight_precision
        if self.deployment.kv_precision not in ("bf16", "fp16"):
            precision += f"+kv-{self.deployment.kv_precision}"
        return f"{self.hardware} tp{self.deployment.tensor_parallel} {precision}"


@dataclass(frozen=True, slots=True)
class Guesses:
    """How many guesses come true: ``survival`` by position in the ``share`` of steps that find one. draft: the draft model
    beside the model. likely_tokens: the length that gains most where the replica runs, for engines that take only one."""

    survival: tuple[float, ...]
    share: float
    draft: Deployment | None
    likely_tokens: int


@dataclass(frozen=True, slots=True)
class Serving:
    """How a replica serves: whose scheduler, and its numbers. guesses: where ``config`` speculates, how well.

    context_tokens: the longest prompt and answer that it takes, ``None``: what the model takes. prefix_caching: whether prompts
    find again what others had in common with them.
    """

    scheduler: Scheduler
    config: ServingConfig
    guesses: Guesses | None = None
    context_tokens: int | None = None
    prefix_caching: bool = True

    @property
    def name(self) -> str:
        """Such as ``setpoint-64x2048``: mode (``vllm`` for vLLM's own), most running, token budget.

        With ``+draft-3`` or ``+prompt-lookup-3`` it always drafts three tokens, without a number as many as pay.
        """
        return self._plain_name + self._guess_name

    @property
    def _guess_name(self) -> str:
        config = self.config
        if config.speculation is SpeculationMode.OFF:
            return ""
        length = "" if config.draft_tokens is None else f"-{config.draft_tokens}"
        return f"+{config.speculation.value}{length}"

    @property
    def _plain_name(self) -> str:
        config = self.config
        mode = "vllm" if self.scheduler is Scheduler.VLLM else config.mode.value
        if config.mode is BatchingMode.IMMEDIATE:
            return mode
        if config.mode is BatchingMode.STATIC:
            return f"{mode}-{config.max_running}"
        return f"{mode}-{config.max_running}x{config.token_budget}"


@dataclass(frozen=True, slots=True)
class Pool:
    """``replicas`` of one shape under one serving configuration."""

    shape: Shape
    serving: Serving
    replicas: int
    role: Role = Role.WHOLE

    @property
    def gpus(self) -> int:
        """Accelerators of the pool."""
        return self.replicas * self.shape.gpus


@dataclass(frozen=True, slots=True)
class Topology:
    """A candidate of the plan."""

    pools: tuple[Pool, ...]

    @classmethod
    def single(cls, shape: Shape, serving: Serving, replicas: int) -> Self:
        """The topology of one pool that does everything."""
        return cls((Pool(shape, serving, replicas),))

    @property
    def pool(self) -> Pool:
        """The only pool. Raises ``ValueError`` for a topology of several."""
        (only,) = self.pools
        return only

    @property
    def gpus(self) -> int:
        """Accelerators in all."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def usd_per_h(self) -> float | None:
        """Price an hour, ``None`` if one of the pools has no price."""
        prices = [pool.shape.usd_per_gpu_h for pool in self.pools]
        if any(price is None for price in prices):
            return None
        return sum(pool.gpus * (pool.shape.usd_per_gpu_h or 0.0) for pool in self.pools)

    @property
    def power_w(self) -> float:
        """Power that the accelerators may draw (their datasheet's figure, not what the load takes)."""
        return sum(pool.gpus * pool.shape.deployment.accelerator.power_w for pool in self.pools)

    @property
    def name(self) -> str:
        """Such as ``2 x h100-sxm tp1 bf16 setpoint-64x2048``; pools are joined by ``+``."""
        return " + ".join(f"{pool.replicas} x {pool.shape.name} {pool.serving.name}" for pool in self.pools)

    def with_replicas(self, replicas: int) -> Topology:
        """The same with another number of replicas of its only pool."""
        return Topology((replace(self.pool, replicas=replicas),))
