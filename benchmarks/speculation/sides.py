"""One compiled model and several ways to serve it, run in turn in one process: closed loops over the four kinds of work.

Every side has a policy of its own that goes on learning from run to run, as a server's does. Runs of different sides use the
same KV memory one after the other, each with an empty cache, so no side profits from another's prefixes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from setpoint.engine.models import DEMO_MODEL, resolve_model
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.speculation.building import build_speculator
from setpoint.engine.speculation.draft_model import DraftModel
from setpoint.engine.speculation.draft_source import draft_source
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.engine.warm_up import warm_up, warm_up_drafter, warm_up_drafts
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy
from setpoint.policy.speculating import SpeculatingPolicy
from setpoint.policy.step_time import StepTimeModel
from setpoint.report.files import machine_facts
from setpoint.workload.kinds import KINDS, WorkloadKind

QUIET_BELOW_PERCENT = 10.0
QUIET_TRIES = 30
KV_CACHE_TOKENS = 16384
PLAIN = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=32, token_budget=2048, kv_cache_tokens=KV_CACHE_TOKENS)


def speculating(mode: SpeculationMode, *, fixed: int | None = None, draft_model: str | None = None) -> ServingConfig:
    """``PLAIN`` with drafts."""
    return PLAIN.model_copy(update={"speculation": mode, "draft_tokens": fixed, "draft_model": draft_model})


@dataclass(frozen=True, slots=True)
class Timed:
    """A run: seconds of wall clock from the first request to the last token, and every answer in order of its request.

    steps, drafted_steps: how many were made, and how many of them had a draft.
    """

    seconds: float
    answers: list[list[int]]
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    draft_seconds: float = 0.0
    steps: int = 0
    drafted_steps: int = 0

    @property
    def tokens(self) -> int:
        return sum(map(len, self.answers))

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Job:
    """A request that may run beside at most ``beside`` others."""

    request: GenerationRequest
    beside: int


@dataclass(slots=True)
class Side:
    """A configuration, its policy and its drafter."""

    name: str
    config: ServingConfig
    policy: Any
    speculator: Speculator | None
    first_id: int = 0
    chosen: list[dict[str, float]] = field(default_factory=list)


class Bench:
    """A model compiled once. ``precision``: as ``ExecutorOptions``."""

    def __init__(self, model: str = DEMO_MODEL, *, precision: str | None = None) -> None:
        self.model = resolve_model(model)
        self.tokenizer = ModelTokenizer(self.model.folder)
        cache = "f32" if precision == "f32" else None
        self.options = ExecutorOptions(kv_cache_tokens=KV_CACHE_TOKENS, precision=precision, cache_precision=cache)
        self.executor = OpenVinoExecutor(self.model.folder, self.options, time.perf_counter)

    def side(self, name: str, config: ServingConfig) -> Side:
        """A way to serve, warmed up as the engine does it."""
        step_time = StepTimeModel()
        warm_up(self.executor, step_time, config)
        policy = build_policy(config, step_time)
        draft = draft_source(config, self.model, self.tokenizer)

        def draft_model() -> DraftModel:
            assert draft is not None
            own = OpenVinoExecutor(draft.folder, self.options, time.perf_counter)
            return DraftModel(own, vocabulary=self.executor.vocabulary, most_tokens=config.longest_draft_tokens)

        speculator = build_speculator(config, time.perf_counter, draft_model=draft_model)
        if isinstance(policy, SpeculatingPolicy) and speculator is not None:
            warm_up_drafts(self.executor, config, policy.chooser.learn)
            warm_up_drafter(speculator.drafter, config, policy.chooser.learn_drafting)
        return Side(name, config, policy, speculator)

    def run(self, side: Side, jobs: Sequence[Job]) -> Timed:
        """Requests enter in order, each as soon as fewer than its ``beside`` + 1 run; all are answered to their cap."""
        loop = StepLoop(side.policy, self.executor, time.perf_counter, max_model_len=4096, speculator=side.speculator)
        loop._next_id = side.first_id  # A policy knows requests by number: these are new ones.
        before = _counts(side.speculator)
        answers: dict[int, list[int]] = {}
        left = list(reversed(jobs))
        steps = drafted_steps = 0
        started_s = time.perf_counter()
        while left or loop.busy:
            while left and len(loop.running) + len(loop.waiting) <= left[-1].beside:
                answers[loop.submit(left.pop().request).sequence_id] = []
            if loop.begin_step():
                batch = loop.batch_in_flight
                steps += 1
                drafted_steps += batch is not None and batch.drafted > 0
                for emission in loop.finish_step():
                    if emission.token is not None:
                        answers[emission.sequence.sequence_id].append(emission.token)
        seconds = time.perf_counter() - started_s
        side.first_id = loop._next_id
        after = _counts(side.speculator)
        drafts, drafted, accepted, draft_s = (b - a for a, b in zip(before, after, strict=True))
        return Timed(seconds, list(answers.values()), int(drafts), int(drafted), int(accepted), draft_s, steps, drafted_steps)

    def requests(self, kind: WorkloadKind, count: int, *, first: int = 0) -> list[GenerationRequest]:
        """``count`` requests of a kind, seeded, all running to their cap: half to one and a half times the kind's length.

        Were all of one length, a side without drafts would go through its batch in step, and read the next prompts together.
        """
        work = KINDS[kind]
        return [
            GenerationRequest(
                tuple(self.tokenizer.encode(work.prompt(number))),
                SamplingParams(
                    max_tokens=_cap(work.output_tokens, number), temperature=work.temperature, seed=number, ignore_eos=True
                ),
                f"{kind.value}-{number}",
            )
            for number in range(first, first + count)
        ]


def _cap(tokens: int, number: int) -> int:
    """Spread evenly over half to one and a half times ``tokens`` (golden ratio: any stretch of numbers is even)."""
    return max(1, round(tokens * (0.5 + number * 0.6180339887 % 1.0)))


def _counts(speculator: Speculator | None) -> tuple[float, float, float, float]:
    if speculator is None:
        return (0.0, 0.0, 0.0, 0.0)
    counters = speculator.counters
    return (counters.drafts, counters.draft_tokens, counters.accepted_tokens, counters.draft_seconds)


def rounds_of(sides: Sequence[Side], rounds: int) -> Iterator[Sequence[Side]]:
    """The sides in turn, another one first in every round."""
    for number in range(rounds):
        start = number % len(sides)
        yield [*sides[start:], *sides[:start]]


def alike(one: Timed, other: Timed) -> int:
    """How many requests have the same answer in both."""
    return sum(a == b for a, b in zip(one.answers, other.answers, strict=True))


def median_ratio(base: Sequence[float], other: Sequence[float]) -> float:
    """Median over rounds of base seconds over the other's: a speed-up."""
    return statistics.median(a / b for a, b in zip(base, other, strict=True))


def wait_until_quiet() -> float:
    """Processor use of the machine before anything is started, in percent; the last value seen if it never calms down."""
    percent = 100.0
    for _ in range(QUIET_TRIES):
        percent = psutil.cpu_percent(1)
        if percent < QUIET_BELOW_PERCENT:
            break
    return percent


def write(path: Path | None, kind: str, quiet: float, arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """The result as JSON, with what it was measured on."""
    about = {
        "benchmark": kind,
        "machine": machine_facts(),
        "cpu_percent_before": quiet,
        "quiet": quiet < QUIET_BELOW_PERCENT,
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
    }
    text = json.dumps({**about, **result}, indent=1)
    if path is None:
        print(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")
