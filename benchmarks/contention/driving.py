"""Real servers under real loads, for the scripts beside this file: start one, put loads on it in turn, keep the rows.

Every server is a process of its own on a free loopback port; every load is planned before it is sent and ends by itself.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from examples import longest_answer_s, requirement_file, requirement_of

from setpoint.engine.models import demo_file
from setpoint.loop.own_server import on_own_server
from setpoint.loop.prompts import prompts_for
from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.options import LoadOptions
from setpoint.measure.probe import discover
from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase
from setpoint.requirement.arrival import Burst
from setpoint.requirement.tokens import ConstantTokens
from setpoint.workload.closed import plan_closed
from setpoint.workload.plan import LoadPlan, PhaseSpan, plan_load
from setpoint.workload.prompt import PromptMaker

Result = TypeVar("Result")

UNBOUNDED = 1_000_000
CONFIGS = {
    "recommendation": ServingConfig(mode=BatchingMode.SETPOINT, max_running=16),
    "coding-assistant": ServingConfig(mode=BatchingMode.SETPOINT, max_running=32),
}
LLAMA_READY_WITHIN_S = 120.0
LLAMA_CACHE_TOKENS = 32768
FASTEST_STEP_S = 0.004


@dataclass(frozen=True, slots=True)
class Load:
    """What is put on a server: an example's requests at a rate, with or without bursts.

    burst_rps: rate of each of ``bursts`` bursts of ``burst_s`` seconds, each followed by ``recovery_s`` at ``rate_rps``.
    changes: fields of the profile that differ from the example's. drain_s: how long answers may still come after the last send;
    ``None``: as long as one may be in time.
    """

    example: str
    rate_rps: float
    sustained_s: float
    warmup_s: float = 3.0
    drain_s: float | None = None
    seed: int = 1
    burst_rps: float = 0.0
    bursts: int = 0
    burst_s: float = 10.0
    recovery_s: float = 0.0
    retries: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drained_s(self) -> float:
        """How long answers may still come."""
        return longest_answer_s(self.example) + 1.0 if self.drain_s is None else self.drain_s

    @property
    def length_s(self) -> float:
        """The longest it can take."""
        return self.warmup_s + self.sustained_s + self.bursts * (self.burst_s + self.recovery_s) + self.drained_s

    def plan(self, make_prompt: PromptMaker) -> LoadPlan:
        """Every request of it."""
        profile = requirement_of(self.example).profile
        arrival = profile.arrival.model_copy(update={"rate_rps": self.rate_rps})
        burst = Burst(rate_rps=self.burst_rps, duration_s=self.burst_s) if self.bursts else None
        profile = profile.model_copy(update={"arrival": arrival, "burst": burst, **self.changes})
        return plan_load(
            profile,
            seed=self.seed,
            warmup_s=self.warmup_s,
            sustained_s=self.sustained_s,
            burst_repeats=self.bursts,
            recovery_s=self.recovery_s,
            make_prompt=make_prompt,
        )


def serving(example: str, config: ServingConfig, work: Callable[[Target], Awaitable[Result]]) -> Result:
    """What ``work`` comes to on a server of the example under ``config``."""
    with requirement_file(example) as file:
        return run(on_own_server(str(file), config, work, log=None))


@dataclass(frozen=True, slots=True)
class Run:
    """A load that was put on a server, and what came of it."""

    load: Load
    plan: LoadPlan
    result: LoadResult


async def put(target: Target, load: Load, *, headers: Mapping[str, str] | None = None) -> Run:
    """Put the load on the target and wait for its end."""
    found = await discover(target)
    options = LoadOptions(
        streaming=bool(load.changes.get("streaming", requirement_of(load.example).profile.streaming)),
        drain_s=load.drained_s,
        retries=load.retries,
        slos=requirement_of(load.example).slo,
    )
    # The maker of prompts asks the server with a blocking client: on a thread, not on the event loop that answers wait for.
    plan = await asyncio.to_thread(lambda: load.plan(prompts_for(found.target, token_ids_accepted=found.takes_token_ids)))
    addressed = Target(target.url, model=found.target.model, headers=dict(headers or {}))
    return Run(load, plan, await run_load(addressed, plan, options))


async def put_closed(
    target: Target,
    *,
    clients: int,
    prompt_tokens: int,
    shared_tokens: int,
    output_tokens: int,
    seconds: float,
    seed: int,
    warmup_s: float = 2.0,
    headers: Mapping[str, str] | None = None,
) -> LoadResult:
    """So many clients, each sending its next request when it has its answer; every request of the same lengths."""
    found = await discover(target)
    profile = requirement_of("coding-assistant").profile.model_copy(
        update={
            "prompt_tokens": ConstantTokens(value=prompt_tokens),
            "output_tokens": ConstantTokens(value=output_tokens),
            "shared_prefix_tokens": shared_tokens,
        }
    )
    # No more than could be answered here: every prompt is made before the first is sent.
    most = int(clients * (seconds + warmup_s) / (output_tokens * FASTEST_STEP_S)) + clients
    plan = await asyncio.to_thread(
        lambda: _first(
            plan_closed(
                profile,
                concurrency=clients,
                requests=most,
                seed=seed,
                warmup_s=0.0,
                make_prompt=prompts_for(found.target, token_ids_accepted=found.takes_token_ids),
            ),
            warmup_s,
            seconds,
        )
    )
    options = LoadOptions(streaming=True, drain_s=3.0)
    return await run_load(Target(target.url, model=found.target.model, headers=dict(headers or {})), plan, options)


def _first(plan: LoadPlan, warmup_s: float, seconds: float) -> LoadPlan:
    """The plan of a closed loop by number, ended by time."""
    phases = [PhaseSpan(Phase.WARMUP, 0.0, warmup_s), PhaseSpan(Phase.SUSTAINED, warmup_s, warmup_s + seconds)]
    return replace(plan, phases=phases)


@contextmanager
def llama_server(program: Path, *, places: int) -> Iterator[Target]:
    """llama.cpp's server with the demo model's own GGUF, so many slots, every core, no cache of prompts between requests."""
    port = _free_port()
    command = [str(program), "--model", str(demo_file()), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--parallel", str(places), "--ctx-size", str(LLAMA_CACHE_TOKENS)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_health(process, f"http://127.0.0.1:{port}")
        yield Target(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _await_health(process: subprocess.Popen[bytes], url: str) -> None:
    until_s = time.monotonic() + LLAMA_READY_WITHIN_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2.0):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"llama-server: not healthy within {LLAMA_READY_WITHIN_S:g} s; try its command by hand")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
